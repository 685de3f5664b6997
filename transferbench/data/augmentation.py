"""Random changes of training images: drawn for a whole batch, made for all its images at once.

Every image is changed by its own draws alone, so a batch may be worked on in pieces. The order is
affine and crop (one bilinear sampling for both, rounded to 8 bits), shift, flip.

Shape letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from transferbench.data.gather import as_words
from transferbench.specs import ImageShape
from transferbench.suite import Augmentation

__all__ = ["Draws", "augment", "draw"]

# Of the inception crop (Szegedy et al. 2015), as in torchvision's RandomResizedCrop: the aspect
# ratio is drawn log-uniformly, a crop larger than the image is drawn again, up to ten times.
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


class Draws(NamedTuple):
    """What chance decided for the images of a batch; what is not asked for has no columns.

    Shapes: ``warp`` float32 (N, 2, 3), from the result's coordinates to the image's, both (x, y)
    in [-1, 1] from edge to edge; ``offset`` int64 (N, 2), (y, x) of the window in the padded
    image; ``flip`` bool (N,).
    """

    warp: Tensor | None
    offset: Tensor | None
    flip: Tensor | None

    def part(self, piece: slice) -> Draws:
        """The draws of some of the images."""
        return Draws(*(None if drawn is None else drawn[piece] for drawn in self))


def draw(
    augmentation: Augmentation,
    count: int,
    image_shape: ImageShape,
    generator: Generator,
    device: torch.device,
) -> Draws:
    """Draw for ``count`` images, on the generator's device; the draws then live on ``device``."""
    warp = _draw_warp(augmentation, count, image_shape, generator)
    offset = flip = None
    if augmentation.shift:
        bound = 2 * augmentation.shift + 1
        offset = torch.randint(bound, (count, 2), generator=generator, device=generator.device).to(
            device
        )
    if augmentation.flip:
        flip = (_uniform((count,), generator) < 0.5).to(device)
    return Draws(None if warp is None else warp.float().to(device), offset, flip)


def augment(images: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """The changed images.

    Shapes: uint8 (N, H, W, C), contiguous; returns the same.
    """
    if draws.warp is not None:
        images = _resample(images, draws.warp, augmentation)
    if draws.offset is not None:
        images = _shift(images, draws.offset, augmentation)
    if draws.flip is not None:
        images = _flip(images, draws.flip)
    return images


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _between(unit: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * unit


def _turns(augmentation: Augmentation) -> bool:
    still = (augmentation.rotate, augmentation.translate, augmentation.scale)
    return still != (0.0, 0.0, (1.0, 1.0))


def _draw_warp(
    augmentation: Augmentation, count: int, image_shape: ImageShape, generator: Generator
) -> Tensor | None:
    """The map of crop and affine together, (N, 2, 3), or None where neither is asked for."""
    area = augmentation.random_resized_crop
    crop = None if area is None else _draw_crop(area, count, image_shape, generator)
    turn = _draw_turn(augmentation, count, image_shape, generator) if _turns(augmentation) else None
    if crop is None or turn is None:
        return turn if crop is None else crop
    linear = turn[:, :, :2]
    return torch.cat([linear @ crop[:, :, :2], linear @ crop[:, :, 2:] + turn[:, :, 2:]], dim=2)


def _draw_crop(
    area: tuple[float, float], count: int, image_shape: ImageShape, generator: Generator
) -> Tensor:
    """Crops of whole pixels, stretched to the image's size; the whole image where none fits."""
    height, width, _ = image_shape
    unit = _uniform((2, count, CROP_ATTEMPTS), generator)
    corner = _uniform((2, count), generator)
    pixels = _between(unit[0], *area) * height * width
    ratio = _between(unit[1], math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])).exp()
    wide, high = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    none = ~fits.any(dim=1)
    wide = wide.gather(1, first)[:, 0].masked_fill(none, width)
    high = high.gather(1, first)[:, 0].masked_fill(none, height)
    left = (corner[0] * (width - wide + 1)).floor()
    top = (corner[1] * (height - high + 1)).floor()
    zero = torch.zeros_like(wide)
    across = torch.stack([wide / width, zero, (2 * left + wide) / width - 1], dim=1)
    down = torch.stack([zero, high / height, (2 * top + high) / height - 1], dim=1)
    return torch.stack([across, down], dim=1)


def _draw_turn(
    augmentation: Augmentation, count: int, image_shape: ImageShape, generator: Generator
) -> Tensor:
    """Scale, rotate about the centre, translate: the inverse map, as torchvision's ``affine``."""
    height, width, _ = image_shape
    unit = _uniform((4, count), generator)
    angle = _between(unit[0], -augmentation.rotate, augmentation.rotate).deg2rad()
    scale = _between(unit[1], *augmentation.scale)
    reach = 2 * augmentation.translate
    x, y = _between(unit[2], -reach, reach), _between(unit[3], -reach, reach)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    aspect = height / width
    across = torch.stack([cos, sin * aspect, -(cos * x + sin * aspect * y)], dim=1)
    down = torch.stack([-sin / aspect, cos, sin / aspect * x - cos * y], dim=1)
    return torch.stack([across, down], dim=1)


def _resample(images: Tensor, warp: Tensor, augmentation: Augmentation) -> Tensor:
    # Subtracting the fill makes grid_sample's zeros outside the image mean the fill; a crop alone
    # never leaves the image by more than the half pixel that repeats its edge.
    padding = "zeros" if _turns(augmentation) else "border"
    values = images.permute(0, 3, 1, 2).float().sub_(augmentation.fill)
    grid = _grid(warp, images.shape[1], images.shape[2])
    sampled = functional.grid_sample(
        values, grid, mode="bilinear", padding_mode=padding, align_corners=False
    )
    rounded = sampled.add_(augmentation.fill).round_().clamp_(0, 255).byte()
    return rounded.permute(0, 2, 3, 1).contiguous()


def _grid(warp: Tensor, height: int, width: int) -> Tensor:
    # affine_grid multiplies matrices, which may run in TF32: a fifth of a pixel off at 224.
    x, y = ((torch.arange(side, device=warp.device) * 2 + 1) / side - 1 for side in (width, height))
    warp = warp[:, None, None]
    return warp[..., 0] * x[:, None] + warp[..., 1] * y[:, None, None] + warp[..., 2]


def _shift(images: Tensor, offset: Tensor, augmentation: Augmentation) -> Tensor:
    """Windows of the padded images: each of their lines is one row of a gather."""
    count, height, width, channels = images.shape
    pad = augmentation.shift
    padded = images.new_full(
        (count, height + 2 * pad, width + 2 * pad, channels), augmentation.fill
    )
    padded[:, pad:-pad, pad:-pad] = images
    line = width * channels
    windows = padded.view(-1).as_strided((padded.numel() - line + 1, line), (1, 1))
    image = torch.arange(count, device=images.device)[:, None] * (height + 2 * pad)
    lines = image + offset[:, :1] + torch.arange(height, device=images.device)
    starts = (lines * (width + 2 * pad) + offset[:, 1:]) * channels
    return windows.index_select(0, starts.view(-1)).view(images.shape)


def _flip(images: Tensor, flip: Tensor) -> Tensor:
    # Choosing in words is seven times quicker than in bytes.
    flipped, straight = (as_words(both.flatten(1)) for both in (images.flip(2), images))
    chosen = torch.where(flip[:, None], flipped, straight)
    return chosen.view(torch.uint8).view(images.shape)
