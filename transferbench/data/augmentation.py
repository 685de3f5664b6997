"""Augmentation of training images: parameters sampled per image, applied to a batch at once.

An image depends only on its own parameters, so a batch may be processed in chunks. The order is
affine and crop (one bilinear sampling for both, rounded to 8 bits), shift, flip.

Rejected: torchvision.transforms.v2, which samples one set of parameters for a whole batch, and
kornia, which augments float images.

Shape letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor
from torch.nn import functional

from transferbench.data.gather import as_words
from transferbench.specs import ImageShape
from transferbench.suite import Augmentation

__all__ = ["AugmentationParams", "augment", "central", "sample_augmentation"]

Extent: TypeAlias = float | Tensor
"""A side in stored pixels: of all images, or float64 (N,) where they show what is not square."""

# The inception crop (Szegedy et al. 2015) as in torchvision's RandomResizedCrop: the aspect ratio
# is log-uniform; a crop larger than the image is sampled again, up to ten times.
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


class AugmentationParams(NamedTuple):
    """Sampled augmentation parameters of a batch; None where an augmentation is off.

    Shapes: ``warp`` float32 (N, 2, 3), maps output to input coordinates, both (x, y) in [-1, 1]
    from edge to edge; ``offset`` int64 (N, 2), (y, x) of the window in the padded image; ``flip``
    bool (N,).
    """

    warp: Tensor | None
    offset: Tensor | None
    flip: Tensor | None

    def chunk(self, rows: slice | Tensor) -> AugmentationParams:
        """The parameters of some rows of the batch."""
        return AugmentationParams(*(None if values is None else values[rows] for values in self))

    def to(self, device: torch.device) -> AugmentationParams:
        """The parameters on ``device``."""
        return AugmentationParams(
            *(None if each is None else each.to(device, non_blocking=True) for each in self)
        )


def sample_augmentation(
    augmentation: Augmentation,
    count: int,
    image_shape: ImageShape,
    generator: Generator,
    device: torch.device,
    aspects: Tensor | None = None,
) -> AugmentationParams:
    """Sample parameters for ``count`` images on the generator's device, then move to ``device``.

    ``aspects``: width over height of what distorted images show, float64 (count,).
    """
    sides = _extents(image_shape, None if aspects is None else aspects.to(generator.device))
    warp = _sample_warp(augmentation, count, sides, generator)
    offset = flip = None
    if augmentation.shift:
        bound = 2 * augmentation.shift + 1
        offset = torch.randint(bound, (count, 2), generator=generator, device=generator.device).to(
            device
        )
    if augmentation.flip:
        flip = (_uniform((count,), generator) < 0.5).to(device)
    return AugmentationParams(None if warp is None else warp.float().to(device), offset, flip)


def augment(
    images: Tensor,
    params: AugmentationParams,
    augmentation: Augmentation,
    size: int | None = None,
) -> Tensor:
    """The augmented images. ``size``: side of crops of larger images.

    Shapes: uint8 (N, H, W, C), contiguous; returns the same, or (N, size, size, C).
    """
    if params.warp is not None:
        images = _resample(images, params.warp, augmentation, size)
    if params.offset is not None:
        images = _shift(images, params.offset, augmentation)
    if params.flip is not None:
        images = _flip(images, params.flip)
    return images


def central(images: Tensor, size: int, aspects: Tensor | None = None) -> Tensor:
    """The centres of images: ``size`` pixels of the shorter side of what they show.

    ``aspects``: width over height of what distorted images show, float64 (N,).

    Shapes: uint8 (N, S, S, C) to (N, size, size, C).
    """
    side = images.shape[1]
    if aspects is None:
        first = (side - size) // 2
        return images[:, first : first + size, first : first + size].contiguous()
    shares = size / side / torch.stack([aspects.clamp(min=1), (1 / aspects).clamp(min=1)], dim=1)
    scales = torch.diag_embed(shares)
    warp = torch.cat([scales, torch.zeros_like(scales[:, :, :1])], dim=2)
    return _resample(images, warp.float().to(images.device), Augmentation(), size)


def _extents(image_shape: ImageShape, aspects: Tensor | None) -> tuple[Extent, Extent]:
    """Height and width of what images show, the shorter as long as that of the stored image."""
    height, width, _ = image_shape
    if aspects is None:
        return height, width
    return height * (1 / aspects).clamp(min=1), width * aspects.clamp(min=1)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _between(unit: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * unit


def _is_affine(augmentation: Augmentation) -> bool:
    transform = (augmentation.rotate, augmentation.translate, augmentation.scale)
    return transform != (0.0, 0.0, (1.0, 1.0))


def _sample_warp(
    augmentation: Augmentation, count: int, sides: tuple[Extent, Extent], generator: Generator
) -> Tensor | None:
    """The composed map of crop and affine, (N, 2, 3), or None where both are off."""
    area = augmentation.random_resized_crop
    crop = affine = None
    if area is not None:
        crop = _sample_crop(area, count, sides, generator)
    if _is_affine(augmentation):
        affine = _sample_affine(augmentation, count, sides, generator)
    if crop is None or affine is None:
        return affine if crop is None else crop
    linear = affine[:, :, :2]
    return torch.cat([linear @ crop[:, :, :2], linear @ crop[:, :, 2:] + affine[:, :, 2:]], dim=2)


def _sample_crop(
    area: tuple[float, float], count: int, sides: tuple[Extent, Extent], generator: Generator
) -> Tensor:
    """Crops at integer pixels, resized to the image's size; the full image where none fits."""
    height, width = sides
    unit = _uniform((2, count, CROP_ATTEMPTS), generator)
    corner = _uniform((2, count), generator)
    pixels = _between(unit[0], *area) * _column(height) * _column(width)
    ratio = _between(unit[1], math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])).exp()
    wide, high = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    fits = (wide >= 1) & (wide <= _column(width)) & (high >= 1) & (high <= _column(height))
    first = fits.int().argmax(dim=1, keepdim=True)
    unfit = ~fits.any(dim=1)
    wide = torch.where(unfit, width, wide.gather(1, first)[:, 0])
    high = torch.where(unfit, height, high.gather(1, first)[:, 0])
    left = (corner[0] * (width - wide + 1)).floor()
    top = (corner[1] * (height - high + 1)).floor()
    zero = torch.zeros_like(wide)
    across = torch.stack([wide / width, zero, (2 * left + wide) / width - 1], dim=1)
    down = torch.stack([zero, high / height, (2 * top + high) / height - 1], dim=1)
    return torch.stack([across, down], dim=1)


