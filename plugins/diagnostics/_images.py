"""Batches of images: a network's logits of them, and the digest that identifies them in a cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.nn import Module

__all__ = ["compute_logits", "image_digest", "projections"]


DIGESTED = 256
PROJECTIONS = 4


def compute_logits(net: Module, images: Tensor, batch_size: int) -> np.ndarray:
    """The logits of ``net``, which is in eval mode.

    Shapes: (N, C, H, W) to float32 (N, K).
    """
    import torch

    with torch.no_grad():
        parts = [net(part).float() for part in torch.split(images, batch_size)]
    logits_NK: np.ndarray = torch.cat(parts).cpu().numpy()
    return logits_NK


def image_digest(images: Tensor) -> str:
    """BLAKE2b digest of shape and pixels, on a card of projections of them.

    For the keys of a cache in one process: the digests of two devices differ.
    Shapes: (N, C, H, W).
    """
    import torch

    digest = hashlib.blake2b(repr(tuple(images.shape)).encode())
    # In batches: images may be a view that makes them.
    batches: Iterator[Tensor] = (each.detach() for each in torch.split(images, DIGESTED))
    if images.device.type != "cpu":
        batches = iter([projections(batches)])
    for batch in batches:
        digest.update(batch.contiguous().numpy().tobytes())
    return digest.hexdigest()


def projections(batches: Iterator[Tensor]) -> Tensor:
    """Each image along ``PROJECTIONS`` random directions, float64 (N, P) on the CPU.

    They tell images apart that differ in one pixel, and are brought to the host at once, which for
    all pixels would take longer than what is computed with them.
    """
    import torch

    projected, directions = [], None
    for batch in batches:
        flat = batch.flatten(1).double()
        if directions is None:
            draw = torch.Generator().manual_seed(0)
            shape = flat.shape[1], PROJECTIONS
            directions = torch.rand(shape, generator=draw, dtype=torch.float64).to(flat.device)
        projected.append(flat @ directions)
    return torch.cat(projected).cpu()
