"""The five hooks of a plugin. Hooks collect and never intercept: wrappers are refused.

A plugin is a module or object whose functions carry ``hookimpl``::

    from transferbench.hookspecs import hookimpl

    @hookimpl
    def transferbench_perturbations():
        return [MY_PERTURBATION]
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from transferbench.specs import (
    BackboneSpec,
    DatasetSpec,
    DiagnosticSpec,
    InitializationSpec,
    PerturbationSpec,
)

__all__ = [
    "PROJECT",
    "hookimpl",
    "transferbench_backbones",
    "transferbench_datasets",
    "transferbench_diagnostics",
    "transferbench_initializations",
    "transferbench_perturbations",
]

PROJECT = "transferbench"
"""The name of the pluggy project, of the entry-point group and of every hook's prefix."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def transferbench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Offer datasets::

    @hookimpl
    def transferbench_datasets():
        return [DatasetSpec(name="my-data", ...)]
    """


@hookspec
def transferbench_perturbations() -> Iterable[PerturbationSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Offer perturbations::

    @hookimpl
    def transferbench_perturbations():
        return [PerturbationSpec(name="my-perturbation", ...)]
    """


@hookspec
def transferbench_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Offer backbones::

    @hookimpl
    def transferbench_backbones():
        return [BackboneSpec(name="my-net", ...)]
    """


@hookspec
def transferbench_initializations() -> Iterable[InitializationSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Offer initializations::

    @hookimpl
    def transferbench_initializations():
        return [InitializationSpec(name="my-initialization", ...)]
    """


@hookspec
def transferbench_diagnostics() -> Iterable[DiagnosticSpec]:  # type: ignore[empty-body]  # a hookspec has no body
    """Offer diagnostics::

    @hookimpl
    def transferbench_diagnostics():
        return [DiagnosticSpec(name="my-diagnostic", ...)]
    """
