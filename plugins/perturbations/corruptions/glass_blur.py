"""Glass blur: pixels are replaced by neighbours, between two Gaussian blurs.

The released code visits pixels one by one, each depending on those before. With d the maximum
displacement, the pixels of one slanted line, which moves d + 1 columns per row, do not depend on
each other, and pixels within reach are on the same side of the line as in the released order. So a
whole line is one step here, for all images, with equal results.

Shape letters: N images, C channels, H height, W width, P = H * W, L pixels on a line.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._filters import gaussian_blurred
from transferbench_plugins.perturbations.corruptions._severities import corruption, length_scale

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GLASS_BLUR"]


def _visited(height: int, width: int, farthest: int) -> list[np.ndarray]:
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


def _sources(height: int, width: int, farthest: int, rounds: int, random: ImageRandom) -> Tensor:
    """The source position of each pixel.

    A visited pixel copies the current source of the pixel at a random offset, whose coordinates
    are in -d .. d - 1. The paper describes swaps; the released code copies, because it swaps views
    of numpy arrays.

    Shapes: int64 (N, P).
    """
    import torch

    lines = [torch.from_numpy(line).to(random.device) for line in _visited(height, width, farthest)]
    positions = torch.arange(height * width, device=random.device)
    sources = positions.repeat(len(random.image_ids), 1)
    for k in range(rounds):
        steps = (random.uniform(2, height * width, stream=k) * (2 * farthest)).long() - farthest
        copied = positions + steps[:, 0] * width + steps[:, 1]
        for line in lines:
            sources[:, line] = sources.gather(1, copied[:, line])
    return sources


def _glass(images: Tensor, constant: tuple[float, int, int], random: ImageRandom) -> Tensor:
    sigma, farthest, rounds = constant
    scale = length_scale(images)
    sigma, farthest = sigma * scale, max(1, round(farthest * scale))
    height, width = images.shape[2:]
    sources = _sources(height, width, farthest, rounds, random)
    values = gaussian_blurred(images, sigma).flatten(2)
    moved = values.gather(2, sources[:, None].expand(values.shape)).view(images.shape)
    return gaussian_blurred(moved, sigma)


# The published severities trade the size of displacements against their number.
GLASS_BLUR = corruption(
    "glass-blur",
    "pixels replaced by neighbours, and blurred",
    _glass,
    {
        32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        224: ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    },
    ordered=False,
)
