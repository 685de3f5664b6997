"""Permutations of an image's values, applied as gathers of whole runs in the widest words.

A map says where each value comes from. Most move runs of neighbours together (a block shuffle
moves ``block * C`` values at a time), so a map is first coarsened to its longest runs, and the
runs are then copied as 8-, 4-, 2- or 1-byte words.

Shape letters: N images, M maps (1 or N), R runs an image, V = H*W*C values an image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Gather", "RunMap", "as_words", "coarsen", "compose", "piece_size", "pieces"]

# Four to eight large images: with their results they stay in a core's cache of 2 MB. Where a gather
# from main memory waits for every run, fetching a piece in order first makes it 2 to 3 times faster
# for runs below 100 bytes; where the processor has them under way at once, 2 to 3 times slower.
PIECE_BYTES = 1_200_000

PROBE_IMAGES, PROBE_BYTES, PROBE_ROUNDS = 128, 150_000, 6

# Runs of several cache lines are fetched ahead by every processor.
LONG_RUN_BYTES = 256

# Copying a row costs index_select some 10 ns, one lone word 1.5 ns.
FEW_WORDS = 4

_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


class RunMap(NamedTuple):
    """A gather map in runs: run j of image m's result is run ``runs[m, j]`` of the image.

    Shapes: ``runs`` int32 (M, R); ``length`` values a run, R * length = V.
    """

    runs: np.ndarray
    length: int

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return bool((self.runs == np.arange(self.runs.shape[1])).all())

    def keeps_channels(self, channels: int) -> bool:
        """Whether every value stays in its channel, for images flattened HWC."""
        places = np.arange(self.runs.shape[1])
        return not ((self.runs - places) * self.length % channels).any()

    def values(self) -> np.ndarray:
        """The map in single values.

        Shapes: int64 (M, V).
        """
        spread = self.runs[:, :, None] * self.length + np.arange(self.length)
        return spread.reshape(len(self.runs), -1)


def coarsen(index: np.ndarray) -> RunMap:
    """The map with the longest runs that all of its M maps have in common.

    A length fits if no run is torn (it divides every place where the map jumps) and every run
    starts at a multiple of it: so it is the greatest common divisor of all those numbers.

    Shapes: index integer (M, V).
    """
    index = index.astype(np.int64, copy=False)
    jumps = (np.diff(index, axis=1) != 1).any(axis=0).nonzero()[0] + 1
    starts = np.concatenate([[0], jumps])
    length = math.gcd(index.shape[1], int(np.gcd.reduce(starts)))
    length = math.gcd(length, int(np.gcd.reduce(index[:, starts], axis=None)))
    return RunMap((index[:, ::length] // length).astype(np.int32), length)


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The one map that does what ``first`` and then ``then`` do.

    Shapes: (M, V) each, M may be 1 in either; returns (M, V).
    """
    count = max(len(first), len(then))
    wide = np.broadcast_to(first, (count, first.shape[1]))
    return np.take_along_axis(wide, np.broadcast_to(then, wide.shape), axis=1)


def as_words(rows: Tensor) -> Tensor:
    """The same bytes as the widest integers that divide a row.

    Shapes: uint8 (N, V) to (N, V / word bytes). Shares memory.
    """
    return rows.view(_widest(rows.shape[1])[0])


