"""Elastic transform: a random affine map, then a smooth random displacement.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._filters import sampled
from transferbench_plugins.perturbations.corruptions._severities import corruption

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ELASTIC"]

# As released, which has 244 for the side of 224 px.
_TYPO = 244 / 224


def _elastic(images: Tensor, constant: tuple[float, float, float], random: ImageRandom) -> Tensor:
    height, width = images.shape[2:]
    strength, sigma, jitter = (length * min(height, width) for length in constant)
    x, y = _pixels(images)
    moved = (2 * random.uniform(3, 2) - 1) * jitter
    stretched = sampled(images, *_affine_coordinates(x, y, moved), about_centres=True)
    if not strength:
        return stretched
    noise = 2 * random.uniform(2, height, width, stream=1) - 1
    shift = _displacement(noise, strength, sigma)
    return sampled(stretched, x + shift[:, 0], y + shift[:, 1], about_centres=False)


def _pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """The column and the row of each pixel. Shapes: float32 (H, W)."""
    import torch

    rows, columns = (
        torch.arange(side, device=images.device, dtype=torch.float32) for side in images.shape[2:]
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x, y


def _affine_coordinates(x: Tensor, y: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Source coordinates of the affine map that moves three points around the centre.

    The points are a third of the side from the centre along each axis.

    Shapes: x and y (H, W); moved (N, 3, 2), displacements in pixels (x, y); returns columns and
    rows (N, H, W).
    """
    import torch

    height, width = x.shape
    centre = moved.new_tensor([width // 2, height // 2])
    reach = min(height, width) // 3
    corners = moved.new_tensor([[reach, reach], [reach, -reach], [-reach, -reach]]) + centre
    ones = moved.new_ones(len(moved), 3, 1)
    # The inverse map, from the moved points in homogeneous coordinates to the original ones.
    inverse = torch.linalg.solve(torch.cat([corners + moved, ones], dim=2), corners)
    coordinates = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ inverse[:, None]
    return coordinates[..., 0], coordinates[..., 1]


def _displacement(noise: Tensor, strength: float, sigma: float) -> Tensor:
    """Uniform noise in [-1, 1], smoothed and scaled, in pixels. Shapes: (..., H, W)."""
    import torch

    height, width = noise.shape[-2:]
    down = torch.from_numpy(strength * _smoothing(height, sigma)).float()
    across = torch.from_numpy(_smoothing(width, sigma).T.copy()).float()
    return down.to(noise.device) @ noise @ across.to(noise.device)


@cache
def _smoothing(side: int, sigma: float) -> np.ndarray:
    """The matrix of a 1-D Gaussian blur with reflection. Shapes: float64 (side, side)."""
    from scipy.ndimage import gaussian_filter1d

    matrix: np.ndarray = gaussian_filter1d(
        np.eye(side), sigma, axis=0, mode="reflect", truncate=3.0
    )
    return matrix


# Low severities have large smooth displacements, high ones small displacements of fine detail.
ELASTIC = corruption(
    "elastic",
    "affine map, then a smooth displacement",
    _elastic,
    # Strength and smoothness of the displacement, jitter of the points: fractions of the side.
    {
        32: (
            (0.0, 0.0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        224: (
            (_TYPO * 2.0, _TYPO * 0.7, _TYPO * 0.1),
            (_TYPO * 2.0, _TYPO * 0.08, _TYPO * 0.2),
            (_TYPO * 0.05, _TYPO * 0.01, _TYPO * 0.02),
            (_TYPO * 0.07, _TYPO * 0.01, _TYPO * 0.02),
            (_TYPO * 0.12, _TYPO * 0.01, _TYPO * 0.02),
        ),
    },
    ordered=False,
)
