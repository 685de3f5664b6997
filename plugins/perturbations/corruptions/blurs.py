"""Gaussian, defocus, motion and zoom blur.

Shape letters: N images, C channels, H height, W width, K side of a kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._filters import (
    convolved,
    gaussian_blurred,
    motion_blurred,
    sampled,
)
from transferbench_plugins.perturbations.corruptions._severities import corruption, length_scale

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLURS", "disc", "zoomed"]


def _gaussian(images: Tensor, sigma: float, _: ImageRandom) -> Tensor:
    return gaussian_blurred(images, sigma * length_scale(images))


def _defocus(images: Tensor, constant: tuple[float, float], _: ImageRandom) -> Tensor:
    radius, softness = constant
    return convolved(images, disc(radius * length_scale(images), softness), "reflect")


def disc(radius: float, softness: float) -> np.ndarray:
    """Kernel of defocus blur: a disc with a softened edge, normalised to sum 1.

    Shapes: float64 (K, K), K odd.
    Error: released images differ by up to 0.011 at severities 4 and 5 of 224 px, where their
    kernels leave no room for the softened edge.
    """
    # As released, the softening is cut off after one pixel, or two for a large disc.
    soft_reach = 1 if radius <= 8 else 2
    offsets = np.arange(-math.ceil(radius) - soft_reach, math.ceil(radius) + soft_reach + 1)
    blurred = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    soft = np.exp(-0.5 * (np.arange(-soft_reach, soft_reach + 1) / softness) ** 2)
    for axis in (0, 1):
        blurred = np.apply_along_axis(np.convolve, axis, blurred, soft, mode="same")
    kernel: np.ndarray = blurred / blurred.sum()
    return kernel


def _motion(images: Tensor, constant: tuple[float, float], random: ImageRandom) -> Tensor:
    radius, sigma = (length * length_scale(images) for length in constant)
    return motion_blurred(images, random.uniform() * 90 - 45, radius, sigma)


def _zoom(images: Tensor, constant: tuple[float, int], _: ImageRandom) -> Tensor:
    """The mean over zoom factors in equal steps from 1, with the image counted twice."""
    step, zooms = constant
    total = 2 * images
    for k in range(1, zooms):
        total += zoomed(images, 1 + k * step)
    return total / (zooms + 1)


def zoomed(images: Tensor, factor: float) -> Tensor:
    """The centre of each image, enlarged to its size.

    The released code crops integer pixels first, which would not zoom at all at 8 px.

    Error: for that reason released zoom blurs of 224 px differ by 0.01 on average.
    """
    import torch

    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - (height - 1) / 2) / factor
    columns = (torch.arange(width, device=images.device) - (width - 1) / 2) / factor
    y, x = torch.meshgrid(rows + (height - 1) / 2, columns + (width - 1) / 2, indexing="ij")
    return sampled(images, x[None], y[None], about_centres=True)


BLURS = (
    corruption(
        "gaussian-blur",
        "Gaussian blur",
        _gaussian,
        {32: (0.4, 0.6, 0.7, 0.8, 1.0), 224: (1.0, 2.0, 3.0, 4.0, 6.0)},
    ),
    corruption(
        "defocus-blur",
        "out of focus: blurred by a disc",
        _defocus,
        {
            32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
            224: ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
        },
    ),
    corruption(
        "motion-blur",
        "blurred in a direction drawn for each image",
        _motion,
        {
            32: ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
            224: ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
        },
    ),
    corruption(
        "zoom-blur",
        "the mean of the image at growing zooms",
        _zoom,
        # Step, and the number of factors that np.arange makes of the released bounds.
        {
            32: ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
            224: ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
        },
    ),
)
