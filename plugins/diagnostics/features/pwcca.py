"""PWCCA: canonical correlations weighted by how much of the features each accounts for.

Source: Morcos, Raghu, Bengio 2018, arXiv 1806.05759.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.features._canonical import (
    Subspace,
    canonical_variates,
    subspace,
)
from transferbench_plugins.diagnostics.features._module_features import (
    FeatureParams,
    compare_modules,
)
from transferbench_plugins.diagnostics.features._similarity_report import similarity_report

__all__ = ["PWCCA"]


def measure(
    params: FeatureParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """PWCCA of every module of one body with every module of the other.

    Units: correlation in [0, 1]; above 0 for unrelated features too.
    Error: no interval over images; compare replicates.
    """
    yield from compare_modules(
        params,
        subjects,
        context,
        metric="pwcca",
        unit="correlation",
        prepare=subspace,
        compare=_weighted_correlation,
    )


def _weighted_correlation(a: Subspace, b: Subspace) -> float:
    """sum_i w_i rho_i / sum_i w_i with w_i = sum_j |h_i . x_j|: variate i, feature j.

    Variates and features are those of the network with fewer directions (the first if equal), as
    in the authors' code: its variates then span all of its features.
    """
    smaller, larger = (a, b) if a.basis.shape[1] <= b.basis.shape[1] else (b, a)
    correlations, variates = canonical_variates(smaller, larger)
    weights = (variates.T @ smaller.features).abs().sum(1)
    return float((weights * correlations).sum() / weights.sum())


PWCCA = DiagnosticSpec(
    name="pwcca",
    version=1,
    summary="Similarity of features, module by module: projection-weighted canonical correlation",
    source="Morcos, Raghu, Bengio 2018, arXiv 1806.05759",
    license="Apache-2.0",
    params=FeatureParams,
    tiny={"images": 32},
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"pwcca": 1},
    report=similarity_report("pwcca"),
)
