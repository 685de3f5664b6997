"""Procrustes distance: distance of two sets of features after the best rotation.

Source: Ding, Denain, Steinhardt 2021, arXiv 2108.01661, which finds that it detects functionally
relevant differences that CKA misses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, ReportPart, Subject
from transferbench_plugins.diagnostics.features._module_features import (
    FeatureParams,
    compare_modules,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PROCRUSTES"]


def measure(
    params: FeatureParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The distance of every module of one body to every module of the other.

    Units: squared distance of features scaled to norm 1, in [0, 2]: 0 for features equal up to
    rotation and scale, 2 for uncorrelated ones.
    Error: no interval over images; compare replicates.
    """
    return compare_modules(
        params, subjects, context, "procrustes", "squared distance", _normalised, _distance
    )


def _normalised(features: Tensor) -> Tensor:
    """Centred features (N, D), scaled to Frobenius norm 1."""
    normalised: Tensor = features / features.norm()
    return normalised


def _distance(a: Tensor, b: Tensor) -> float:
    """|A|^2 + |B|^2 - 2 |A'B|_* for norms of 1; rounding below 0 is clipped."""
    import torch

    return max(0.0, 2 - 2 * float(torch.linalg.svdvals(a.T @ b).sum()))


PROCRUSTES = DiagnosticSpec(
    name="procrustes",
    version=1,
    summary="Distance of features, module by module, after the best rotation and scaling",
    source="Ding, Denain, Steinhardt 2021, arXiv 2108.01661",
    license="Apache-2.0",
    params=FeatureParams,
    tiny={"images": 32},
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"procrustes"}),
    ranges={"procrustes": (0, math.inf)},
    needs=frozenset({"images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    limit=lambda params: params.images,
    identical={"procrustes": 0},
    symmetric=frozenset({"procrustes"}),
    report=ReportPart(
        build=f"{__package__}._similarity_report:similarity",
        metrics=frozenset({"procrustes"}),
    ),
)
