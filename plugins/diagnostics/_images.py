"""Batches of images: a network's logits of them, and the digest that identifies them in a cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["compute_logits", "image_digest"]


DIGESTED = 256


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
    """BLAKE2b digest of shape and pixels. Shapes: (N, C, H, W)."""
    import torch

    digest = hashlib.blake2b(repr(tuple(images.shape)).encode())
    # In batches: images may be a view that makes them.
    for batch in torch.split(images, DIGESTED):
        digest.update(batch.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
