"""Perturbations made ready for images of one shape: checked once, then only applied."""

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
    """A perturbation at one image shape and seed: at most one of its three forms.

    ``shared``: one map for all images. ``per_image``: the maps of the images with these ids.
    ``transform``: any function on a batch. None of them: the identity.
    """

    name: str
    stage: Literal["pixels", "normalised"]
    shared: RunMap | None = None
    per_image: Callable[[np.ndarray], RunMap] | None = None
    transform: Transform | None = None


def compile_perturbation(
    spec: PerturbationSpec, params: Any, image_shape: ImageShape, seed: int
) -> CompiledPerturbation:
    """``spec`` made ready for images of one shape (H, W, C).

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
        found = build(params, image_shape, seed, image_ids)
        return _checked(spec, found, math.prod(image_shape), len(image_ids))

    probe = maps(np.arange(2))
    _check_permutation(spec.name, probe)
    if len(probe.runs) == 2:
        return CompiledPerturbation(spec.name, spec.stage, per_image=maps)
    if probe.is_identity:
        return CompiledPerturbation(spec.name, spec.stage)
    kept = probe._replace(runs=probe.runs.copy())  # the plugin may use its array again
    return CompiledPerturbation(spec.name, spec.stage, shared=kept)


def _checked(spec: PerturbationSpec, found: np.ndarray, values: int, count: int) -> RunMap:
    """The plugin's maps, if they are of a shape and range that stay within each image."""
    _check_shape(spec, found, values, count)
    if found.min() < 0 or found.max() >= found.shape[1]:
        raise PluginError(
            f"perturbation {spec.name!r} gave a map to {found.min()}..{found.max()}, which must "
            f"stay within 0..{found.shape[1] - 1}: fix the plugin"
        )
    if spec.runs is None:
        return coarsen(found)
    return RunMap(found, values // found.shape[1])


def _check_shape(spec: PerturbationSpec, found: np.ndarray, values: int, count: int) -> None:
    kind = str(getattr(found, "dtype", type(found).__name__))
    shape = np.shape(found)
    fits = len(shape) == 2 and shape[0] in {1, count} and shape[1] > 0
    fits = fits and (values % shape[1] == 0 if spec.runs else shape[1] == values)
    if kind != "int32" or not fits:
        width = f"a divisor of {values}" if spec.runs else values
        raise PluginError(
            f"perturbation {spec.name!r} gave a map of {kind} {shape}, which must be int32 "
            f"(1 or {count}, {width}): fix the plugin"
        )


def _check_permutation(name: str, runs: RunMap) -> None:
    if not (np.sort(runs.runs, axis=1) == np.arange(runs.runs.shape[1])).all():
        raise PluginError(
            f"perturbation {name!r} gave a map that is no permutation: it takes some values twice "
            "and leaves others out; fix the plugin, or give it build instead of index"
        )
