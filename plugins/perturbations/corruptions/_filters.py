"""Convolutions, motion blur and bilinear sampling of batches of images.

Shape letters: N images, C channels, H height, W width, K side of a kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convolved", "gaussian_blurred", "motion_blurred", "sampled"]


def gaussian_blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the outermost pixels are repeated beyond the border.

    Source: scipy.ndimage.gaussian_filter1d, which scikit-image's gaussian calls: a normal density
    at integer pixels within four standard deviations, normalised to sum 1.
    """
    reach = int(4 * sigma + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    line /= line.sum()
    return convolved(convolved(images, line[:, None], "replicate"), line[None], "replicate")


def convolved(images: Tensor, kernel: np.ndarray, border: str) -> Tensor:
    """The correlation of each channel with one kernel of odd sides.

    ``border``: ``replicate`` repeats the outermost pixel, ``reflect`` mirrors about it.

    Shapes: images (N, C, H, W), kernel (K, K) or a row or column of it; returns (N, C, H, W).
    """
    import torch
    from torch.nn.functional import conv2d, pad

    count, channels, height, width = images.shape
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    planes = images.reshape(count * channels, 1, height, width)
    planes = pad(planes, (across, across, down, down), mode=border)
    weight = torch.from_numpy(kernel).to(images.device, images.dtype)
    return conv2d(planes, weight[None, None]).view(count, channels, height, width)


def motion_blurred(images: Tensor, degrees: Tensor, radius: float, sigma: float) -> Tensor:
    """Motion blur of each image along its own direction, by one side of a normal density.

    The outermost pixels are repeated beyond the border.

    Shapes: images (N, C, H, W), degrees float32 (N,).
    Source: ImageMagick's MotionBlurImage, with its rounding of the steps.
    """
    import torch

    steps = torch.arange(2 * math.ceil(radius) + 1, device=images.device)
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    radians = torch.deg2rad(degrees)[:, None]
    right = torch.ceil(steps * radians.cos() - 0.5).long()
    down = torch.ceil(steps * radians.sin() - 0.5).long()
    blurred = torch.zeros_like(images, memory_format=torch.contiguous_format)
    for k in range(len(steps)):
        blurred += weights[k] * _shifted(images, down[:, k], right[:, k])
    return blurred


def _shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pixel (y, x) is pixel (y + down, x + right), clamped to the image.

    Shapes: images (N, C, H, W), down and right int64 (N,).
    """
    import torch

    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) + down[:, None]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right[:, None]).clamp_(0, width - 1)
    positions = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    values = images.flatten(2)
    return values.gather(2, positions[:, None].expand(values.shape)).view(images.shape)


def sampled(images: Tensor, columns: Tensor, rows: Tensor, *, about_centres: bool) -> Tensor:
    """Bilinear interpolation at (row, column), with reflection beyond the border.

    ``about_centres``: reflect about the centres of the outermost pixels, else about their edges.

    Shapes: images (N, C, H, W); columns and rows (N, H, W) or (1, H, W), in pixels.
    Error: below 1e-5 for images of 224 px, from rounding the coordinates.
    """
    import torch
    from torch.nn.functional import grid_sample

    height, width = images.shape[2:]
    if about_centres:
        x, y = 2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1
    else:
        x, y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    grid = torch.stack([x, y], dim=-1).expand(len(images), -1, -1, -1)
    return grid_sample(images, grid, "bilinear", "reflection", align_corners=about_centres)
