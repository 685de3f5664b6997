"""CKA: how similar two networks' features are, module by module, whatever basis they stand in.

Source: Kornblith et al. 2019, arXiv 1905.00414; Neyshabur et al. 2020, arXiv 2008.11687, Table 1,
which says neither kernel nor estimator nor sample: here the debiased estimator by default, over
all images at once. What depends on no choice is the order of pairs, not the absolute value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.features._module_features import (
    Body,
    FeatureParams,
    Missing,
    Modules,
    similarities,
    two_networks,
    whole,
)

if TYPE_CHECKING:
    from torch import Tensor

    from transferbench.analysis.cka import Hsic

__all__ = ["CKA", "CkaParams"]


Together: TypeAlias = "tuple[list[Tensor], list[Tensor]]"
"""Both networks' features of the same images, one (N, D) a module."""


class CkaParams(FeatureParams):
    """``bandwidth`` of the RBF kernel, as a fraction of the median distance.

    ``mode``: ``exact`` over all images, all features in memory; ``minibatch``: HSIC averaged over
    equal batches of ``batch`` images or a few more, then the ratio; it depends on the batch.
    ``pooled`` is off: the few averages of an early layer are little more than an image's
    brightness, alike in any two networks. At 224 px flattened features take some 25 MB an image
    for a ResNet-50: there choose fewer images, minibatches or pooling.
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

    Both see the test images of the first network. Units: 1 for equal features, 0 for unrelated
    ones; the debiased estimate of a small similarity may fall below 0.
    Error: none over images; replicates give it.
    """
    from transferbench.analysis.cka import LEAST_IMAGES, cka

    images = subjects[0].images("test", params.images)
    n = len(images)
    networks, parts = _networks(params, subjects, images, context)
    few = Missing(f"debiased CKA needs {LEAST_IMAGES} images or more, found {n}")
    if n < LEAST_IMAGES or not all(modules.names for modules in networks):
        yield from similarities("cka", "cka", n, networks, lambda *_: few)
        return
    hsics = list(_hsics(params, parts))
    values = cka(hsics).tolist()
    wrong_a, wrong_b = _wrong([h.own_a for h in hsics]), _wrong([h.own_b for h in hsics])

    def value_of(row: int, column: int) -> float | Missing:
        wrong = wrong_a[row] or wrong_b[column]
        return Missing(wrong) if wrong else float(values[row][column])

    yield from similarities("cka", "cka", n, networks, value_of)


def _networks(
    params: CkaParams, subjects: Sequence[Subject], images: Tensor, context: DiagnosticContext
) -> tuple[tuple[Body, Body], Iterable[Together]]:
    """Both networks, and their centred features: all at once, or batch by batch."""
    from transferbench.analysis.cka import centre_

    if params.mode == "exact":
        a, b = whole(params, subjects, images, context, centre_, "centred")
        return (a, b), [(a.features, b.features)]
    # Equal batches: a small last one would weigh as much as the others.
    parts: Sequence[Tensor] = images.tensor_split(max(1, len(images) // params.batch))
    networks = two_networks(params, subjects, parts)
    return networks, _in_step(*networks)


def _in_step(a: Modules, b: Modules) -> Iterator[Together]:
    """The centred features of each batch; one list for one network."""
    from transferbench.analysis.cka import centre_

    for part in a.features:
        centred = [centre_(features) for features in part]
        other = centred if b is a else [centre_(features) for features in next(b.features)]
        yield centred, other


def _hsics(params: CkaParams, parts: Iterable[Together]) -> Iterator[Hsic]:
    """The HSIC of each part of the images; the RBF kernels keep the widths of the first."""
    from transferbench.analysis.cka import hsic, squared_widths

    widths = None
    for a, b in parts:
        if params.kernel == "rbf" and widths is None:
            widths = squared_widths(a, params.bandwidth), squared_widths(b, params.bandwidth)
        yield hsic(a, b, widths)


def _wrong(own: list[Tensor]) -> list[str | None]:
    """Why a module has no CKA, from its HSIC with itself in each part."""
    import torch

    total = torch.stack(own).sum(0)
    return [
        "the features are not finite: diverged"
        if not finite
        else (None if varies else "the features do not vary between images")
        for finite, varies in zip(total.isfinite().tolist(), (total > 0).tolist(), strict=True)
    ]


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
    needs=frozenset({"images"}),
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"cka": 1},
    symmetric=frozenset({"cka"}),
    answers_within=1e-5,
)
