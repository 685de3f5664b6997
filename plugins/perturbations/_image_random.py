"""Random numbers per image, which depend only on the seed and the image's id.

A counter-based generator (splitmix64): a whole batch is drawn at once, on any device, and the
numbers of an image do not depend on the rest of the batch. Rejected: ``torch.Generator`` and
``numpy.random.Philox``, which would need one generator per image.

Shape letters: N images, V values per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from transferbench.specs import BuildTransform, ImageShape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["STEP", "ImageRandom", "mixed", "on_batches"]

Words = TypeVar("Words", np.ndarray, "Tensor")
"""Unsigned 64-bit words, stored as int64."""


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word; torch multiplies int64 modulo 2^64."""
    return word - 2**64 if word >= 2**63 else word


# Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators: step and mixing.
STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(words: Words, count: int) -> Words:
    # int64 shifts arithmetically: the mask clears the copies of the sign bit.
    return (words >> count) & ((1 << (64 - count)) - 1)


def mixed(words: Words) -> Words:
    """The mixing function of splitmix64."""
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    words ^= _shifted(words, 31)
    return words


class ImageRandom(NamedTuple):
    """Draws for the images of one batch; each ``stream`` is an independent draw."""

    seed: int
    image_ids: np.ndarray
    device: torch.device

    def bits(self, values: int, stream: int = 0) -> Tensor:
        """64 random bits per value.

        Shapes: int64 (N, V).
        """
        import torch

        ids = torch.as_tensor(self.image_ids, dtype=torch.int64, device=self.device)
        start = torch.full((1,), self.seed, dtype=torch.int64, device=self.device)
        key = mixed(mixed(start + STEP) + _signed(stream * STEP % 2**64))
        key = mixed(key + ids * STEP)
        counter = torch.arange(1, values + 1, dtype=torch.int64, device=self.device) * STEP
        return mixed(key[:, None] + counter)

    def uniform(self, *shape: int, stream: int = 0) -> Tensor:
        """Uniform draws from [0, 1), multiples of 2^-24.

        Shapes: float32 (N, *shape).
        """
        words = self.bits(math.prod(shape), stream)
        return (_shifted(words, 40).float() * 2**-24).view(-1, *shape)

    def normal(self, *shape: int, stream: int = 0) -> Tensor:
        """Standard normal draws, of absolute value at most 6.8.

        Shapes: float32 (N, *shape).
        Source: Box and Muller 1958; two draws from the two halves of each 64 bits.
        """
        import torch

        values = math.prod(shape)
        words = self.bits((values + 1) // 2, stream)
        radius = (_shifted(words, 32).float() + 0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
        angle = (words & (2**32 - 1)).float().mul_(2 * math.pi * 2**-32)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :values].reshape(-1, *shape)


def on_batches(change: Callable[[Tensor, Any, ImageRandom], Tensor]) -> BuildTransform:
    """The builder of the transform ``change(images, params, random)`` of a batch of images."""

    def build(
        params: Any,
        image_shape: ImageShape,  # noqa: ARG001  # protocol
        seed: int,
    ) -> Callable[[Tensor, np.ndarray], Tensor]:
        return lambda images, image_ids: change(
            images, params, ImageRandom(seed, image_ids, images.device)
        )

    return build
