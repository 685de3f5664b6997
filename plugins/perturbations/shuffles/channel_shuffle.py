"""Channel shuffle: one fixed random permutation of the channels, never the identity."""

from __future__ import annotations

import numpy as np

from transferbench.specs import ImageShape, NoParams, PerturbationSpec

__all__ = ["CHANNEL_SHUFFLE"]


def _order(channels: int, seed: int) -> np.ndarray:
    """A permutation of the channels, uniform over all but the identity."""
    random = np.random.RandomState(seed)  # its stream is frozen, as for the other shuffles
    identity = order = np.arange(channels)
    while (order == identity).all():
        order = random.permutation(channels)
    return order


def _index(
    params: NoParams,  # noqa: ARG001  # fixed signature
    image_shape: ImageShape,
    seed: int,
    image_ids: np.ndarray,  # noqa: ARG001  # fixed signature
) -> np.ndarray:
    height, width, channels = image_shape
    pixels = np.arange(height * width)[:, None] * channels
    index: np.ndarray = pixels + _order(channels, seed)
    return index.reshape(1, -1).astype(np.int32)


def _check(params: NoParams, image_shape: ImageShape) -> str | None:  # noqa: ARG001  # fixed signature
    if image_shape[2] > 1:
        return None
    return "a single channel cannot be permuted; use images of 3 channels"


CHANNEL_SHUFFLE = PerturbationSpec(
    name="channel-shuffle",
    version=1,
    summary="one fixed permutation of the channels, never the identity",
    source="transferbench; the paper's pixel shuffle is its only one that mixes channels",
    license="Apache-2.0",
    index=_index,
    stage="normalised",
    check=_check,
    severity=lambda params, image_shape: 1.0,
)
