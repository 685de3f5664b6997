"""Pixelation: each image is shrunk and enlarged again by box filters.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._severities import corruption

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PIXELATE", "box_resize"]


def box_resize(old: int, new: int) -> np.ndarray:
    """The matrix of a 1-D box filter: each new pixel is the mean of the old pixels inside it.

    A pixel is inside if its centre is; there is always at least one. Pillow itself, which works on
    single images on the CPU, gives the same up to its rounding to 8 bits.

    Shapes: float64 (new, old).
    Source: Pillow's resize with BOX.
    """
    scale = old / new
    centres = (np.arange(new)[:, None] + 0.5) * scale
    half = max(scale, 1.0) / 2
    distance = np.arange(old) + 0.5 - centres
    inside = (distance > -half) & (distance <= half)
    weights: np.ndarray = inside / inside.sum(axis=1, keepdims=True)
    return weights


def _shrink_and_enlarge(side: int, factor: float) -> np.ndarray:
    small = int(side * factor)
    matrix: np.ndarray = box_resize(small, side) @ box_resize(side, small)
    return matrix


def _pixelate(images: Tensor, factor: float, _: ImageRandom) -> Tensor:
    import torch

    down, across = (
        torch.from_numpy(_shrink_and_enlarge(side, factor)).float().to(images.device)
        for side in images.shape[2:]
    )
    return down @ images @ across.T


PIXELATE = corruption(
    "pixelate",
    "shrunk and enlarged again by box filters",
    _pixelate,
    {32: (0.95, 0.9, 0.85, 0.75, 0.65), 224: (0.6, 0.5, 0.4, 0.3, 0.25)},
)
