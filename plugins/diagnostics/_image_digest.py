"""Digest of a batch of images, part of the key under which their features are cached."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["image_digest"]


def image_digest(images: Tensor) -> str:
    """BLAKE2b digest of shape and pixels. Shapes: (N, C, H, W)."""
    pixels = images.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
