"""Permutations of an image's values, applied as gathers of whole runs in the widest words.

A map says where each value comes from. Most move runs of neighbours together (a block shuffle
moves ``block * C`` values at a time), so a map is first coarsened to its longest runs, and the
runs are then copied as 8-, 4-, 2- or 1-byte words.

Shape letters: N images, M maps (1 or N), R runs an image, V = H*W*C values an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Gather", "RunMap", "as_words", "coarsen", "compose", "piece_size", "pieces"]

# Four to eight large images: with their results they stay in a core's cache of 2 MB. A gather
# from main memory waits for every run; fetching a piece in order first made it 2 to 3 times
# faster for runs below 100 bytes, which is why fetch and gather are two calls and not one.
PIECE_BYTES = 1_200_000

# Runs of several cache lines are fetched ahead by the processor itself, straight from memory.
LONG_RUN_BYTES = 256

# Copying a row costs index_select some 10 ns, one lone word 1.5 ns.
FEW_WORDS = 4

_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


class RunMap(NamedTuple):
    """A gather map in runs: run j of image m's result is run ``runs[m, j]`` of the image.

    Shapes: ``runs`` int64 (M, R); ``length`` values a run, R * length = V.
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
    return RunMap(index[:, ::length] // length, length)


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
        places = torch.from_numpy(runs.runs.copy()).to(device)
        self._word, words = _widest(runs.length)
        self._row = [words]
        if words < FEW_WORDS:
            places = places[:, :, None] * words + torch.arange(words, device=device)
            places, self._row = places.flatten(1), []
        self._places = places
        self._long = runs.length >= LONG_RUN_BYTES
        self._kept = torch.empty(0, dtype=torch.int32, device=device)

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """The permuted images.

        Shapes: uint8 (N, V), contiguous; returns the same, in ``out`` where it is given.
        """
        out = torch.empty_like(images) if out is None else out
        # A map of single bytes is larger than its image, and must stay in the cache as well.
        image_bytes = max(images.shape[1], 2 * self._places.shape[1])
        size = piece_size(len(images), image_bytes, images.device)
        if size < len(images) and not self._long:
            self._in_pieces(images, out, size)
        else:
            order = self._order(0, len(images))
            torch.index_select(self._rows(images), 0, order, out=self._rows(out))
        return out

    def _in_pieces(self, images: Tensor, out: Tensor, size: int) -> None:
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
        starts = torch.arange(count, device=places.device)[:, None] * width
        dtype = torch.int32 if count * width < 2**31 else torch.int64
        return (starts + places).view(-1).to(dtype)
