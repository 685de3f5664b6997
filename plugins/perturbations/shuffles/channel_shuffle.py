"""Channel shuffle: one fixed random permutation of the channels, never the identity."""

from __future__ import annotations

import numpy as np

from transferbench.specs import ImageShape, PerturbationSpec

__all__ = ["CHANNEL_SHUFFLE"]


def _index(image_shape: ImageShape, seed: int) -> np.ndarray:
    """The order of the channels is uniform over all but the identity."""
    height, width, channels = image_shape
    random = np.random.RandomState(seed)  # its stream is frozen, as for the other shuffles
    identity = order = np.arange(channels)
    while (order == identity).all():
        order = random.permutation(channels)
    index: np.ndarray = np.arange(height * width)[:, None] * channels + order
    return index.reshape(1, -1).astype(np.int32)


CHANNEL_SHUFFLE = PerturbationSpec(
    name="channel-shuffle",
    version=1,
    summary="one fixed permutation of the channels, never the identity",
    source="transferbench; the paper's pixel shuffle is its only one that mixes channels",
    license="Apache-2.0",
    index=lambda params, image_shape, seed, image_ids: _index(image_shape, seed),
    stage="normalised",
    check=lambda params, image_shape: (
        None
        if image_shape[2] > 1
        else "a single channel cannot be permuted; use images of 3 channels"
    ),
    severity=lambda params, image_shape: 1.0,
)