def _column(side: Extent) -> Extent:
    return side[:, None] if isinstance(side, Tensor) else side


def _sample_affine(
    augmentation: Augmentation, count: int, sides: tuple[Extent, Extent], generator: Generator
) -> Tensor:
    """Scale, rotate about the centre, translate: the inverse map, as torchvision's ``affine``."""
    height, width = sides
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


def _resample(images: Tensor, warp: Tensor, augmentation: Augmentation, size: int | None) -> Tensor:
    # With the fill subtracted, grid_sample's zeros outside the image become the fill. A crop alone
    # leaves the image by at most half a pixel, where its border is repeated.
    padding = "zeros" if _is_affine(augmentation) else "border"
    values = images.permute(0, 3, 1, 2).float().sub_(augmentation.fill)
    grid = _grid(warp, size or images.shape[1], size or images.shape[2])
    sampled = functional.grid_sample(
        values, grid, mode="bilinear", padding_mode=padding, align_corners=False
    )
    rounded = sampled.add_(augmentation.fill).round_().clamp_(0, 255).byte()
    return rounded.permute(0, 2, 3, 1).contiguous()


def _grid(warp: Tensor, height: int, width: int) -> Tensor:
    # affine_grid uses matmul, which in TF32 is off by a fifth of a pixel at 224 px.
    x, y = ((torch.arange(side, device=warp.device) * 2 + 1) / side - 1 for side in (width, height))
    warp = warp[:, None, None]
    return warp[..., 0] * x[:, None] + warp[..., 1] * y[:, None, None] + warp[..., 2]


def _shift(images: Tensor, offset: Tensor, augmentation: Augmentation) -> Tensor:
    """Windows of the padded images, gathered line by line."""
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
    # torch.where is seven times faster on words than on bytes.
    flipped, unflipped = (as_words(version.flatten(1)) for version in (images.flip(2), images))
    result = torch.where(flip[:, None], flipped, unflipped)
    return result.view(torch.uint8).view(images.shape)
