"""The identity: unperturbed images, the reference of every perturbation."""

from __future__ import annotations

import math

import numpy as np

from transferbench.specs import PerturbationSpec

__all__ = ["IDENTITY"]


IDENTITY = PerturbationSpec(
    name="identity",
    version=1,
    summary="unperturbed images",
    source="none",
    license="Apache-2.0",
    index=lambda params, image_shape, seed, image_ids: np.arange(
        math.prod(image_shape), dtype=np.int32
    )[None],
    severity=lambda params, image_shape: 0.0,
)
