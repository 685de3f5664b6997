"""Gaussian, shot (Poisson), impulse and speckle noise.

Shape letters: N images, C channels, H height, W width, K photon counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations._image_random import normal, uniform
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GAUSSIAN_NOISE", "IMPULSE_NOISE", "SHOT_NOISE", "SPECKLE_NOISE"]


def _gaussian(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small, large = (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)
    deviation = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        drawn = normal(seed, image_ids, tuple(images.shape[1:]), images.device)
        return (images + deviation * drawn).clamp_(0, 1)

    return apply


def _speckle(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small, large = (0.06, 0.10, 0.12, 0.16, 0.20), (0.15, 0.20, 0.35, 0.45, 0.60)
    deviation = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        drawn = normal(seed, image_ids, tuple(images.shape[1:]), images.device)
        return (images + images * deviation * drawn).clamp_(0, 1)

    return apply


def _impulse(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Salt and pepper on single values, each with half the published amount."""
    small, large = (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)
    amount = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        drawn = uniform(seed, image_ids, tuple(images.shape[1:]), images.device)
        salted = images.masked_fill(drawn < amount / 2, 1.0)
        return salted.masked_fill_(drawn >= 1 - amount / 2, 0.0)

    return apply


def _shot(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Photon counts, drawn by inverting the Poisson distribution of each value.

    Values are quantised to 256 levels, as in decoded images, so that one table is enough.
    """
    import torch

    small, large = (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)
    photons = constant(params, image_shape, small, large)
    table = torch.from_numpy(_poisson_table(photons))
    counts = table.shape[1]
    # All rows in one ascending sequence: row r lies between r and r + 1.
    cumulative = (table + torch.arange(256)[:, None]).reshape(-1)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        drawn = uniform(seed, image_ids, tuple(images.shape[1:]), images.device)
        levels = (images * 255).round_().long().clamp_(0, 255)
        # Half a step of the draws is added, because 0 belongs to the row before.
        quantiles = (levels + (drawn.double() + 2**-25)).contiguous()
        indices = torch.searchsorted(cumulative.to(images.device), quantiles)
        return ((indices - levels * counts).float() / photons).clamp_(0, 1)

    return apply


def _poisson_table(photons: int) -> np.ndarray:
    """P(count <= k) at each of 256 levels. Shapes: float64 (256, K); the last column is 1."""
    from scipy.special import pdtr

    most = photons + 12 * photons**0.5 + 20
    table: np.ndarray = pdtr(np.arange(int(most)), photons * np.arange(256)[:, None] / 255)
    table[:, -1] = 1
    return table


GAUSSIAN_NOISE = corruption("gaussian-noise", "additive Gaussian noise", _gaussian)
SHOT_NOISE = corruption("shot-noise", "Poisson noise of photon counts", _shot)
IMPULSE_NOISE = corruption("impulse-noise", "salt and pepper noise", _impulse)
SPECKLE_NOISE = corruption("speckle-noise", "multiplicative Gaussian noise", _speckle)
