"""Fewer, larger pixels: each image shrunk and enlarged again by box filters.

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


def box_resize(given: int, wanted: int) -> np.ndarray:
    """The matrix that resizes a line: each new pixel the mean of the old ones inside it.

    A pixel counts whole if its centre is inside, and never less than one does.
    Shapes: float64 (wanted, given).
    Source: Pillow's resize with BOX.
    """
    scale = given / wanted
    middles = (np.arange(wanted)[:, None] + 0.5) * scale
    half = max(scale, 1.0) / 2
    distance = np.arange(given) + 0.5 - middles
    inside = (distance > -half) & (distance <= half)
    weights: np.ndarray = inside / inside.sum(axis=1, keepdims=True)
    return weights


def _there_and_back(side: int, kept: float) -> np.ndarray:
    fewer = int(side * kept)
    both: np.ndarray = box_resize(fewer, side) @ box_resize(side, fewer)
    return both


def _pixelate(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # the seam's signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    import torch

    small, large = (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)
    kept = constant(params, image_shape, small, large)
    down, across = (
        torch.from_numpy(_there_and_back(side, kept)).float() for side in image_shape[:2]
    )

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        rows = down.to(images.device) @ images
        return (rows @ across.T.to(images.device)).clamp_(0, 1)

    return apply


PIXELATE = corruption("pixelate", "shrunk and enlarged again: large pixels", _pixelate)
