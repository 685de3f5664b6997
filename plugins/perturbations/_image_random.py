"""Random numbers that belong to an image: a function of the seed and the image's id alone.

A counter-based generator (splitmix64), so that a whole batch is drawn at once, on any device, and
an image gets the same numbers whatever stands beside it in the batch.

Shape letters: N images, V values an image.
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
    """An unsigned 64-bit word as the int64 with the same bits; torch multiplies those modulo 2^64.

    The price of int64: a right shift drags the sign along, which ``_shifted`` takes away.
    """
    return word - 2**64 if word >= 2**63 else word


# Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators: step and mixing.
_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(words: Tensor, places: int) -> Tensor:
    return (words >> places) & ((1 << (64 - places)) - 1)


def _mixed(words: Tensor) -> Tensor:
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    return words ^ _shifted(words, 31)


def bits(
    seed: int, image_ids: np.ndarray, values: int, device: torch.device, stream: int = 0
) -> Tensor:
    """64 random bits for each value of each image.

    ``stream`` tells apart the draws that one image needs.
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
    drawn = bits(seed, image_ids, math.prod(shape), device, stream)
    return (_shifted(drawn, 40).float() * 2**-24).view(-1, *shape)


def normal(
    seed: int,
    image_ids: np.ndarray,
    shape: tuple[int, ...],
    device: torch.device,
    stream: int = 0,
) -> Tensor:
    """Standard normal draws, at most 6.8 in size.

    Shapes: float32 (N, *shape).
    Source: Box and Muller 1958: two draws from the two halves of each 64 bits.
    """
    import torch

    values = math.prod(shape)
    drawn = bits(seed, image_ids, (values + 1) // 2, device, stream)
    size = (_shifted(drawn, 32).float() + 0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle = (drawn & (2**32 - 1)).float().mul_(2 * math.pi * 2**-32)
    both = torch.cat([size * angle.cos(), size * angle.sin()], dim=1)
    return both[:, :values].reshape(-1, *shape)
