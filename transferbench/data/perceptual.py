"""A perceptual hash of images, and how many have a near duplicate by it.

It survives another compression, size or brightness of a picture, which change every decoded value.
It finds candidates, not proofs: simple shapes, such as digits, agree in many bits by themselves.

Shape letters: N and M images, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["NEAR_BITS", "NearDuplicates", "difference_hashes", "near_duplicates"]

NEAR_BITS = 3
"""Hashes of near duplicates differ in at most so many of 64 bits."""
ROWS, COLUMNS = 8, 9
BLOCK_VALUES = 2**22
MAX_PAIRS = 2**28
"""Pairs that are compared, in two seconds; of more images, some at equal distances are taken."""


class NearDuplicates(NamedTuple):
    """``near`` of ``compared`` images have a near duplicate among others."""

    near: int
    compared: int


def difference_hashes(luma: np.ndarray) -> np.ndarray:
    """The difference hash (dHash) of each image: 0 where nothing gets brighter from left to right.

    The image is averaged over a grid of 8 rows and 9 columns of equal size; a bit says whether a
    cell is darker than its right neighbour, row by row. The averages are exact.

    Shapes: uint8 (N, H, W) to uint64 (N,). Source: N. Krawetz, "Kind of Like That",
    hackerfactor.com, 2013.
    """
    count, height, width = luma.shape
    rows, columns = _overlaps(height, ROWS), _overlaps(width, COLUMNS)
    hashes = np.empty(count, np.uint64)
    step = max(BLOCK_VALUES // max(height * width, 1), 1)
    for first in range(0, count, step):
        cells = rows @ luma[first : first + step].astype(np.float64) @ columns.T
        bits = (cells[..., :-1] < cells[..., 1:]).reshape(len(cells), -1)
        hashes[first : first + step] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return hashes


def _overlaps(length: int, cells: int) -> np.ndarray:
    """How much of each of ``cells`` equal parts of a side lies on each pixel.

    Shapes: (cells, length). Units: 1/cells of a pixel, so that all sums are whole numbers.
    """
    begin, start = np.arange(length) * cells, np.arange(cells)[:, None] * length
    shared = np.minimum(begin + cells, start + length) - np.maximum(begin, start)
    lengths: np.ndarray = np.maximum(shared, 0).astype(np.float64)
    return lengths


def near_duplicates(
    hashes: np.ndarray, others: np.ndarray, max_pairs: int = MAX_PAIRS
) -> NearDuplicates:
    """How many images have a hash within NEAR_BITS of one of ``others``; those of 0 never have.

    Shapes: uint64 (N,), (M,).
    """
    others = np.unique(others[others != 0])
    step = -(-len(hashes) * len(others) // max_pairs) or 1
    compared = hashes[::step]
    own, counts = np.unique(compared[compared != 0], return_counts=True)
    near = np.isin(own, others)
    block = max(BLOCK_VALUES // max(len(others), 1), 1)
    rest = np.flatnonzero(~near)
    for first in range(0, len(rest), block):
        chunk = rest[first : first + block]
        differing = np.bitwise_count(own[chunk, None] ^ others)
        near[chunk] = (differing <= NEAR_BITS).any(axis=1)
    return NearDuplicates(int(counts[near].sum()), len(compared))
