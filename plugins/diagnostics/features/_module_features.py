"""Features of two networks' modules on the same images, for the similarity diagnostics.

Shape letters: N images, D features of a module.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, Params, Subject
from transferbench_plugins.diagnostics._images import image_digest
from transferbench_plugins.diagnostics._measurement import measurement

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BodyFeatures",
    "FeatureBatches",
    "FeatureParams",
    "Undefined",
    "compare_modules",
    "feature_batches",
    "of_both",
    "prepared_features",
    "similarity_measurements",
]

BATCH_SIZE = 128

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FeatureParams(Params):
    """``images``: maximum number of test images, the same for both networks.

    ``pooled``: average features over spatial positions or tokens; otherwise flatten them.
    ``precision`` of the forward pass; pooled features are always float32.
    """

    images: Annotated[int, Field(ge=4)] = 2048
    pooled: bool = True
    precision: Literal["f32", "bf16"] = "f32"


class BodyFeatures(NamedTuple, Generic[T_co]):
    """Features of the modules of a network's body.

    ``names``: modules with an output, in order. ``missing``: module -> why it has none.
    """

    names: list[str]
    features: T_co
    missing: Mapping[str, str]


FeatureBatches: TypeAlias = "BodyFeatures[Iterator[list[Tensor]]]"
"""For each batch of images one tensor (N, D) per module."""


class Undefined(NamedTuple):
    """The reason why a similarity has no value."""

    reason: str


def of_both(subjects: Sequence[Subject], compute: Callable[[Subject], T]) -> tuple[T, T]:
    """``compute`` for both networks; the same object twice if they are the same network."""
    first, second = subjects[:2]
    a = compute(first)
    return a, a if second.job == first.job else compute(second)


def feature_batches(
    params: FeatureParams, batches: Sequence[Tensor], subject: Subject
) -> FeatureBatches:
    """The features of a network's body on each batch of images."""
    import torch

    from transferbench.networks.features import module_features, output_layers

    net = subject.network("final")
    layers = output_layers(net, subject.modules, batches[0])
    precision = torch.bfloat16 if params.precision == "bf16" else torch.float32
    features = module_features(
        net, layers.paths, batches, pooled=params.pooled, precision=precision
    )
    return BodyFeatures(list(layers.paths), features, layers.missing)


def prepared_features(
    params: FeatureParams,
    subjects: Sequence[Subject],
    images: Tensor,
    context: DiagnosticContext,
    prepare: Callable[[Tensor], T],
    prepare_key: Hashable,
) -> tuple[BodyFeatures[list[T]], BodyFeatures[list[T]]]:
    """``prepare`` applied to the features (N, D) of each module of both networks.

    Cached per network, for all pairs that it is in; ``prepare_key`` identifies ``prepare``.
    """
    key = prepare_key, params.pooled, params.precision, image_digest(images)

    def cached(subject: Subject) -> BodyFeatures[list[T]]:
        compute = partial(_prepared_features, params, subject, images, prepare)
        return context.once((*key, subject.job), compute)

    return of_both(subjects, cached)


def _prepared_features(
    params: FeatureParams, subject: Subject, images: Tensor, prepare: Callable[[Tensor], T]
) -> BodyFeatures[list[T]]:
    import torch

    names, features, missing = feature_batches(params, torch.split(images, BATCH_SIZE), subject)
    batches = [next(features)]
    _refuse_beyond_memory(batches[0], len(images))
    batches += features
    # Batches of one module are freed before the next module is concatenated: they are large.
    tensors = (torch.cat([batch.pop(0) for batch in batches]) for _ in names)
    return BodyFeatures(names, [prepare(tensor) for tensor in tensors], missing)


def _refuse_beyond_memory(batch: Sequence[Tensor], n: int) -> None:
    """Refuse more features than fit, from those of the first batch."""
    from transferbench.analysis.memory import refuse_beyond_memory

    sizes = [features.nbytes / len(features) * n for features in batch]
    if sizes:
        refuse_beyond_memory(
            # Those of one module are concatenated while all are in memory.
            sum(sizes) + max(sizes) - sum(features.nbytes for features in batch),
            batch[0].device,
            f"the features of {n} images",
            "give the diagnostic fewer images, pooled: true or (cka) mode: minibatch",
        )


def similarity_measurements(
    metric: str,
    unit: str,
    n: int,
    networks: tuple[BodyFeatures[object], BodyFeatures[object]],
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
        number, flag = (None, value.reason) if isinstance(value, Undefined) else (value, None)
        coordinates = {"module": module, "other_module": other}
        yield measurement(metric, number, unit, n, coordinates, flag=flag)


def compare_modules(
    params: FeatureParams,
    subjects: Sequence[Subject],
    context: DiagnosticContext,
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
        return b if isinstance(b, Undefined) else compare(a, b)

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
