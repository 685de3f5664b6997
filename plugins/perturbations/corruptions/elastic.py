"""Elastic transform: a random affine map, then a smooth random displacement.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations._image_random import uniform
from transferbench_plugins.perturbations.corruptions._filters import sampled
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ELASTIC", "affine_coordinates", "displacement"]

# As released, which has 244 for the side of 224 px.
_TYPO = 244 / 224


def affine_coordinates(image_shape: ImageShape, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Source coordinates of the affine map that moves three points around the centre.

    The points are a third of the side from the centre along each axis.

    Shapes: moved (N, 3, 2), displacements in pixels (x, y); returns columns and rows (N, H, W).
    """
    import torch

    height, width = image_shape[:2]
    centre = moved.new_tensor([width // 2, height // 2])
    reach = min(height, width) // 3
    corners = moved.new_tensor([[reach, reach], [reach, -reach], [-reach, -reach]]) + centre
    ones = moved.new_ones(len(moved), 3, 1)
    # The inverse map, from the moved points in homogeneous coordinates to the original ones.
    inverse = torch.linalg.solve(torch.cat([corners + moved, ones], dim=2), corners)
    x, y = _pixels(image_shape, moved)
    coordinates = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ inverse[:, None]
    return coordinates[..., 0], coordinates[..., 1]


def _pixels(image_shape: ImageShape, like: Tensor) -> tuple[Tensor, Tensor]:
    """The column and the row of each pixel. Shapes: (H, W)."""
    import torch

    rows, columns = (
        torch.arange(side, device=like.device, dtype=like.dtype) for side in image_shape[:2]
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x, y


def _smoothing(side: int, sigma: float) -> np.ndarray:
    """The matrix of a 1-D Gaussian blur with reflection. Shapes: float64 (side, side)."""
    from scipy.ndimage import gaussian_filter1d

    matrix: np.ndarray = gaussian_filter1d(
        np.eye(side), sigma, axis=0, mode="reflect", truncate=3.0
    )
    return matrix


def displacement(
    image_shape: ImageShape, strength: float, sigma: float
) -> Callable[[Tensor], Tensor]:
    """The map from uniform noise in [-1, 1] to displacements in pixels. Shapes: (..., H, W)."""
    import torch

    height, width = image_shape[:2]
    down = torch.from_numpy(strength * _smoothing(height, sigma)).float()
    across = torch.from_numpy(_smoothing(width, sigma).T.copy()).float()
    return lambda noise: down.to(noise.device) @ noise @ across.to(noise.device)


def _elastic(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    strength, sigma, jitter = (
        length * min(image_shape[:2]) for length in constant(params, image_shape, _SMALL, _LARGE)
    )
    smooth = displacement(image_shape, strength, sigma) if strength else None
    shape = (2, *image_shape[:2])

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        moved = _between(seed, image_ids, (3, 2), images.device, stream=0) * jitter
        stretched = sampled(images, *affine_coordinates(image_shape, moved), about_centres=True)
        if smooth is None:
            return stretched.clamp_(0, 1)
        shift = smooth(_between(seed, image_ids, shape, images.device, stream=1))
        x, y = _pixels(image_shape, shift)
        bent = sampled(stretched, x + shift[:, 0], y + shift[:, 1], about_centres=False)
        return bent.clamp_(0, 1)

    return apply


def _between(
    seed: int, image_ids: np.ndarray, shape: tuple[int, ...], device: torch.device, stream: int
) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * uniform(seed, image_ids, shape, device, stream) - 1


# Strength and smoothness of the displacement, jitter of the points: fractions of the side.
_SMALL = (
    (0.0, 0.0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
)
_LARGE = tuple(
    (_TYPO * strength, _TYPO * sigma, _TYPO * jitter)
    for strength, sigma, jitter in (
        (2.0, 0.7, 0.1),
        (2.0, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
)

# Low severities have large smooth displacements, high ones small displacements of fine detail.
ELASTIC = corruption("elastic", "affine map, then a smooth displacement", _elastic, ordered=False)
