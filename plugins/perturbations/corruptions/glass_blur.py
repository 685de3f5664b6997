"""Seen through structured glass: pixels take the place of others nearby, between two blurs.

The released code visits the pixels one by one, and where a pixel goes depends on those before.
With d the farthest move, pixels on one slanted line, each d + 1 columns from the next row's, are
out of each other's reach, and whatever is in reach lies on the right side of the line: a line is
one step here, for all images, with the same result.

Shape letters: N images, C channels, H height, W width, P = H * W, L pixels on a line.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations._image_random import uniform
from transferbench_plugins.perturbations.corruptions._filters import gaussian_blurred
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
    length_scale,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["GLASS_BLUR", "displaced", "visited"]


def visited(height: int, width: int, farthest: int) -> list[np.ndarray]:
    """The pixels in the order of the released loops, those that cannot meet together.

    Rows from H - d down to d + 1, columns alike: the outermost pixels are only moved by others.
    Shapes: int64 (L,) each, places in the flattened image.
    """
    rows = np.arange(height - farthest, farthest, -1)[:, None]
    columns = np.arange(width - farthest, farthest, -1)
    line = ((height - rows) * (farthest + 1) + (width - columns)).reshape(-1)
    places = (rows * width + columns).reshape(-1)
    order = np.argsort(line, kind="stable")
    _, starts = np.unique(line[order], return_index=True)
    return [places[order[a:b]] for a, b in pairwise([*starts, len(order)])]


def displaced(
    image_shape: ImageShape,
    farthest: int,
    rounds: int,
    seed: int,
    image_ids: np.ndarray,
    device: torch.device,
) -> Tensor:
    """Which pixel each pixel shows in the end.

    A visited pixel takes what the pixel at a random step now shows, each coordinate of the step
    one of -d .. d - 1. The paper speaks of swaps; the released code, which made the published
    images, copies, because numpy hands out views.
    Shapes: int64 (N, P).
    """
    import torch

    height, width = image_shape[:2]
    lines = [torch.from_numpy(line).to(device) for line in visited(height, width, farthest)]
    shown = torch.arange(height * width, device=device).repeat(len(image_ids), 1)
    own = torch.arange(height * width, device=device)
    for turn in range(rounds):
        drawn = uniform(seed, image_ids, (2, height * width), device, stream=turn)
        steps = (drawn * (2 * farthest)).long() - farthest
        taken = own + steps[:, 0] * width + steps[:, 1]
        for line in lines:
            shown[:, line] = shown.gather(1, taken[:, line])
    return shown


def _glass(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    large = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    sigma, farthest, rounds = constant(params, image_shape, small, large)
    scale = length_scale(image_shape)
    sigma, farthest = sigma * scale, max(1, round(farthest * scale))

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        places = displaced(image_shape, farthest, rounds, seed, image_ids, images.device)
        values = gaussian_blurred(images, sigma).flatten(2)
        moved = values.gather(2, places[:, None].expand(values.shape)).view(images.shape)
        return gaussian_blurred(moved, sigma).clamp_(0, 1)

    return apply


# The published severities trade the length of a move against the number of moves.
GLASS_BLUR = corruption(
    "glass-blur", "pixels exchanged for others nearby, and blurred", _glass, ordered=False
)
