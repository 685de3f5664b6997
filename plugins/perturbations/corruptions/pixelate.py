"""Pixelation: each image is shrunk and enlarged again by box filters.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
)

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


def _pixelate(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    import torch

    small, large = (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)
    factor = constant(params, image_shape, small, large)
    down, across = (
        torch.from_numpy(_shrink_and_enlarge(side, factor)).float() for side in image_shape[:2]
    )

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        rows = down.to(images.device) @ images
        return (rows @ across.T.to(images.device)).clamp_(0, 1)

    return apply


PIXELATE = corruption("pixelate", "shrunk and enlarged again by box filters", _pixelate)
