"""Random numbers per image, which depend only on the seed and the image's id.

A counter-based generator (splitmix64): a whole batch is drawn at once, on any device, and the
numbers of an image do not depend on the rest of the batch. Rejected: ``torch.Generator`` and
``numpy.random.Philox``, which would need one generator per image.

Shape letters: N images, V values per image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["bits", "normal", "uniform"]


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word; torch multiplies int64 modulo 2^64."""
    return word - 2**64 if word >= 2**63 else word


# Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators: step and mixing.
_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(words: Tensor, count: int) -> Tensor:
    # int64 shifts arithmetically: the mask clears the copies of the sign bit.
    return (words >> count) & ((1 << (64 - count)) - 1)


def _mixed(words: Tensor) -> Tensor:
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    return words ^ _shifted(words, 31)


def bits(
    seed: int, image_ids: np.ndarray, values: int, device: torch.device, stream: int = 0
) -> Tensor:
    """64 random bits per value; each ``stream`` is an independent draw.

    Shapes: int64 (N, V).
    """
    import torch

    ids = torch.as_tensor(image_ids, dtype=torch.int64, device=device)
    start = torch.full((1,), seed, dtype=torch.int64, device=device)
    key = _mixed(_mixed(start + _STEP) + _signed(stream * _STEP % 2**64))
    key = _mixed(key + ids * _STEP)
    counter = torch.arange(1, values + 1, dtype=torch.int64, device=device) * _STEP
    return _mixed(key[:, None] + counter)


def uniform(
    seed: int,
    image_ids: np.ndarray,
    shape: tuple[int, ...],
    device: torch.device,
    stream: int = 0,
) -> Tensor:
    """Uniform draws from [0, 1), multiples of 2^-24. Shapes: float32 (N, *shape)."""
    words = bits(seed, image_ids, math.prod(shape), device, stream)
    return (_shifted(words, 40).float() * 2**-24).view(-1, *shape)


def normal(
    seed: int,
    image_ids: np.ndarray,
    shape: tuple[int, ...],
    device: torch.device,
    stream: int = 0,
) -> Tensor:
    """Standard normal draws, of absolute value at most 6.8.

    Shapes: float32 (N, *shape).
    Source: Box and Muller 1958; two draws from the two halves of each 64 bits.
    """
    import torch

    values = math.prod(shape)
    words = bits(seed, image_ids, (values + 1) // 2, device, stream)
    radius = (_shifted(words, 32).float() + 0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle = (words & (2**32 - 1)).float().mul_(2 * math.pi * 2**-32)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :values].reshape(-1, *shape)
