"""Fog and snow, drawn for each image.

Shape letters: N images, C channels, H height, W width, S side of a height map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._filters import motion_blurred
from transferbench_plugins.perturbations.corruptions._severities import corruption, length_scale
from transferbench_plugins.perturbations.corruptions.blurs import zoomed
from transferbench_plugins.perturbations.corruptions.colours import luma

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WEATHER"]


def _plasma(side: int, decay: float, random: ImageRandom) -> Tensor:
    """Periodic clouds in [0, 1] per image, by the diamond-square algorithm.

    ``side``: a power of two. ``decay``: the factor by which noise shrinks at each finer level.

    Shapes: float32 (N, S, S).
    Source: Fournier, Fussell, Carpenter 1982; the released variant, with noise uniform within the
    square of a level's size.
    """
    import torch

    heights = torch.zeros(len(random.image_ids), side, side, device=random.device)
    step, size, level = side, 100.0, 0
    while step >= 2:
        for k, (sums, points) in enumerate(_sums(heights, step)):
            drawn = random.uniform(*sums.shape[1:], stream=3 * level + k)
            points.copy_(sums / 4 + size**2 * (2 * drawn - 1))
        step, size, level = step // 2, size / decay, level + 1
    low = heights.amin(dim=(1, 2), keepdim=True)
    return (heights - low) / (heights.amax(dim=(1, 2), keepdim=True) - low)


def _sums(heights: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Sums of four neighbours with the view of the points between them: squares, then diamonds.

    A generator, because diamonds depend on the squares, which the caller fills in between.
    """
    half = step // 2
    corners = heights[:, ::step, ::step]
    centres = heights[:, half::step, half::step]
    pairs = corners + corners.roll(-1, 1)
    yield pairs + pairs.roll(-1, 2), centres
    yield (
        centres + centres.roll(1, 1) + corners + corners.roll(-1, 2),
        heights[:, ::step, half::step],
    )
    yield (
        centres + centres.roll(1, 2) + corners + corners.roll(-1, 1),
        heights[:, half::step, ::step],
    )


def _fog(images: Tensor, constant: tuple[float, float], random: ImageRandom) -> Tensor:
    thickness, decay = constant
    height, width = images.shape[2:]
    side = 2 ** math.ceil(math.log2(max(height, width)))
    clouds = _plasma(side, decay, random)[:, None, :height, :width]
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + thickness * clouds) * brightest / (brightest + thickness)


def _snow(images: Tensor, constant: tuple[float, ...], random: ImageRandom) -> Tensor:
    """A layer of blurred flakes and its copy rotated by 180 degrees, on a whitened scene."""
    mean, deviation, size, threshold, radius, sigma, weight = constant
    scale = length_scale(images)
    drawn = random.normal(1, *images.shape[2:])
    layer = zoomed(mean + deviation * drawn, max(1.0, size * scale))
    layer = layer.masked_fill_(layer < threshold, 0).clamp_(0, 1)
    degrees = random.uniform(stream=1) * 90 - 135
    layer = motion_blurred(layer, degrees, radius * scale, sigma * scale)
    whitened = images.maximum(luma(images) * 1.5 + 0.5)
    scene = weight * images + (1 - weight) * whitened
    return scene + layer + layer.rot90(2, (2, 3))


WEATHER = (
    corruption(
        "fog",
        "fog, drawn for each image",
        _fog,
        {
            32: ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
            224: ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
        },
    ),
    corruption(
        "snow",
        "snow, drawn for each image, on a whitened scene",
        _snow,
        # Mean, deviation and size of flakes, threshold, radius and sigma of motion blur, scene
        # weight.
        {
            32: (
                (0.10, 0.2, 1.00, 0.60, 8, 3, 0.95),
                (0.10, 0.2, 1.00, 0.50, 10, 4, 0.90),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.90),
                (0.25, 0.3, 2.25, 0.60, 12, 6, 0.85),
                (0.30, 0.3, 1.25, 0.65, 14, 12, 0.80),
            ),
            224: (
                (0.10, 0.3, 3.0, 0.50, 10, 4, 0.80),
                (0.20, 0.3, 2.0, 0.50, 12, 4, 0.70),
                (0.55, 0.3, 4.0, 0.90, 12, 8, 0.70),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
        },
    ),
)
