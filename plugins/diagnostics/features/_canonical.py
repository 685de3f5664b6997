"""Canonical correlations between the subspaces that two sets of features span.

Source: Hotelling 1936; Bjorck and Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3, for their
computation from orthonormal bases.

Shape letters: N images, D features, K and J dimensions of two subspaces, R = min(K, J).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Subspace", "canonical_correlations", "canonical_variates", "subspace"]

ROUNDING = 1.2e-7
"""Rounding of float32, the precision of features: smaller singular values are noise."""


class Subspace(NamedTuple):
    """Centred features (N, D) and an orthonormal basis (N, K) of their leading directions."""

    features: Tensor
    basis: Tensor


def subspace(features: Tensor, variance: float = 1.0) -> Subspace:
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


def canonical_correlations(a: Subspace, b: Subspace) -> Tensor:
    """Canonical correlations in [0, 1], descending: (R,)."""
    import torch

    correlations: Tensor = torch.linalg.svdvals(a.basis.T @ b.basis)
    return correlations.clamp(max=1)


def canonical_variates(a: Subspace, b: Subspace) -> tuple[Tensor, Tensor]:
    """The correlations (R,) and the canonical variates of ``a``, orthonormal (N, R)."""
    import torch

    rotation, correlations, _ = torch.linalg.svd(a.basis.T @ b.basis, full_matrices=False)
    return correlations.clamp(max=1), a.basis @ rotation
