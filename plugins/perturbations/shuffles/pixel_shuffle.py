"""Pixel shuffle: one fixed random permutation of all values, across positions and channels.

The strongest permutation: it preserves only the histogram of the normalised values. As in the
released code it is drawn for images flattened CHW, and converted to HWC here.
"""

from __future__ import annotations

import math

import numpy as np

from transferbench.specs import ImageShape, PerturbationSpec

__all__ = ["PIXEL_SHUFFLE"]


def _index(image_shape: ImageShape, seed: int) -> np.ndarray:
    height, width, channels = image_shape
    values = math.prod(image_shape)
    permutation = np.random.RandomState(seed).permutation(values)  # as released
    # CHW position -> HWC position.
    positions = np.arange(values).reshape(image_shape).transpose(2, 0, 1).reshape(-1)
    moved = positions[permutation].reshape(channels, height, width).transpose(1, 2, 0)
    return moved.reshape(1, -1).astype(np.int32)


PIXEL_SHUFFLE = PerturbationSpec(
    name="pixel-shuffle",
    version=1,
    summary="one fixed random permutation of all values, across channels",
    source="Neyshabur, Sedghi, Zhang 2020, section 3.1: released code, RandomPixelShuffle",
    license="Apache-2.0",
    index=lambda params, image_shape, seed, image_ids: _index(image_shape, seed),
    stage="normalised",
    severity=lambda params, image_shape: 1.0,
)
