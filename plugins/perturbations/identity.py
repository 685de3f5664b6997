"""The identity: unperturbed images, the reference of every perturbation."""

from __future__ import annotations

import math

import numpy as np

from transferbench.specs import ImageShape, NoParams, PerturbationSpec

__all__ = ["IDENTITY"]


def _index(
    params: NoParams,  # noqa: ARG001  # fixed signature
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
    image_ids: np.ndarray,  # noqa: ARG001  # fixed signature
) -> np.ndarray:
    return np.arange(math.prod(image_shape), dtype=np.int32)[None]


IDENTITY = PerturbationSpec(
    name="identity",
    version=1,
    summary="unperturbed images",
    source="none",
    license="Apache-2.0",
    index=_index,
    severity=lambda params, image_shape: 0.0,
)
