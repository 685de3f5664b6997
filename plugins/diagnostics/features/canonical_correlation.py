"""SVCCA and PWCCA: canonical correlations between the subspaces that two sets of features span.

Unlike CKA, SVCCA weights all directions equally, and is higher where similarity lies in many weak
directions; PWCCA weights them by how much of the features each accounts for.

Source: Raghu et al. 2017, arXiv 1706.05806 (SVCCA); Morcos, Raghu, Bengio 2018, arXiv 1806.05759
(PWCCA); Bjorck and Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3, for the computation from
orthonormal bases.

Shape letters: N images, D features, K and J dimensions of two subspaces, R = min(K, J).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, ReportPart, Subject
from transferbench_plugins.diagnostics.features._module_features import (
    FeatureParams,
    compare_modules,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PWCCA", "SVCCA", "SvccaParams"]

ROUNDING = 1.2e-7
"""Rounding of float32, the precision of features: smaller singular values are noise."""


class Subspace(NamedTuple):
    """Centred features (N, D) and an orthonormal basis (N, K) of their leading directions."""

    features: Tensor
    basis: Tensor


def _subspace(features: Tensor, variance: float = 1.0) -> Subspace:
    """The fewest principal directions that explain this share of the variance.

    Shapes: features (N, D), centred, float64.
    """
    import torch

    left, values, _ = torch.linalg.svd(features, full_matrices=False)
    rank = int((values > values[0] * max(features.shape) * ROUNDING).sum())
    shares = values[:rank].square().cumsum(0) / values[:rank].square().sum()
    # Rounding may leave the last share below 1: variance = 1 must give all directions.
    size = min(int((shares < variance).sum()) + 1, rank)
    return Subspace(features, left[:, :size])


class SvccaParams(FeatureParams):
    """``variance``: the share explained by the directions that are compared."""

    variance: Annotated[float, Field(gt=0, le=1)] = 0.99


def _measure_svcca(
    params: SvccaParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """SVCCA of every module of one body with every module of the other.

    Units: correlation in [0, 1]; about sqrt(K / N) for two unrelated sets of K directions over N
    images.
    Error: no interval over images; compare replicates.
    """

    def prepare(features: Tensor) -> Subspace:
        return _subspace(features, params.variance)

    return compare_modules(
        params, subjects, context, "svcca", "correlation", prepare, _mean_correlation
    )


def _measure_pwcca(
    params: FeatureParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """PWCCA of every module of one body with every module of the other.

    Units: correlation in [0, 1]; above 0 for unrelated features too.
    Error: no interval over images; compare replicates.
    """
    return compare_modules(
        params, subjects, context, "pwcca", "correlation", _subspace, _weighted_correlation
    )


def _mean_correlation(a: Subspace, b: Subspace) -> float:
    import torch

    return float(torch.linalg.svdvals(a.basis.T @ b.basis).clamp(max=1).mean())


def _weighted_correlation(a: Subspace, b: Subspace) -> float:
    """sum_i w_i rho_i / sum_i w_i with w_i = sum_j |h_i . x_j|: variate i, feature j.

    Variates and features are those of the network with fewer directions (the first if equal), as
    in the authors' code: its variates then span all of its features.
    """
    import torch

    smaller, larger = (a, b) if a.basis.shape[1] <= b.basis.shape[1] else (b, a)
    rotation, correlations, _ = torch.linalg.svd(
        smaller.basis.T @ larger.basis, full_matrices=False
    )
    variates_NR = smaller.basis @ rotation
    weights_R = (variates_NR.T @ smaller.features).abs().sum(1)
    return float((weights_R * correlations.clamp(max=1)).sum() / weights_R.sum())


SVCCA = DiagnosticSpec(
    name="svcca",
    version=1,
    summary="Similarity of features, module by module: mean canonical correlation after an SVD",
    source="Raghu et al. 2017, arXiv 1706.05806",
    license="Apache-2.0",
    params=SvccaParams,
    tiny={"images": 32},
    measure=_measure_svcca,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"svcca"}),
    ranges={"svcca": (0, 1)},
    needs=frozenset({"images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"svcca": 1},
    symmetric=frozenset({"svcca"}),
    report=ReportPart(
        build=f"{__package__}._similarity_report:similarity",
        metrics=frozenset({"svcca"}),
    ),
)

PWCCA = DiagnosticSpec(
    name="pwcca",
    version=1,
    summary="Similarity of features, module by module: projection-weighted canonical correlation",
    source="Morcos, Raghu, Bengio 2018, arXiv 1806.05759",
    license="Apache-2.0",
    params=FeatureParams,
    tiny={"images": 32},
    measure=_measure_pwcca,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"pwcca"}),
    ranges={"pwcca": (0, 1)},
    needs=frozenset({"images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"pwcca": 1},
    report=ReportPart(
        build=f"{__package__}._similarity_report:similarity",
        metrics=frozenset({"pwcca"}),
    ),
)
