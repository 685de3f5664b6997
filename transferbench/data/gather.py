"""Permutations of an image's values, applied as gathers of runs of values.

A map gives the source of each value. Most permutations move runs of neighbours together (a block
shuffle moves ``block * C`` values), so a map is first coarsened to its longest runs, which are then
copied as 8-, 4-, 2- or 1-byte words.

Rejected: kornia's RandomJigsaw and albumentations' RandomGridShuffle, which draw permutations of
their own and take 12 to 14 times as long (benchmark B2).

Shape letters: N images, M maps (1 or N), R runs an image, V = H*W*C values an image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["Gather", "RunMap", "as_words", "chunk_size", "chunks", "coarsen"]

# Four to eight large images, which fit with their results into a core's cache of 2 MB. On
# processors that wait for each run of a gather from main memory, copying a chunk into the cache
# first is 2 to 3 times faster for runs below 100 bytes; on processors that overlap the fetches it
# is 2 to 3 times slower.
CHUNK_BYTES = 1_200_000

PROBE_IMAGES, PROBE_BYTES, PROBE_ROUNDS = 128, 150_000, 6

# Runs of several cache lines are prefetched by all processors.
LONG_RUN_BYTES = 256

# index_select takes some 10 ns per row, 1.5 ns per single word.
FEW_WORDS = 4

_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


class RunMap(NamedTuple):
    """A gather map of runs: run j of the result for image m is run ``runs[m, j]`` of the image.

    Shapes: ``runs`` int32 (M, R); ``length`` values per run, R * length = V.
    """

    runs: np.ndarray
    length: int

    @property
    def is_identity(self) -> bool:
        """Whether the map is the identity."""
        return bool((self.runs == np.arange(self.runs.shape[1])).all())

    def keeps_channels(self, channels: int) -> bool:
        """Whether all values stay in their channel, for images flattened HWC."""
        targets = np.arange(self.runs.shape[1])
        return not ((self.runs - targets) * self.length % channels).any()

    def values(self) -> np.ndarray:
        """The map of single values.

        Shapes: int64 (M, V).
        """
        expanded = self.runs[:, :, None] * self.length + np.arange(self.length)
        return expanded.reshape(len(self.runs), -1)


def coarsen(index: np.ndarray) -> RunMap:
    """The map with the longest runs that all of its M maps have in common.

    A length is valid if it divides all positions where a map jumps, so that no run is split, and
    all sources at these positions: the longest is their greatest common divisor.

    Shapes: index integer (M, V).
    """
    index = index.astype(np.int64, copy=False)
    jumps = (np.diff(index, axis=1) != 1).any(axis=0).nonzero()[0] + 1
    starts = np.concatenate([[0], jumps])
    length = math.gcd(index.shape[1], int(np.gcd.reduce(starts)))
    length = math.gcd(length, int(np.gcd.reduce(index[:, starts], axis=None)))
    return RunMap((index[:, ::length] // length).astype(np.int32), length)


def as_words(rows: Tensor) -> Tensor:
    """The same memory as the widest integers that divide a row.

    Shapes: uint8 (N, V) to (N, V / word bytes).
    """
    return rows.view(_widest_word(rows.shape[1])[0])


def _widest_word(length: int) -> tuple[torch.dtype, int]:
    """The widest integer that divides ``length`` bytes, and how many of them fit."""
    return next((dtype, length // size) for size, dtype in _WORDS if length % size == 0)


def chunk_size(count: int, row_bytes: int, device: torch.device) -> int:
    """How many images to process at a time: on the CPU what fits into the cache, else all."""
    return max(1, CHUNK_BYTES // row_bytes if device.type == "cpu" else count)


def chunks(count: int, row_bytes: int, device: torch.device) -> Iterator[slice]:
    """The slices in which a batch is processed."""
    size = chunk_size(count, row_bytes, device)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class Gather:
    """Applies a run map to batches of uint8 images on one device."""

    def __init__(self, runs: RunMap, device: torch.device) -> None:
        # A copy: torch warns about read-only arrays.
        self._set(torch.from_numpy(runs.runs.astype(np.int32)).to(device), runs.length)

    @classmethod
    def of_sources(cls, sources: Tensor, length: int) -> Self:
        """The gather of a run map that is on its device: int32 (M, R) runs of ``length`` bytes."""
        gather = cls.__new__(cls)
        gather._set(sources, length)  # noqa: SLF001  # its own
        return gather

    def _set(self, sources: Tensor, length: int) -> None:
        device = sources.device
        self._word, words = _widest_word(length)
        self._row = [words]
        if words < FEW_WORDS:
            within = torch.arange(words, dtype=torch.int32, device=device)
            sources = sources[:, :, None] * words + within
            sources, self._row = sources.flatten(1), []
        self._sources = sources
        self._run_bytes = length
        # Of a shared map. Shorter ones are kept: a captured graph reads the one of its capture.
        self._shared_orders = [torch.empty(0, dtype=torch.int32, device=device)]

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """The permuted images.

        Shapes: uint8 (N, V), contiguous; returns the same, in ``out`` if not None.
        """
        out = torch.empty_like(images) if out is None else out
        # A map of single bytes is larger than its image, and must stay in the cache as well.
        image_bytes = max(images.shape[1], 2 * self._sources.shape[1])
        size = chunk_size(len(images), image_bytes, images.device)
        if size < len(images) and _chunks_are_faster(self._run_bytes):
            self.in_chunks(images, out, size)
        else:
            self.at_once(images, out)
        return out

    def at_once(self, images: Tensor, out: Tensor) -> None:
        """Write the permuted images to ``out``, gathered from main memory."""
        order = self._order(0, len(images))
        torch.index_select(self._rows(images), 0, order, out=self._rows(out))

    def in_chunks(self, images: Tensor, out: Tensor, size: int) -> None:
        """Write the permuted images to ``out``, ``size`` at a time, copied to the cache first."""
        scratch = torch.empty_like(images[:size])
        source, width = self._rows(scratch), self._sources.shape[1]
        parts, targets = torch.split(images, size), torch.split(self._rows(out), size * width)
        for i, (part, target) in enumerate(zip(parts, targets, strict=True)):
            scratch[: len(part)].copy_(part)
            torch.index_select(source, 0, self._order(i * size, len(part)), out=target)

    def _rows(self, images: Tensor) -> Tensor:
        return images.view(self._word).view(-1, *self._row)

    def _order(self, first: int, count: int) -> Tensor:
        """The source rows of ``count`` images, whose rows are numbered consecutively."""
        width = self._sources.shape[1]
        if len(self._sources) > 1:
            return self._consecutive(self._sources[first : first + count], count)
        # A shared map is repeated for each image: cached for the largest batch so far.
        if len(self._shared_orders[-1]) < count * width:
            self._shared_orders.append(self._consecutive(self._sources, count))
        return self._shared_orders[-1][: count * width]

    def _consecutive(self, sources: Tensor, count: int) -> Tensor:
        width = sources.shape[1]
        dtype = torch.int32 if count * width < 2**31 else torch.int64
        starts = torch.arange(count, dtype=dtype, device=sources.device)[:, None] * width
        return (starts + sources).view(-1)


@cache
def _chunks_are_faster(run_bytes: int) -> bool:
    """Whether this processor gathers runs of ``run_bytes`` faster from chunks in its cache.

    Measured once per process, in some 60 ms.
    """
    if run_bytes >= LONG_RUN_BYTES:
        return False
    runs = max(1, PROBE_BYTES // run_bytes)
    order = np.random.RandomState(0).permutation(runs)[None]
    gather = Gather(RunMap(order, run_bytes), torch.device("cpu"))
    # Ones, since all zeros would share a page of memory.
    images = torch.ones(PROBE_IMAGES, runs * run_bytes, dtype=torch.uint8)
    out = torch.ones_like(images)
    size = chunk_size(len(images), images.shape[1], images.device)
    ways = partial(gather.at_once, images, out), partial(gather.in_chunks, images, out, size)
    # Alternating, since the caches warm up from round to round.
    rounds = [[_seconds(way) for way in ways] for _ in range(PROBE_ROUNDS)]
    at_once, in_chunks = map(min, zip(*rounds, strict=True))
    return bool(in_chunks < at_once)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
