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

__all__ = ["Gather", "RunMap", "as_words", "coarsen", "compose", "pieces"]

# Four to eight large images: with their results they stay in a core's cache of 2 MB. A gather
# from main memory waits for every run; fetching a piece in order first made it 2 to 3 times
# faster for runs below 100 bytes, which is why fetch and gather are two calls and not one.
PIECE_BYTES = 1_200_000

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


def as_words(rows: Tensor, length: int | None = None) -> Tensor:
    """The same bytes as the widest integers that divide ``length`` (default: a row).

    Shapes: uint8 (N, V) to (N, V / word bytes). Shares memory.
    """
    length = length or rows.shape[1]
    return rows.view(next(dtype for size, dtype in _WORDS if length % size == 0))


def pieces(count: int, row_bytes: int, device: torch.device) -> Iterator[slice]:
    """The slices in which a batch is worked on: cache-sized on the CPU, all at once elsewhere."""
    size = max(1, PIECE_BYTES // row_bytes) if device.type == "cpu" else max(1, count)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class Gather:
    """A run map made ready for batches of uint8 images on one device."""

    def __init__(self, runs: RunMap, device: torch.device) -> None:
        self._length = runs.length
        places = torch.from_numpy(runs.runs.copy()).to(device)
        probe = as_words(torch.empty(1, runs.length, dtype=torch.uint8))
        self._words = probe.shape[1]
        if self._words < FEW_WORDS:
            places = places[:, :, None] * self._words + torch.arange(self._words, device=device)
            places = places.flatten(1)
            self._words = 1
        self._places = places
        self._rows = torch.empty(0, dtype=torch.int32, device=device)

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """The permuted images.

        Shapes: uint8 (N, V), contiguous; returns the same, in ``out`` where it is given.
        """
        out = torch.empty_like(images) if out is None else out
        source, target = (self._as_rows(bytes_) for bytes_ in (images, out))
        torch.index_select(source, 0, self._rows_for(len(images)), out=target)
        return out

    def _as_rows(self, images: Tensor) -> Tensor:
        words = as_words(images, self._length)
        return words.view(-1) if self._words == 1 else words.view(-1, self._words)

    def _rows_for(self, count: int) -> Tensor:
        # One shared map repeats for every image: its rows are kept for the largest batch seen.
        width = self._places.shape[1]
        if len(self._rows) < count * width or len(self._places) > 1:
            starts = torch.arange(count, device=self._places.device)[:, None] * width
            dtype = torch.int32 if count * width < 2**31 else torch.int64
            self._rows = (starts + self._places).view(-1).to(dtype)
        return self._rows[: count * width]
