"""The features that two networks' modules give the same images, for diagnostics of similarity.

Shape letters: N images, D features of a module.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, Params, Subject
from transferbench_plugins.diagnostics._image_digest import image_digest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Body",
    "FeatureParams",
    "Missing",
    "Modules",
    "Whole",
    "compare_each",
    "similarities",
    "two_networks",
    "whole",
]

BATCH = 128
"""Images of a forward pass where all of them are measured together."""

T = TypeVar("T")


class FeatureParams(Params):
    """``images``: at most so many of the test subset, the same for both networks.

    ``pooled``: features averaged over places or tokens; else every value is one.
    ``precision`` of the forward pass; pooled features are float32 either way.
    """

    images: Annotated[int, Field(ge=4)] = 2048
    pooled: bool = True
    precision: Literal["f32", "bf16"] = "f32"


class Body(Protocol):
    """The modules of a network's body that have an output, and why the others have none."""

    @property
    def names(self) -> list[str]: ...
    @property
    def missing(self) -> Mapping[str, str]: ...


class Modules(NamedTuple):
    """One network: its body's modules in order, and their features for each part of the images.

    ``features``: an iterator of lists, one tensor (N, D) a module that has an output.
    ``missing``: module -> why it has none.
    """

    names: list[str]
    features: Iterator[list[Tensor]]
    missing: Mapping[str, str]


class Whole(NamedTuple, Generic[T]):
    """One network: its body's modules in order, and what was made of each one's features."""

    names: list[str]
    features: list[T]
    missing: Mapping[str, str]


class Missing(NamedTuple):
    """Why there is no number."""

    reason: str


def two_networks(
    params: FeatureParams, subjects: Sequence[Subject], parts: Sequence[Tensor]
) -> tuple[Modules, Modules]:
    """Both networks' features of the same images; the one object for a network with itself."""
    first, second = subjects[:2]
    a = _modules(params, first, parts)
    return a, a if second.job == first.job else _modules(params, second, parts)


def _modules(params: FeatureParams, subject: Subject, parts: Sequence[Tensor]) -> Modules:
    import torch

    from transferbench.networks.features import module_features, output_layers

    net = subject.network("final")
    layers = output_layers(net, subject.modules, parts[0])
    precision = torch.bfloat16 if params.precision == "bf16" else torch.float32
    features = module_features(net, layers.paths, parts, pooled=params.pooled, precision=precision)
    return Modules(list(layers.paths), features, layers.missing)


def _in_batches(images: Tensor) -> Sequence[Tensor]:
    """The images in the order given, as many as a forward pass takes."""
    import torch

    parts: Sequence[Tensor] = torch.split(images, BATCH)
    return parts


def whole(
    params: FeatureParams,
    subjects: Sequence[Subject],
    images: Tensor,
    context: DiagnosticContext,
    prepare: Callable[[Tensor], T],
    made: Hashable,
) -> tuple[Whole[T], Whole[T]]:
    """``prepare`` of both networks' features of all images, one (N, D) a module.

    Computed once for a network however many pairs it is in; ``made`` names what ``prepare`` does.
    """
    seen = made, params.pooled, params.precision, image_digest(images)

    def of(subject: Subject) -> Whole[T]:
        return context.once((*seen, subject.job), lambda: _whole(params, subject, images, prepare))

    first, second = subjects[:2]
    a = of(first)
    return a, a if second.job == first.job else of(second)


def _whole(
    params: FeatureParams, subject: Subject, images: Tensor, prepare: Callable[[Tensor], T]
) -> Whole[T]:
    import torch

    modules = _modules(params, subject, _in_batches(images))
    parts = list(modules.features)
    # A module's parts are let go of before the next is joined: they are large.
    joined = (torch.cat([part.pop(0) for part in parts]) for _ in modules.names)
    return Whole(modules.names, [prepare(features) for features in joined], modules.missing)


def similarities(
    metric: str,
    unit: str,
    n: int,
    networks: tuple[Body, Body],
    value_of: Callable[[int, int], float | Missing],
) -> Iterator[Measurement]:
    """A measurement for every pair of modules; ``value_of`` takes their places in ``names``."""
    a, b = networks
    rows, columns = ([*modules.names, *modules.missing] for modules in networks)
    for module, other in product(rows, columns):
        found: float | Missing
        if reason := a.missing.get(module) or b.missing.get(other):
            found = Missing(reason)
        else:
            found = value_of(a.names.index(module), b.names.index(other))
        yield Measurement(
            metric=metric,
            unit=unit,
            n=n,
            coordinates={"module": module, "other_module": other},
            value=None if isinstance(found, Missing) else found,
            flag=found.reason if isinstance(found, Missing) else None,
        )


def compare_each(
    params: FeatureParams,
    subjects: Sequence[Subject],
    context: DiagnosticContext,
    *,
    metric: str,
    unit: str,
    prepare: Callable[[Tensor], T],
    compare: Callable[[T, T], float],
) -> Iterator[Measurement]:
    """``compare`` every pair of modules, each prepared once from float64, centred features.

    Measures of subspaces need more images than features, else any two fit each other: with fewer
    a pair has no number.
    """
    images = subjects[0].images("test", params.images)
    made = metric, params.model_dump_json()
    networks = whole(params, subjects, images, context, lambda x: _prepared(x, prepare), made)

    def value_of(row: int, column: int) -> float | Missing:
        one, other = networks[0].features[row], networks[1].features[column]
        if isinstance(one, Missing):
            return one
        if isinstance(other, Missing):
            return other
        return compare(one, other)

    yield from similarities(metric, unit, len(images), networks, value_of)


def _prepared(features: Tensor, prepare: Callable[[Tensor], T]) -> T | Missing:
    from transferbench.analysis.cka import centre_

    n, size = features.shape
    if n <= size:
        return Missing(f"{size} features need more than {size} images, found {n}")
    centred = centre_(features).double()
    if not bool(centred.isfinite().all()):
        return Missing("the features are not finite: diverged")
    if not bool(centred.any()):
        return Missing("the features do not vary between images")
    return prepare(centred)
