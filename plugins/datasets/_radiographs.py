"""Radiographs as those of the paper: equalised, blurred and padded.

Shape letters: H height, W width, S side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["blurred", "equalised", "prepared_radiograph"]

PAD_VALUE = 128
"""``pixel_mean`` of the code, which it subtracts afterwards."""


def prepared_radiograph(path: Path) -> np.ndarray:
    """A picture in grey, equalised, blurred and padded to a square.

    Shapes: returns uint8 (S, S). Source: ``transform`` in ``data/utils.py`` of
    https://github.com/jfhealthcare/Chexpert, from which the paper's code comes, which blurs last.
    """
    from PIL import Image  # slow to import

    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    return _square(blurred(equalised(grey)))


def equalised(grey: np.ndarray) -> np.ndarray:
    """Grey levels spread by their cumulative histogram; a blank picture stays as it is.

    Shapes: uint8 (H, W). Source: OpenCV's ``equalizeHist``: with c(v) the number of pixels of at
    most v and m the lowest level, v becomes 255 (c(v) - c(m)) / (H W - c(m)), rounded to even.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    lowest = counts[grey.min()]
    if lowest == grey.size:
        return grey
    scale = np.float32(255) / np.float32(grey.size - lowest)
    levels = np.maximum(counts.cumsum() - lowest, 0).astype(np.float32) * scale
    spread: np.ndarray = np.rint(levels).astype(np.uint8)[grey]
    return spread


def blurred(grey: np.ndarray) -> np.ndarray:
    """Smoothed by the kernel (1, 2, 1) / 4 along each axis, rounded half up.

    Shapes: uint8 (H, W). Source: OpenCV's ``GaussianBlur`` of size 3 with its default sigma; at the
    border pictures are mirrored without repeating the outermost pixel.
    """
    padded = np.pad(grey.astype(np.uint16), 1, mode="reflect" if min(grey.shape) > 1 else "edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    total = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    smooth: np.ndarray = ((total + 8) >> 4).astype(np.uint8)
    return smooth


def _square(grey: np.ndarray) -> np.ndarray:
    """The picture in the upper left corner of a square of PAD_VALUE, where the code has it."""
    height, width = grey.shape
    side = max(height, width)
    square = np.full((side, side), PAD_VALUE, np.uint8)
    square[:height, :width] = grey
    return square
