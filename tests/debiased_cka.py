"""Debiased CKA of features in memory: the steps of the diagnostic ``cka`` in one call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from transferbench.analysis.cka import centre_, cka, hsic, squared_widths


def debiased_cka(
    features_a: Sequence[Tensor], features_b: Sequence[Tensor], bandwidth: float | None = None
) -> Tensor:
    """CKA (A, B) of all layers; ``bandwidth`` of an RBF kernel, None: the linear kernel."""
    a = [centre_(features.clone()) for features in features_a]
    b = a if features_b is features_a else [centre_(features.clone()) for features in features_b]
    widths = None
    if bandwidth is not None:
        widths = squared_widths(a, bandwidth), squared_widths(b, bandwidth)
    return cka([hsic(a, b, widths)])
