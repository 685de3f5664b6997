"""CKA: similarity of two networks' features, module by module, invariant to rotation and scale.

Source: Kornblith et al. 2019, arXiv 1905.00414; Neyshabur et al. 2020, arXiv 2008.11687, Table 1,
which does not specify kernel, estimator or sample. The default here is the debiased estimator over
all images. Interpret the order of pairs: absolute values depend on these choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, ReportPart, Subject
from transferbench_plugins.diagnostics.features._module_features import (
    BodyFeatures,
    FeatureBatches,
    FeatureParams,
    Undefined,
    feature_batches,
    of_both,
    prepared_features,
    similarity_measurements,
)

if TYPE_CHECKING:
    from torch import Tensor

    from transferbench.analysis.cka import Hsic

__all__ = ["CKA", "CkaParams"]

FeaturePair: TypeAlias = "tuple[list[Tensor], list[Tensor]]"
"""Both networks' features of the same images, one (N, D) per module."""


class CkaParams(FeatureParams):
    """``bandwidth`` of the RBF kernel, as a fraction of the median distance.

    ``mode``: ``exact`` over all images, with all features in memory; ``minibatch``: HSIC averaged
    over equal batches of at least ``batch`` images before the ratio is taken, so that values
    depend on the batch size.
    ``pooled`` is off by default: the few channel means of an early layer mostly encode brightness,
    which is similar in any two networks. Flattened features of a ResNet-50 at 224 px take about
    25 MB per image: use fewer images, minibatches or pooling there.
    """

    images: Annotated[int, Field(ge=4)] = 1024
    pooled: bool = False
    kernel: Literal["linear", "rbf"] = "linear"
    bandwidth: Annotated[float, Field(gt=0)] = 1.0
    mode: Literal["exact", "minibatch"] = "exact"
    batch: Annotated[int, Field(ge=4)] = 256


def measure(
    params: CkaParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Debiased CKA of every module of one body with every module of the other.

    Both networks are run on the test images of the first.
    Units: 1 for equal features, 0 for unrelated ones; debiased estimates may be negative.
    Error: no interval over images; compare replicates.
    """
    import torch

    from transferbench.analysis.cka import MIN_IMAGES, cka

    images = subjects[0].images("test", params.images)
    n = len(images)
    networks, batches = _networks(params, subjects, images, context)
    too_few = Undefined(f"debiased CKA needs {MIN_IMAGES} images or more, found {n}")
    if n < MIN_IMAGES or not all(modules.names for modules in networks):
        yield from similarity_measurements("cka", "cka", n, networks, lambda *_: too_few)
        return
    hsics = list(_hsics(params, batches))
    values = cka(hsics).tolist()
    _, own_a, own_b = (torch.stack(parts).sum(0).tolist() for parts in zip(*hsics, strict=True))

    def similarity(row: int, column: int) -> float | Undefined:
        reason = _undefined_reason(own_a[row]) or _undefined_reason(own_b[column])
        return Undefined(reason) if reason else float(values[row][column])

    yield from similarity_measurements("cka", "cka", n, networks, similarity)


def _networks(
    params: CkaParams, subjects: Sequence[Subject], images: Tensor, context: DiagnosticContext
) -> tuple[tuple[BodyFeatures[object], BodyFeatures[object]], Iterable[FeaturePair]]:
    """Both networks, and their centred features: one batch in exact mode."""
    from transferbench.analysis.cka import centre_

    if params.mode == "exact":
        a, b = prepared_features(params, subjects, images, context, centre_, "centred")
        return (a, b), [(a.features, b.features)]
    # Equal batches: a small last batch would have the same weight as the rest.
    batches: Sequence[Tensor] = images.tensor_split(max(1, len(images) // params.batch))
    networks = of_both(subjects, partial(feature_batches, params, batches))
    return networks, _paired_batches(*networks)


def _paired_batches(a: FeatureBatches, b: FeatureBatches) -> Iterator[FeaturePair]:
    """The centred features of each batch; the same list twice if ``b`` is ``a``."""
    from transferbench.analysis.cka import centre_

    for batch in a.features:
        centred_a = [centre_(features) for features in batch]
        centred_b = centred_a if b is a else [centre_(features) for features in next(b.features)]
        yield centred_a, centred_b


def _hsics(params: CkaParams, batches: Iterable[FeaturePair]) -> Iterator[Hsic]:
    """The HSIC of each batch; RBF kernels keep the widths of the first batch."""
    from transferbench.analysis.cka import hsic, squared_widths

    widths = None
    for a, b in batches:
        if params.kernel == "rbf" and widths is None:
            widths = squared_widths(a, params.bandwidth), squared_widths(b, params.bandwidth)
        yield hsic(a, b, widths)


def _undefined_reason(own_hsic: float) -> str | None:
    """Why a module with this HSIC with itself has no CKA; None if it has."""
    if not math.isfinite(own_hsic):
        return "the features are not finite: diverged"
    return None if own_hsic > 0 else "the features do not vary between images"


CKA = DiagnosticSpec(
    name="cka",
    version=1,
    summary="Similarity of features, module by module: debiased CKA, linear or RBF",
    source="Kornblith et al. 2019, arXiv 1905.00414; Neyshabur et al. 2020, Table 1",
    license="Apache-2.0",
    params=CkaParams,
    tiny={"images": 16},
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"cka"}),
    # Debiased: the cosine of an inner product that may be negative.
    ranges={"cka": (-1, 1)},
    needs=frozenset({"images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"cka": 1},
    symmetric=frozenset({"cka"}),
    answers_within=1e-5,
    report=ReportPart(
        build=f"{__package__}._similarity_report:similarity",
        metrics=frozenset({"cka"}),
    ),
)
