"""Batches of augmented, normalised and perturbed images from decoded images in memory.

The semantics are those of the released code: augment, scale to [0, 1], normalise, perturb. The
computation uses the cheapest order with equal results: a permutation of values is applied to the
8-bit images, and each value is normalised with the constants of its original channel.

Shape letters: N images, H height, W width, C channels, V = H*W*C values, K classes, P a period.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from transferbench.data.augmentation import (
    AugmentationParams,
    augment,
    central,
    sample_augmentation,
)
from transferbench.data.gather import Gather, RunMap, as_words, chunks
from transferbench.data.perturbation import CompiledPerturbation
from transferbench.data.streaming import StreamedImages
from transferbench.specs import ImageShape
from transferbench.suite import Augmentation

__all__ = [
    "BatchDraw", "ImagePipeline", "MixupDraw", "View", "draw_mixup", "keep_large_allocations",
    "mix", "mixup", "normalise",
]  # fmt: skip

Rows = tuple[Tensor, Tensor]  # scale and shift, (1 or N, P) each

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_large_allocations() -> bool:
    """Let this process keep the memory of freed tensors; returns whether the platform supports it.

    glibc returns each large block to the kernel, which clears the next one page by page: a new
    tensor of 150 MB takes about three times as long as an existing one. The cost is that memory
    once used stays with the process, some four times its largest tensor. For worker processes;
    does nothing except on glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def normalise(values: Tensor, rows: Rows, out: Tensor) -> None:
    """``values * scale + shift`` into ``out``, for rows of values.

    Rows of many values, because a broadcast over the channels of channels_last images is four
    times slower. Converting and scaling in two passes is twice as fast as one pass of mixed types.

    Shapes: values of any type and out float32, viewed as (N, P); rows float32 (1 or N, P).
    Error: below 1e-6 of the largest result.
    """
    scale, shift = rows
    values, out = values.view(-1, scale.shape[1]), out.view(-1, scale.shape[1])
    torch.addcmul(shift, out.copy_(values), scale, out=out)


class MixupDraw(NamedTuple):
    """The weight of each image, float32 (), and the other image of each, int64 (N,)."""

    weight: Tensor
    partner: Tensor


def draw_mixup(count: int, alpha: float, generator: Generator) -> MixupDraw:
    """The weight, from Beta(alpha, alpha), and the partners of a batch of ``count`` images.

    Source: Zhang et al. 2018; one weight for the batch.
    """
    concentration = torch.full((2,), alpha, device=generator.device)
    # The sampler of torch.distributions.Beta, which takes no generator itself.
    weights = torch.ops.aten._sample_dirichlet(concentration, generator=generator)  # noqa: SLF001  # no public sampler takes a generator
    partner = torch.randperm(count, generator=generator, device=generator.device)
    return MixupDraw(weights[0], partner)


def mix(images: Tensor, targets: Tensor, draw: MixupDraw) -> tuple[Tensor, Tensor]:
    """Images and targets, each mixed with those of its partner; all on one device.

    A label that is unknown (NaN) in one of both is unknown.
    Shapes: images (N, C, H, W), targets float (N, K); returns the same in the same layout.
    """
    weight, partner = draw
    mixed = torch.lerp(_select(images, partner), images, weight.to(images.dtype))
    return mixed, torch.lerp(targets[partner], targets, weight.to(targets.dtype))


