"""From decoded images in memory to the batches a network sees: augmented, normalised, perturbed.

The meaning is the released one: augment, scale to [0, 1], normalise, perturb. The work is done in
the cheapest order with equal results: a permutation of values is applied to the 8-bit images, and
each value is normalised by the constants of the channel that it came from.

Shape letters: N images, H height, W width, C channels, V = H*W*C values, K classes, P a period.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from transferbench.data.augmentation import augment, draw
from transferbench.data.gather import Gather, RunMap, as_words, pieces
from transferbench.data.perturbation import CompiledPerturbation, compile_perturbation
from transferbench.specs import ImageShape
from transferbench.suite import Augmentation

__all__ = [
    "CompiledPerturbation",
    "ImagePipeline",
    "compile_perturbation",
    "keep_large_allocations",
    "mixup",
    "normalise",
]

Rows = tuple[Tensor, Tensor]  # scale and shift, (1 or N, P) each

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_large_allocations() -> bool:
    """Let this process keep the memory of freed tensors; whether this platform could be told.

    glibc gives every large block back to the kernel, which clears the next one page by page: a
    fresh tensor of 150 MB takes about three times as long as one that exists. The price: memory
    once used stays with the process, some four times its largest tensor. For worker processes; a
    no-op elsewhere than on glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def normalise(values: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """``values * scale + shift`` into ``out``, for rows of values.

    Rows of many values, because a broadcast over the channels of channels_last images is four
    times slower. One pass converts and a second scales: one that mixes types takes twice as long.

    Shapes: values (N, P) of any type, scale and shift float32 (1 or N, P), out float (N, P).
    Error: below 1e-6 of the largest result in float32; bfloat16 is rounded once, at the end.
    """
    whole = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
    torch.addcmul(shift, whole.copy_(values), scale, out=whole)
    return out if whole is out else out.copy_(whole)


def mixup(
    images: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Each image and its target mixed with another's of the batch, by one share for all.

    Shapes: images (N, C, H, W), targets float (N, K); returns the same, layout kept.
    Source: Zhang et al. 2018; the share is drawn from Beta(alpha, alpha) once a batch.
    """
    device = images.device
    concentration = torch.full((2,), alpha, device=generator.device)
    # The sampler beneath torch.distributions.Beta, which takes no generator itself.
    shares = torch.ops.aten._sample_dirichlet(concentration, generator=generator)  # noqa: SLF001  # no public sampler takes a generator
    share = shares[0].to(device)
    partner = torch.randperm(len(images), generator=generator, device=generator.device).to(device)
    mixed = torch.lerp(_select(images, partner), images, share.to(images.dtype))
    return mixed, torch.lerp(targets[partner], targets, share.to(targets.dtype))


def _select(images: Tensor, order: Tensor) -> Tensor:
    """``images[order]`` in the layout of ``images``."""
    if images.is_contiguous():
        return images.index_select(0, order)
    return images.permute(0, 2, 3, 1).index_select(0, order).permute(0, 3, 1, 2)


class _Constants:
    """What normalises each value of an image: scale and shift, as rows of one period."""

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
        self._equal = bool((exact == exact[:, :1]).all())
        _, width, self._channels = image_shape
        self.plain = self._rows(torch.arange(width * self._channels, device=device)[None])

    def _rows(self, places: Tensor) -> Rows:
        channels = places % self._channels
        return self._scale[channels], self._shift[channels]

    def after(self, runs: RunMap) -> Rows:
        """The rows for values that were normalised before these maps moved them.

        A map that mixes channels does not commute with constants that differ between them.
        """
        if self._equal or runs.keeps_channels(self._channels):
            return self.plain
        return self._rows(torch.from_numpy(runs.values()).to(self._scale.device))


class ImagePipeline:
    """Batches of one split's images, as a network sees them.

    ``images``: uint8 (N, H, W, C), on the device where batches are wanted; only read.
    ``mean``, ``std``: one value a channel, for pixels in [0, 1].
    ``dtype``: of the batches, float32 or bfloat16.
    ``image_ids``: int64 (N,), the images' positions in their split, by which a perturbation may
    tell them apart (default: 0, 1, ...).
    """

    def __init__(
        self,
        images: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        perturbation: CompiledPerturbation | None = None,
        augmentation: Augmentation | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        image_ids: np.ndarray | None = None,
    ) -> None:
        perturbation = perturbation or CompiledPerturbation("none", "normalised")
        self._shape: ImageShape = (images.shape[1], images.shape[2], images.shape[3])
        self._device = images.device
        self._words = as_words(images.contiguous().flatten(1))
        self._image_ids = np.arange(len(images)) if image_ids is None else image_ids
        active = augmentation is not None and augmentation.active
        self._augmentation = augmentation if active else None
        self._dtype = dtype
        self._travels = perturbation.stage == "normalised"
        self._transform = perturbation.transform
        self._per_image = perturbation.per_image
        self._set_constants(mean, std)
        shared = perturbation.shared
        self._gather = None if shared is None else Gather(shared, images.device)
        self._rows = self._rows_after(shared)

    def _set_constants(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._last: _Constants | None = None
        if self._transform is not None and not self._travels:
            # The transform stands between the scaling to [0, 1] and the normalisation.
            self._last = _Constants(mean, std, self._shape, self._device, unit=1.0)
            mean, std = [0.0] * len(mean), [1.0] * len(std)
        self._constants = _Constants(mean, std, self._shape, self._device)

    def __len__(self) -> int:
        return len(self._words)

    @property
    def image_ids(self) -> np.ndarray:
        """The images' positions in their split, int64 (N,)."""
        return self._image_ids

    def batch(self, indices: Tensor, generator: Generator | None = None) -> Tensor:
        """The images at these positions; without a generator, not augmented.

        The draws are made for the whole batch: for micro-batches, take the batch and split it.

        Shapes: indices int64 (N,), best on the CPU where each image has its own perturbation;
        returns (N, C, H, W), channels_last in memory.
        """
        count, values = len(indices), math.prod(self._shape)
        dtype = self._dtype if self._transform is None else torch.float32
        out = torch.empty(count, values, dtype=dtype, device=self._device)
        augmentation = None if generator is None else self._augmentation
        if augmentation is not None and generator is not None:
            draws = draw(augmentation, count, self._shape, generator, self._device)
        for piece in pieces(count, values, self._device):
            images = self._fetch(indices[piece])
            if augmentation is not None:
                square = images.view(-1, *self._shape)
                images = augment(square, draws.part(piece), augmentation).flatten(1)
            images, rows = self._permute(images, indices[piece])
            _normalise_rows(images, rows, out[piece])
        return self._finish(out, indices)

    def precompute(self) -> bool:
        """Permute all images now, so that no batch has to; returns whether it was done.

        Not where augmentation comes first, nor for what is no permutation of 8-bit values.
        """
        if self._augmentation is not None or (self._gather or self._per_image) is None:
            return False
        count, values = len(self), math.prod(self._shape)
        ready = torch.empty(count, values, dtype=torch.uint8, device=self._device)
        for piece in pieces(count, values, self._device):
            indices = torch.arange(piece.start, piece.stop)
            _, rows = self._permute(self._fetch(indices), indices, ready[piece])
            if rows is not self._rows:
                # Each image would need its own constants again at every batch.
                return False
        self._words = as_words(ready)
        self._gather = self._per_image = None
        return True

    def _fetch(self, indices: Tensor) -> Tensor:
        return self._words.index_select(0, indices.to(self._device)).view(torch.uint8)

    def _ids(self, indices: Tensor) -> np.ndarray:
        ids: np.ndarray = self._image_ids[indices.cpu().numpy()]
        return ids

    def _rows_after(self, runs: RunMap | None) -> Rows:
        if runs is None or not self._travels:
            return self._constants.plain
        return self._constants.after(runs)

    def _permute(
        self, images: Tensor, indices: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Rows]:
        """The permuted images, and the rows that normalise them."""
        if self._gather is not None:
            return self._gather(images, out), self._rows
        if self._per_image is None:
            return images, self._rows
        runs = self._per_image(self._ids(indices))
        return Gather(runs, self._device)(images, out), self._rows_after(runs)

    def _finish(self, values: Tensor, indices: Tensor) -> Tensor:
        images = values.view(-1, *self._shape).permute(0, 3, 1, 2)
        if self._transform is not None:
            images = self._transformed(self._transform(images, self._ids(indices)))
        return images

    def _transformed(self, images: Tensor) -> Tensor:
        rows = images.permute(0, 2, 3, 1).contiguous()
        if self._last is None:
            out = rows.to(self._dtype)
        else:
            out = torch.empty_like(rows, dtype=self._dtype)
            _normalise_rows(rows, self._last.plain, out)
        return out.permute(0, 3, 1, 2)


def _normalise_rows(images: Tensor, rows: Rows, out: Tensor) -> None:
    scale, shift = rows
    width = scale.shape[1]
    normalise(images.view(-1, width), scale, shift, out.view(-1, width))
