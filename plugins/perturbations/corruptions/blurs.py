"""Gaussian, defocus, motion and zoom blur.

Shape letters: N images, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations._image_random import uniform
from transferbench_plugins.perturbations.corruptions._filters import (
    convolved,
    gaussian_blurred,
    motion_blurred,
    sampled,
)
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
    length_scale,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DEFOCUS_BLUR", "GAUSSIAN_BLUR", "MOTION_BLUR", "ZOOM_BLUR", "disc", "zoomed"]


def _gaussian(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small, large = (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)
    sigma = constant(params, image_shape, small, large) * length_scale(image_shape)
    return lambda images, image_ids: gaussian_blurred(images, sigma).clamp_(0, 1)


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


def _defocus(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
    large = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))
    radius, softness = constant(params, image_shape, small, large)
    kernel = disc(radius * length_scale(image_shape), softness)
    return lambda images, image_ids: convolved(images, kernel, "reflect").clamp_(0, 1)


def _motion(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
    large = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))
    radius, sigma = constant(params, image_shape, small, large)
    scale = length_scale(image_shape)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        degrees = uniform(seed, image_ids, (), images.device) * 90 - 45
        return motion_blurred(images, degrees, radius * scale, sigma * scale).clamp_(0, 1)

    return apply


def _zoom(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """The mean over zoom factors in equal steps from 1, with the image counted twice."""
    # Step, and the number of factors that np.arange makes of the released bounds.
    small = ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26))
    large = ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))
    step, zooms = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        total = 2 * images
        for k in range(1, zooms):
            total += zoomed(images, 1 + k * step)
        return (total / (zooms + 1)).clamp_(0, 1)

    return apply


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


GAUSSIAN_BLUR = corruption("gaussian-blur", "Gaussian blur", _gaussian)
DEFOCUS_BLUR = corruption("defocus-blur", "out of focus: blurred by a disc", _defocus)
MOTION_BLUR = corruption("motion-blur", "blurred in a direction drawn for each image", _motion)
ZOOM_BLUR = corruption("zoom-blur", "the mean of the image at growing zooms", _zoom)
