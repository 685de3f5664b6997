"""Random orthonormal directions from the uniform (Haar) distribution."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

__all__ = ["orthonormal"]


def orthonormal(
    size: int, count: int, generator: Generator, beside: Tensor | None = None
) -> Tensor:
    """``count`` orthonormal vectors of ``size`` dimensions, orthogonal to those of ``beside``.

    Shapes: float64 (size, count), at most size vectors in total; beside (size, any).
    Error: orthonormal to 1e-12.
    Source: Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050: QR of a Gaussian matrix is Haar
    only with the sign of R's diagonal fixed.
    """
    draws = torch.randn(size, count, generator=generator, dtype=torch.float64)
    if beside is not None:
        # Twice, to remove the rounding error of the first projection.
        for _ in range(2):
            draws = draws - beside @ (beside.T @ draws)
    q, r = torch.linalg.qr(draws)
    signed: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return signed
