"""All values of an image in one fixed random order, across positions and channels.

The strongest permutation: nothing is left but the histogram of the normalised values. The order
is drawn for the image flattened CHW, as released, and told here for HWC.
"""

from __future__ import annotations

import math

import numpy as np

from transferbench.specs import ImageShape, NoParams, PerturbationSpec

__all__ = ["PIXEL_SHUFFLE"]


def _index(
    params: NoParams,  # noqa: ARG001  # the seam's signature
    image_shape: ImageShape,
    seed: int,
    image_ids: np.ndarray,  # noqa: ARG001  # the seam's signature
) -> np.ndarray:
    height, width, channels = image_shape
    values = math.prod(image_shape)
    chosen = np.random.RandomState(seed).permutation(values)  # as released
    # The place in HWC of every place in CHW; read at every CHW place in HWC order.
    places = np.arange(values).reshape(image_shape).transpose(2, 0, 1).reshape(-1)
    moved = places[chosen].reshape(channels, height, width).transpose(1, 2, 0)
    return moved.reshape(1, -1).astype(np.int32)


PIXEL_SHUFFLE = PerturbationSpec(
    name="pixel-shuffle",
    version=1,
    summary="one fixed permutation of all values, mixing the channels",
    source="Neyshabur, Sedghi, Zhang 2020, section 3.1: released code, RandomPixelShuffle",
    license="Apache-2.0",
    index=_index,
    stage="normalised",
    severity=lambda params, image_shape: 1.0,
)