def mixup(
    images: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Images and targets, each mixed with those of another image of the batch, drawn now."""
    draw = draw_mixup(len(images), alpha, generator)
    return mix(images, targets, MixupDraw(*(tensor.to(images.device) for tensor in draw)))


def _select(images: Tensor, order: Tensor) -> Tensor:
    """``images[order]`` in the layout of ``images``."""
    if images.is_contiguous():
        return images.index_select(0, order)
    return images.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)


class _Constants:
    """Normalisation constants of the values of an image: scale and shift of a line of pixels."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: ImageShape,
        device: torch.device,
        *,
        unit: float = 255.0,
    ) -> None:
        exact = torch.tensor([mean, std], dtype=torch.float64)
        self._scale = (1 / (unit * exact[1])).float().to(device)
        self._shift = (-exact[0] / exact[1]).float().to(device)
        self.equal = bool((exact == exact[:, :1]).all())
        _, width, self._channels = image_shape
        self.plain = self._rows(torch.arange(width * self._channels, device=device)[None])

    def _rows(self, sources: Tensor) -> Rows:
        channels = sources % self._channels
        return self._scale[channels], self._shift[channels]

    def after(self, runs: RunMap) -> Rows:
        """The rows for values that are normalised, in meaning, before these maps permute them.

        A map that mixes channels does not commute with constants that differ between channels.
        """
        if self.equal or runs.keeps_channels(self._channels):
            return self.plain
        return self.of_values(runs)

    def of_values(self, runs: RunMap) -> Rows:
        """The rows of the values that the maps bring to each place."""
        return self._rows(torch.from_numpy(runs.values()).to(self._scale.device))


class View(NamedTuple):
    """What inputs show of stored images: their centres of side ``size``, or crops of them.

    ``aspects``: width over height of what distorted images show, float64 (N,).
    """

    size: int | None
    aspects: Tensor | None = None


class BatchDraw(NamedTuple):
    """Which images a batch shows, and what was drawn for them.

    ``aspects``: float64 (N,), where centres of distorted images are shown. What the host computes
    for each batch, where ``ImagePipeline.for_device`` has done so already: ``runs``, the maps of
    the images, int32 (N, R); ``rows``, their constants; ``images``, float32 (N, C, H, W), where a
    transform has made them or they come from the disk.
    """

    indices: Tensor
    augmentation: AugmentationParams | None
    aspects: Tensor | None = None
    runs: Tensor | None = None
    rows: Rows | None = None
    images: Tensor | None = None

    def chunk(self, rows: slice | Tensor) -> BatchDraw:
        """What was drawn for some rows of the batch."""
        augmentation = self.augmentation and self.augmentation.chunk(rows)
        aspects, runs, images = (
            None if tensor is None else tensor[rows]
            for tensor in (self.aspects, self.runs, self.images)
        )
        scales = self.rows
        if scales is not None and len(scales[0]) > 1:
            scales = (scales[0][rows], scales[1][rows])
        return BatchDraw(self.indices[rows], augmentation, aspects, runs, scales, images)


