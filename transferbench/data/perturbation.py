"""Compilation of perturbations for images of one shape, with validation of the plugin's maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from transferbench.data.gather import RunMap, coarsen
from transferbench.errors import PluginError, SuiteError
from transferbench.specs import ImageShape, PerturbationSpec

__all__ = ["CompiledPerturbation", "compile_perturbation"]

Transform = Callable[[Tensor, np.ndarray], Tensor]


@dataclass(frozen=True)
class CompiledPerturbation:
    """A perturbation for one image shape and seed, in at most one of three forms.

    ``shared``: one map for all images. ``per_image``: image ids -> the maps of these images.
    ``transform``: any function on a batch. The identity where all three are None.
    """

    name: str
    stage: Literal["pixels", "normalised"]
    shared: RunMap | None = None
    per_image: Callable[[np.ndarray], RunMap] | None = None
    transform: Transform | None = None


def compile_perturbation(
    spec: PerturbationSpec, params: Any, image_shape: ImageShape, seed: int
) -> CompiledPerturbation:
    """``spec`` compiled for images of one shape (H, W, C).

    Raises: ``SuiteError`` for parameters that do not fit the images, ``PluginError`` for a map
    that is not a permutation.
    """
    if problem := spec.check(params, image_shape):
        shape = " x ".join(map(str, image_shape))
        raise SuiteError(f"perturbation {spec.name!r} does not fit {shape} images: {problem}")
    build = spec.runs or spec.index
    if build is None:
        transform = None if spec.build is None else spec.build(params, image_shape, seed)
        return CompiledPerturbation(spec.name, spec.stage, transform=transform)

    def maps(image_ids: np.ndarray) -> RunMap:
        index = build(params, image_shape, seed, image_ids)
        return _checked(spec, index, math.prod(image_shape), len(image_ids))

    probe = maps(np.arange(2))
    if not (np.sort(probe.runs, axis=1) == np.arange(probe.runs.shape[1])).all():
        raise PluginError(
            f"perturbation {spec.name!r} gave a map that is not a permutation: it takes some values"
            " twice and leaves others out; fix the plugin, or give it build instead of index"
        )
    if len(probe.runs) == 2:
        return CompiledPerturbation(spec.name, spec.stage, per_image=maps)
    if probe.is_identity:
        return CompiledPerturbation(spec.name, spec.stage)
    shared = probe._replace(runs=probe.runs.copy())  # the plugin may reuse its array
    return CompiledPerturbation(spec.name, spec.stage, shared=shared)


def _checked(spec: PerturbationSpec, index: np.ndarray, values: int, count: int) -> RunMap:
    """The plugin's maps, validated in shape and range."""
    kind = str(getattr(index, "dtype", type(index).__name__))
    shape = np.shape(index)
    fits = len(shape) == 2 and shape[0] in {1, count} and shape[1] > 0
    fits = fits and (values % shape[1] == 0 if spec.runs else shape[1] == values)
    if kind != "int32" or not fits:
        width = f"a divisor of {values}" if spec.runs else values
        raise PluginError(
            f"perturbation {spec.name!r} gave a map of {kind} {shape}, which must be int32 "
            f"(1 or {count}, {width}): fix the plugin"
        )
    if index.min() < 0 or index.max() >= shape[1]:
        raise PluginError(
            f"perturbation {spec.name!r} gave a map to {index.min()}..{index.max()}, which must "
            f"stay within 0..{shape[1] - 1}: fix the plugin"
        )
    return coarsen(index) if spec.runs is None else RunMap(index, values // shape[1])
