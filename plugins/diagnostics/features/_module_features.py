"""Features of two networks' modules on the same images, for the similarity diagnostics.

Shape letters: N images, D features of a module.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, Params, Subject
from transferbench_plugins.diagnostics._image_digest import image_digest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BodyModules",
    "FeatureBatches",
    "FeatureParams",
    "PreparedFeatures",
    "Undefined",
    "compare_modules",
    "feature_batches",
    "prepared_features",
    "similarity_measurements",
]

BATCH_SIZE = 128

T = TypeVar("T")


class FeatureParams(Params):
    """``images``: maximum number of test images, the same for both networks.

    ``pooled``: average features over spatial positions or tokens; otherwise flatten them.
    ``precision`` of the forward pass; pooled features are always float32.
    """

    images: Annotated[int, Field(ge=4)] = 2048
    pooled: bool = True
    precision: Literal["f32", "bf16"] = "f32"


class BodyModules(Protocol):
    """The modules of a network's body that have an output; ``missing``: reason by module."""

    @property
    def names(self) -> list[str]: ...
    @property
    def missing(self) -> Mapping[str, str]: ...


class FeatureBatches(NamedTuple):
    """The features of a network's body, one list of tensors (N, D) per batch of images.

    ``names``: modules with an output, in order. ``missing``: module -> why it has none.
    """

    names: list[str]
    features: Iterator[list[Tensor]]
    missing: Mapping[str, str]


class PreparedFeatures(NamedTuple, Generic[T]):
    """The features of a network's body on all images, preprocessed; one value per module."""

    names: list[str]
    features: list[T]
    missing: Mapping[str, str]


class Undefined(NamedTuple):
    """The reason why a similarity has no value."""

    reason: str


def feature_batches(
    params: FeatureParams, subjects: Sequence[Subject], batches: Sequence[Tensor]
) -> tuple[FeatureBatches, FeatureBatches]:
    """Features of both networks; the same object twice if they are the same network."""
    first, second = subjects[:2]
    a = _feature_batches(params, first, batches)
    return a, a if second.job == first.job else _feature_batches(params, second, batches)


def _feature_batches(
    params: FeatureParams, subject: Subject, batches: Sequence[Tensor]
) -> FeatureBatches:
    import torch

    from transferbench.networks.features import module_features, output_layers

    net = subject.network("final")
    layers = output_layers(net, subject.modules, batches[0])
    precision = torch.bfloat16 if params.precision == "bf16" else torch.float32
    features = module_features(
        net, layers.paths, batches, pooled=params.pooled, precision=precision
    )
    return FeatureBatches(list(layers.paths), features, layers.missing)


def prepared_features(
    params: FeatureParams,
    subjects: Sequence[Subject],
    images: Tensor,
    context: DiagnosticContext,
    prepare: Callable[[Tensor], T],
    prepare_key: Hashable,
) -> tuple[PreparedFeatures[T], PreparedFeatures[T]]:
    """``prepare`` applied to the features (N, D) of each module of both networks.

    Cached per network, for all pairs that it is in; ``prepare_key`` identifies ``prepare``.
    """
    key = prepare_key, params.pooled, params.precision, image_digest(images)

    def cached(subject: Subject) -> PreparedFeatures[T]:
        compute = partial(_prepared_features, params, subject, images, prepare)
        return context.once((*key, subject.job), compute)

    first, second = subjects[:2]
    a = cached(first)
    return a, a if second.job == first.job else cached(second)


def _prepared_features(
    params: FeatureParams, subject: Subject, images: Tensor, prepare: Callable[[Tensor], T]
) -> PreparedFeatures[T]:
    import torch

    modules = _feature_batches(params, subject, torch.split(images, BATCH_SIZE))
    batches = list(modules.features)
    # Batches of one module are freed before the next module is concatenated: they are large.
    tensors = (torch.cat([batch.pop(0) for batch in batches]) for _ in modules.names)
    prepared = [prepare(features) for features in tensors]
    return PreparedFeatures(modules.names, prepared, modules.missing)


def similarity_measurements(
    metric: str,
    unit: str,
    n: int,
    networks: tuple[BodyModules, BodyModules],
    similarity: Callable[[int, int], float | Undefined],
) -> Iterator[Measurement]:
    """A measurement for every pair of modules; ``similarity`` takes their indices in ``names``."""
    a, b = networks
    rows, columns = ([*modules.names, *modules.missing] for modules in networks)
    for module, other in product(rows, columns):
        value: float | Undefined
        if reason := a.missing.get(module) or b.missing.get(other):
            value = Undefined(reason)
        else:
            value = similarity(a.names.index(module), b.names.index(other))
        yield Measurement(
            metric=metric,
            unit=unit,
            n=n,
            coordinates={"module": module, "other_module": other},
            value=None if isinstance(value, Undefined) else value,
            flag=value.reason if isinstance(value, Undefined) else None,
        )


def compare_modules(
    params: FeatureParams,
    subjects: Sequence[Subject],
    context: DiagnosticContext,
    *,
    metric: str,
    unit: str,
    prepare: Callable[[Tensor], T],
    compare: Callable[[T, T], float],
) -> Iterator[Measurement]:
    """``compare`` for every pair of modules; ``prepare`` takes centred float64 features.

    Comparisons of subspaces need more images than features: with fewer, any two subspaces
    overlap, and the value is undefined.
    """
    images = subjects[0].images("test", params.images)
    key = metric, params.model_dump_json()
    networks = prepared_features(
        params, subjects, images, context, partial(_prepare_checked, prepare), key
    )

    def similarity(row: int, column: int) -> float | Undefined:
        a, b = networks[0].features[row], networks[1].features[column]
        if isinstance(a, Undefined):
            return a
        if isinstance(b, Undefined):
            return b
        return compare(a, b)

    yield from similarity_measurements(metric, unit, len(images), networks, similarity)


def _prepare_checked(prepare: Callable[[Tensor], T], features: Tensor) -> T | Undefined:
    from transferbench.analysis.cka import centre_

    n, size = features.shape
    if n <= size:
        return Undefined(f"{size} features need more than {size} images, found {n}")
    centred = centre_(features).double()
    if not bool(centred.isfinite().all()):
        return Undefined("the features are not finite: diverged")
    if not bool(centred.any()):
        return Undefined("the features do not vary between images")
    return prepare(centred)
