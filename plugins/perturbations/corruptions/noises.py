"""Gaussian, shot (Poisson), impulse and speckle noise.

Shape letters: N images, C channels, H height, W width, K photon counts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._severities import corruption

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NOISES"]


def _gaussian(images: Tensor, deviation: float, random: ImageRandom) -> Tensor:
    return images + deviation * random.normal(*images.shape[1:])


def _speckle(images: Tensor, deviation: float, random: ImageRandom) -> Tensor:
    return images + images * deviation * random.normal(*images.shape[1:])


def _impulse(images: Tensor, amount: float, random: ImageRandom) -> Tensor:
    """Salt and pepper on single values, each with half the published amount."""
    drawn = random.uniform(*images.shape[1:])
    salted = images.masked_fill(drawn < amount / 2, 1.0)
    return salted.masked_fill_(drawn >= 1 - amount / 2, 0.0)


def _shot(images: Tensor, photons: int, random: ImageRandom) -> Tensor:
    """Photon counts, drawn by inverting the Poisson distribution of each value.

    Values are quantised to 256 levels, as in decoded images, so that one table is enough.
    """
    import torch

    table = torch.from_numpy(_poisson_table(photons)).to(images.device)
    drawn = random.uniform(*images.shape[1:])
    levels = (images * 255).round_().long().clamp_(0, 255)
    # Half a step of the draws is added, because 0 belongs to the row before.
    quantiles = (levels + (drawn.double() + 2**-25)).contiguous()
    indices = torch.searchsorted(table.reshape(-1), quantiles)
    return (indices - levels * table.shape[1]).float() / photons


@cache
def _poisson_table(photons: int) -> np.ndarray:
    """P(count <= k) + r at level r of 256: the rows are one ascending sequence.

    Shapes: float64 (256, K); the last column is r + 1.
    """
    from scipy.special import pdtr

    most = photons + 12 * photons**0.5 + 20
    levels = np.arange(256)[:, None]
    table: np.ndarray = pdtr(np.arange(int(most)), photons * levels / 255)
    table[:, -1] = 1
    return table + levels


NOISES = (
    corruption(
        "gaussian-noise",
        "additive Gaussian noise",
        _gaussian,
        {32: (0.04, 0.06, 0.08, 0.09, 0.10), 224: (0.08, 0.12, 0.18, 0.26, 0.38)},
    ),
    corruption(
        "shot-noise",
        "Poisson noise of photon counts",
        _shot,
        {32: (500, 250, 100, 75, 50), 224: (60, 25, 12, 5, 3)},
    ),
    corruption(
        "impulse-noise",
        "salt and pepper noise",
        _impulse,
        {32: (0.01, 0.02, 0.03, 0.05, 0.07), 224: (0.03, 0.06, 0.09, 0.17, 0.27)},
    ),
    corruption(
        "speckle-noise",
        "multiplicative Gaussian noise",
        _speckle,
        {32: (0.06, 0.10, 0.12, 0.16, 0.20), 224: (0.15, 0.20, 0.35, 0.45, 0.60)},
    ),
)
