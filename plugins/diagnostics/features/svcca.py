"""SVCCA: the mean canonical correlation of the directions that explain 99% of the variance.

Source: Raghu et al. 2017, arXiv 1706.05806. Unlike CKA it weights all directions equally, and is
higher where similarity lies in many weak directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.features._canonical import (
    Subspace,
    canonical_correlations,
    subspace,
)
from transferbench_plugins.diagnostics.features._module_features import (
    FeatureParams,
    compare_modules,
)
from transferbench_plugins.diagnostics.features._similarity_report import similarity_report

__all__ = ["SVCCA", "SvccaParams"]


class SvccaParams(FeatureParams):
    """``variance``: the share explained by the directions that are compared."""

    variance: Annotated[float, Field(gt=0, le=1)] = 0.99


def measure(
    params: SvccaParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """SVCCA of every module of one body with every module of the other.

    Units: correlation in [0, 1]; about sqrt(K / N) for two unrelated sets of K directions over N
    images.
    Error: no interval over images; compare replicates.
    """
    yield from compare_modules(
        params,
        subjects,
        context,
        metric="svcca",
        unit="correlation",
        prepare=lambda features: subspace(features, params.variance),
        compare=_mean_correlation,
    )


def _mean_correlation(a: Subspace, b: Subspace) -> float:
    return float(canonical_correlations(a, b).mean())


SVCCA = DiagnosticSpec(
    name="svcca",
    version=1,
    summary="Similarity of features, module by module: mean canonical correlation after an SVD",
    source="Raghu et al. 2017, arXiv 1706.05806",
    license="Apache-2.0",
    params=SvccaParams,
    tiny={"images": 32},
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"svcca": 1},
    symmetric=frozenset({"svcca"}),
    report=similarity_report("svcca"),
)
