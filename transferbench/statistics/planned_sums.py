"""The bounds that a planned weighted sum of arms will have: samples that are judged as it is.

An interval is wider than Student-t's next to the end of a range, and where one arm has most of the
variance. So samples are drawn as a pilot measured the arms, and each gets the bounds of
``weighted_sum``.

Shape letters: D draws, F degrees of freedom, S arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transferbench.statistics.reaches import Moments, Range, range_of_sum, reaches

__all__ = ["PlannedArm", "simulated_bounds"]

DRAWS = 20_000
"""Simulated samples; the standard error of a power of 90% is 0.2%."""


class PlannedArm(NamedTuple):
    """The mean and the standard deviation of an arm's values, and its weight in the sum."""

    weight: float
    range: Range | None
    mean: float
    deviation: float


def simulated_bounds(
    arms: Sequence[PlannedArm],
    effect: float,
    deviation: float,
    n: int,
    seed: int,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of the sum in samples of ``n`` normal replicates, or source networks.

    ``effect`` and ``deviation`` are those of the sum. Arms of a replicate have one correlation,
    that with which their deviations make that of the sum.

    Shapes: (D,) both. Error: binomial, of ``DRAWS`` samples.
    Source: Bartlett 1933 for the covariance of a sample.
    """
    rng = np.random.default_rng(seed)
    weight_S, ranges = np.array([arm.weight for arm in arms]), [arm.range for arm in arms]
    root_SS = np.linalg.cholesky(_covariance(arms, deviation))
    sample_DSF = root_SS @ _bartlett(rng, len(arms), n - 1) / math.sqrt(n - 1)
    own_DS = np.sqrt(np.square(sample_DSF).sum(axis=2)) / np.abs(weight_S)
    spread_D = np.sqrt(np.square(sample_DSF.sum(axis=1)).sum(axis=1))
    error_DS = rng.standard_normal((DRAWS, len(arms))) @ root_SS.T / math.sqrt(n)
    value_DS = np.array([arm.mean for arm in arms]) + error_DS / weight_S
    value_D = effect + error_DS.sum(axis=1)
    moments = Moments(value_DS, own_DS, np.empty(0))
    below_D, above_D = reaches(weight_S, ranges, moments, spread_D, n, level)
    least, most = range_of_sum(weight_S.tolist(), ranges)
    return np.maximum(value_D - below_D, least), np.minimum(value_D + above_D, most)


def _covariance(arms: Sequence[PlannedArm], deviation: float) -> np.ndarray:
    """Of the weighted arms, whose sum has this standard deviation. Shapes: (S, S)."""
    signed_S = np.array([arm.weight * arm.deviation for arm in arms])
    own = float(signed_S @ signed_S)
    shared = float(signed_S.sum() ** 2) - own
    correlation = (deviation**2 - own) / shared if shared else 0.0
    # Of arms that are all but equal in each replicate the root would be singular.
    least = -1 / (len(arms) - 1) if len(arms) > 1 else -1.0
    correlation = min(max(correlation, least + 1e-6), 1 - 1e-6)
    covariance_SS = correlation * np.outer(signed_S, signed_S)
    np.fill_diagonal(covariance_SS, signed_S**2)
    total: float = covariance_SS.sum()
    scaled: np.ndarray = covariance_SS * (deviation**2 / total)
    return scaled


def _bartlett(rng: np.random.Generator, size: int, freedom: int) -> np.ndarray:
    """Factors A of Wishart matrices A A^T of the identity. Shapes: (D, S, min(S, freedom))."""
    columns = min(size, freedom)
    factor_DSF = np.tril(rng.standard_normal((DRAWS, size, columns)))
    for i in range(columns):
        factor_DSF[:, i, i] = np.sqrt(rng.chisquare(freedom - i, DRAWS))
    return factor_DSF