def _widest(length: int) -> tuple[torch.dtype, int]:
    """The widest word that divides so many bytes, and how many words they are."""
    return next((dtype, length // size) for size, dtype in _WORDS if length % size == 0)


def piece_size(count: int, row_bytes: int, device: torch.device) -> int:
    """How many images to work on at a time: what the cache holds on the CPU, elsewhere all."""
    return max(1, PIECE_BYTES // row_bytes if device.type == "cpu" else count)


def pieces(count: int, row_bytes: int, device: torch.device) -> Iterator[slice]:
    """The slices of a batch that are worked on one after another."""
    size = piece_size(count, row_bytes, device)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class Gather:
    """A run map made ready for batches of uint8 images on one device."""

    def __init__(self, runs: RunMap, device: torch.device) -> None:
        # A copy, as a map may be read-only, which torch warns of.
        places = torch.from_numpy(runs.runs.astype(np.int32)).to(device)
        self._word, words = _widest(runs.length)
        self._row = [words]
        if words < FEW_WORDS:
            within = torch.arange(words, dtype=torch.int32, device=device)
            places = places[:, :, None] * words + within
            places, self._row = places.flatten(1), []
        self._places = places
        self._run_bytes = runs.length
        self._kept = torch.empty(0, dtype=torch.int32, device=device)

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """The permuted images.

        Shapes: uint8 (N, V), contiguous; returns the same, in ``out`` where it is given.
        """
        out = torch.empty_like(images) if out is None else out
        # A map of single bytes is larger than its image, and must stay in the cache as well.
        image_bytes = max(images.shape[1], 2 * self._places.shape[1])
        size = piece_size(len(images), image_bytes, images.device)
        if size < len(images) and _pays_in_pieces(self._run_bytes):
            self.in_pieces(images, out, size)
        else:
            self.at_once(images, out)
        return out

    def at_once(self, images: Tensor, out: Tensor) -> None:
        """The permuted images in ``out``, from where they are."""
        order = self._order(0, len(images))
        torch.index_select(self._rows(images), 0, order, out=self._rows(out))

    def in_pieces(self, images: Tensor, out: Tensor, size: int) -> None:
        """The same, ``size`` images at a time, fetched into the cache first."""
        scratch = torch.empty_like(images[:size])
        source, width = self._rows(scratch), self._places.shape[1]
        parts, targets = torch.split(images, size), torch.split(self._rows(out), size * width)
        for i, (part, target) in enumerate(zip(parts, targets, strict=True)):
            scratch[: len(part)].copy_(part)
            torch.index_select(source, 0, self._order(i * size, len(part)), out=target)

    def _rows(self, images: Tensor) -> Tensor:
        return images.view(self._word).view(-1, *self._row)

    def _order(self, first: int, count: int) -> Tensor:
        """The rows, of images one after another, that make up the result of so many images."""
        width = self._places.shape[1]
        if len(self._places) > 1:
            return self._in_sequence(self._places[first : first + count], count)
        # One shared map repeats for every image: its rows are kept for the most seen at once.
        if len(self._kept) < count * width:
            self._kept = self._in_sequence(self._places, count)
        return self._kept[: count * width]

    def _in_sequence(self, places: Tensor, count: int) -> Tensor:
        width = places.shape[1]
        dtype = torch.int32 if count * width < 2**31 else torch.int64
        starts = torch.arange(count, dtype=dtype, device=places.device)[:, None] * width
        return (starts + places).view(-1)


@cache
def _pays_in_pieces(run_bytes: int) -> bool:
    """Whether this processor gathers runs of so many bytes faster from pieces in its cache.

    Tried once a process, in some 60 ms.
    """
    if run_bytes >= LONG_RUN_BYTES:
        return False
    runs = max(1, PROBE_BYTES // run_bytes)
    order = np.random.RandomState(0).permutation(runs)[None]
    gather = Gather(RunMap(order, run_bytes), torch.device("cpu"))
    # Ones: zeros would be one page of memory, over and over.
    images = torch.ones(PROBE_IMAGES, runs * run_bytes, dtype=torch.uint8)
    out = torch.ones_like(images)
    size = piece_size(len(images), images.shape[1], images.device)
    ways = partial(gather.at_once, images, out), partial(gather.in_pieces, images, out, size)
    # In turn, for the images come closer to the processor from round to round.
    rounds = [[_seconds(way) for way in ways] for _ in range(PROBE_ROUNDS)]
    at_once, in_pieces = map(min, zip(*rounds, strict=True))
    return bool(in_pieces < at_once)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
