"""Glass blur: pixels are replaced by neighbours, between two Gaussian blurs.

The released code visits pixels one by one, each depending on those before. With d the maximum
displacement, the pixels of one slanted line, which moves d + 1 columns per row, do not depend on
each other, and pixels within reach are on the same side of the line as in the released order. So a
whole line is one step here, for all images, with equal results.

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
    """The pixels in the order of the released loops, grouped into independent lines.

    Rows and columns run from H - d and W - d down to d + 1; the outer pixels are not visited.

    Shapes: int64 (L,) each, positions in the flattened image.
    """
    rows = np.arange(height - farthest, farthest, -1)[:, None]
    columns = np.arange(width - farthest, farthest, -1)
    line = ((height - rows) * (farthest + 1) + (width - columns)).reshape(-1)
    positions = (rows * width + columns).reshape(-1)
    order = np.argsort(line, kind="stable")
    _, starts = np.unique(line[order], return_index=True)
    return [positions[order[a:b]] for a, b in pairwise([*starts, len(order)])]


def displaced(
    image_shape: ImageShape,
    farthest: int,
    rounds: int,
    seed: int,
    image_ids: np.ndarray,
    device: torch.device,
) -> Tensor:
    """The source position of each pixel.

    A visited pixel copies the current source of the pixel at a random offset, whose coordinates
    are in -d .. d - 1. The paper describes swaps; the released code copies, because it swaps views
    of numpy arrays.

    Shapes: int64 (N, P).
    """
    import torch

    height, width = image_shape[:2]
    lines = [torch.from_numpy(line).to(device) for line in visited(height, width, farthest)]
    sources = torch.arange(height * width, device=device).repeat(len(image_ids), 1)
    positions = torch.arange(height * width, device=device)
    for k in range(rounds):
        drawn = uniform(seed, image_ids, (2, height * width), device, stream=k)
        steps = (drawn * (2 * farthest)).long() - farthest
        copied = positions + steps[:, 0] * width + steps[:, 1]
        for line in lines:
            sources[:, line] = sources.gather(1, copied[:, line])
    return sources


def _glass(
    params: SeverityParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    small = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    large = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    sigma, farthest, rounds = constant(params, image_shape, small, large)
    scale = length_scale(image_shape)
    sigma, farthest = sigma * scale, max(1, round(farthest * scale))

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        sources = displaced(image_shape, farthest, rounds, seed, image_ids, images.device)
        values = gaussian_blurred(images, sigma).flatten(2)
        moved = values.gather(2, sources[:, None].expand(values.shape)).view(images.shape)
        return gaussian_blurred(moved, sigma).clamp_(0, 1)

    return apply


# The published severities trade the size of displacements against their number.
GLASS_BLUR = corruption(
    "glass-blur", "pixels replaced by neighbours, and blurred", _glass, ordered=False
)