class ImagePipeline:
    """Batches of the images of one split, as inputs of a network.

    ``images``: uint8 (N, H, W, C), on the device of the batches; only read. Or images that stay on
    the disk, with equal batches.
    ``mean``, ``std``: one value per channel, for pixels in [0, 1].
    ``view``: what the inputs show of larger images (default: all).
    ``image_ids``: int64 (N,), the images' positions in their split, passed to the perturbation
    (default: 0, 1, ...).
    """

    def __init__(
        self,
        images: Tensor | StreamedImages,
        mean: Sequence[float],
        std: Sequence[float],
        perturbation: CompiledPerturbation | None = None,
        augmentation: Augmentation | None = None,
        *,
        view: View | None = None,
        image_ids: np.ndarray | None = None,
    ) -> None:
        perturbation = perturbation or CompiledPerturbation("none", "normalised")
        active = augmentation is not None and augmentation.active
        self._augmentation = augmentation if active else None
        self._device = images.device
        self._image_ids = np.arange(images.shape[0]) if image_ids is None else image_ids
        self._set_images(images, view or View(None))
        self._after_normalisation = perturbation.stage == "normalised"
        self._transform = perturbation.transform
        self._per_image = perturbation.per_image
        self._set_constants(mean, std)
        shared = perturbation.shared
        self._gather = None if shared is None else Gather(shared, images.device)
        self._rows = self._rows_after(shared)
        self._run_length = 0

    def _set_images(self, images: Tensor | StreamedImages, view: View) -> None:
        size, self._aspects = view
        self._count, height, width, channels = images.shape
        self._shape: ImageShape = (size or height, size or width, channels)
        augmentation = self._augmentation
        self._crops = augmentation is not None and augmentation.random_resized_crop is not None
        self._stored_shape: ImageShape = (height, width, channels)
        aspects, centred = self._aspects, not self._crops and self._shows_more
        if centred:
            # All that is ever seen: the rest need not be in memory.
            self._stored_shape, self._aspects = self._shape, None
        self._stream: StreamedImages | None = None
        self._stream_view: View | None = None
        if isinstance(images, StreamedImages):
            self._stream = images
            self._stream_view = View(self._shape[0], aspects) if centred else None
        else:
            images = central(images, self._shape[0], aspects) if centred else images
            self._words = as_words(images.contiguous().flatten(1))

    @property
    def _shows_more(self) -> bool:
        """Whether stored images show more than their centres."""
        return self._aspects is not None or self._stored_shape != self._shape

    def _set_constants(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._final: _Constants | None = None
        if self._transform is not None and not self._after_normalisation:
            # The transform comes between the scaling to [0, 1] and the normalisation.
            self._final = _Constants(mean, std, self._shape, self._device, unit=1.0)
            mean, std = [0.0] * len(mean), [1.0] * len(std)
        self._constants = _Constants(mean, std, self._shape, self._device)

    def __len__(self) -> int:
        return self._count

    @property
    def image_ids(self) -> np.ndarray:
        """The images' positions in their split, int64 (N,)."""
        return self._image_ids

    def batch(self, indices: Tensor, generator: Generator | None = None) -> Tensor:
        """The images at ``indices``; not augmented without a generator.

        Augmentation is sampled for the batch: to get micro-batches, split the result.

        Shapes: indices int64 (N,), preferably on the CPU where each image has its own map;
        returns (N, C, H, W), channels_last in memory.
        """
        return self.make(self.draw(indices, generator))

    def draw(self, indices: Tensor, generator: Generator | None = None) -> BatchDraw:
        """What ``make`` needs for a batch: the only part that draws random numbers."""
        augmentation = None if generator is None else self._augmentation
        aspects = None if self._aspects is None else self._aspects[indices.cpu()]
        if augmentation is None or generator is None:
            return BatchDraw(indices, None, aspects)
        params = sample_augmentation(
            augmentation, len(indices), self._stored_shape, generator, generator.device, aspects
        )
        return BatchDraw(indices, params)

    def for_device(self, draw: BatchDraw) -> BatchDraw:
        """``draw`` with all that the host computes, so that ``make`` runs on the device alone.

        Shapes of what is added depend on the number of images alone, once the runs are as short
        as those of any image.
        """
        if draw.runs is not None or draw.images is not None:
            return draw
        if self._transform is not None or self._stream is not None:
            return draw._replace(images=self.make(draw))
        if self._gather is not None or self._per_image is None:
            return draw
        runs = self._per_image(self._ids(draw.indices))
        self._run_length = math.gcd(self._run_length, runs.length)
        parts = runs.length // self._run_length
        sources = torch.from_numpy(runs.runs.astype(np.int32))
        within = torch.arange(parts, dtype=torch.int32)
        sources = (sources[:, :, None] * parts + within).flatten(1)
        return draw._replace(runs=sources, rows=self._rows_of_each(runs))

    def make(self, draw: BatchDraw) -> Tensor:
        """The images of ``draw``, as ``batch``."""
        if draw.images is not None:
            return draw.images
        count, values = len(draw.indices), math.prod(self._shape)
        out = torch.empty(count, values, dtype=torch.float32, device=self._device)
        streamed = self._streamed(draw.indices)
        for chunk in chunks(count, math.prod(self._stored_shape), self._device):
            part = draw.chunk(chunk)
            images = self._fetch(part.indices) if streamed is None else streamed[chunk]
            images, rows = self._permute(self._augmented(images, part), part)
            normalise(images, rows, out[chunk])
        return self._finish(out, draw.indices)

    def announce(self, batches: Iterable[Tensor]) -> None:
        """The indices of the batches that are made from now on: images on the disk are read ahead.

        Another call takes the place of what was announced before.
        """
        if self._stream is not None:
            self._stream.announce(batches)

    def _streamed(self, indices: Tensor) -> Tensor | None:
        """What of images on the disk is ever seen, uint8 (N, V); None where they are in memory."""
        if self._stream is None:
            return None
        images = self._stream.fetch(indices)
        if self._stream_view is None:
            return images
        aspects = self._stream_view.aspects
        ratios = None if aspects is None else aspects[indices.cpu()]
        stored = images.view(-1, *self._stream.shape[1:])
        return central(stored, self._shape[0], ratios).flatten(1)

    def _augmented(self, images: Tensor, draw: BatchDraw) -> Tensor:
        """Stored images before they are permuted, uint8 (N, V)."""
        stored = images.view(-1, *self._stored_shape)
        if draw.augmentation is not None and self._augmentation is not None:
            params = draw.augmentation.to(self._device)
            size = self._shape[0] if self._crops else None
            return augment(stored, params, self._augmentation, size).flatten(1)
        if self._shows_more:
            return central(stored, self._shape[0], draw.aspects).flatten(1)
        return images

    def precompute(self) -> bool:
        """Permute all images now instead of in each batch; returns whether this was possible.

        It is not where augmentation comes first, nor for transforms other than permutations, nor
        where images stay on the disk.
        """
        if self._augmentation is not None or (self._gather or self._per_image) is None:
            return False
        if self._stream is not None:
            return False
        count, values = len(self), math.prod(self._shape)
        permuted = torch.empty(count, values, dtype=torch.uint8, device=self._device)
        for chunk in chunks(count, values, self._device):
            draw = self.draw(torch.arange(chunk.start, chunk.stop))
            _, rows = self._permute(self._fetch(draw.indices), draw, permuted[chunk])
            if rows is not self._rows:
                # Each batch would still need the constants of its images.
                return False
        self._words = as_words(permuted)
        self._gather = self._per_image = None
        return True

    def _fetch(self, indices: Tensor) -> Tensor:
        on_device = indices.to(self._device, non_blocking=True)
        return self._words.index_select(0, on_device).view(torch.uint8)

    def _ids(self, indices: Tensor) -> np.ndarray:
        ids: np.ndarray = self._image_ids[indices.cpu().numpy()]
        return ids

    def _rows_after(self, runs: RunMap | None) -> Rows:
        if runs is None or not self._after_normalisation:
            return self._constants.plain
        return self._constants.after(runs)

    def _rows_of_each(self, runs: RunMap) -> Rows:
        """``_rows_after``, with as many rows whatever the maps of these images are."""
        if not self._after_normalisation or self._constants.equal:
            return self._constants.plain
        return self._constants.of_values(runs)

    def _permute(
        self, images: Tensor, draw: BatchDraw, out: Tensor | None = None
    ) -> tuple[Tensor, Rows]:
        """The permuted images, and the rows that normalise them."""
        if self._gather is not None:
            return self._gather(images, out), self._rows
        if self._per_image is None:
            return images, self._rows
        if draw.runs is not None and draw.rows is not None:
            gather = Gather.of_sources(draw.runs, images.shape[1] // draw.runs.shape[1])
            return gather(images, out), draw.rows
        runs = self._per_image(self._ids(draw.indices))
        return Gather(runs, self._device)(images, out), self._rows_after(runs)

    def _finish(self, values: Tensor, indices: Tensor) -> Tensor:
        images = values.view(-1, *self._shape).permute(0, 3, 1, 2)
        if self._transform is None:
            return images
        transformed = self._transform(images, self._ids(indices))
        rows = transformed.permute(0, 2, 3, 1).contiguous()
        if self._final is None:
            return rows.float().permute(0, 3, 1, 2)
        out = torch.empty_like(rows, dtype=torch.float32)
        normalise(rows, self._final.plain, out)
        return out.permute(0, 3, 1, 2)
