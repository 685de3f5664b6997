"""P-values of weighted sums: the smallest error at which their interval excludes 0.

Shape letters: S summands; ``...``: sums.
"""

from __future__ import annotations

import numpy as np

from transferbench.statistics.p_values import LEAST
from transferbench.statistics.reaches import Moments, quantile_factor, reach

__all__ = ["excluding_errors"]

STEPS = 100
EXACT = 1e-9
"""Of the distance to 0, the error with which an interval ends there."""


def excluding_errors(
    weight: np.ndarray,
    ends: np.ndarray,
    wide: np.ndarray,
    moments: Moments,
    difference: np.ndarray,
    spread: np.ndarray,
    n: int,
) -> np.ndarray:
    """The smallest (1 - level) / 2 at which the interval of ``weighted_sum`` lies above 0.

    ``wide``: whether a summand has no range. ``difference`` and ``spread``: the sum, at least 0,
    and its deviation, above 0. The cut at the range of the sum is left out: it never excludes 0
    unless 0 is out of range.
    Shapes: weight (..., S), ends (2, ..., S), the rest and the result (...).
    Error: 1e-7, relative; at least ``LEAST``, since far in its tail a p-value would vanish beside
    1. Source: Casella and Berger 2002, 9.2.1, for the inversion.
    """
    from scipy.special import stdtr  # 0.14 s: too long for --help

    square_S = np.square(weight * moments.deviation)
    total = square_S.sum(axis=-1)
    total = np.where(total > 0, total, 1.0)
    factor = quantile_factor(wide, n, square_S.max(axis=-1) / total)
    scale = _scale_to_zero(weight, ends, moments, difference, np.sqrt(total))
    quantile = scale * np.sqrt(n * total) / (factor * spread)
    p: np.ndarray = np.maximum(stdtr(n - 1, -quantile), LEAST)
    return p


def _scale_to_zero(
    weight: np.ndarray, ends: np.ndarray, moments: Moments, difference: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """The scale of the errors with which a sum reaches 0, by the Illinois method.

    Without asymmetry it is the difference in units of the deviation; with it, less.
    Source: Dowell and Jarratt 1971, doi:10.1007/BF01934364.
    """
    scale: np.ndarray = difference / own
    excess = reach(weight, ends, moments, scale) - difference
    other, excess_of_other = np.zeros_like(scale), -difference
    for _ in range(STEPS):
        if np.all(np.abs(excess) <= EXACT * difference):
            break
        gap = excess - excess_of_other
        gap = np.where(gap == 0, 1.0, gap)
        middle = (other * excess - scale * excess_of_other) / gap
        excess_of_middle = reach(weight, ends, moments, middle) - difference
        crossed = excess_of_middle * excess < 0
        other = np.where(crossed, scale, other)
        excess_of_other = np.where(crossed, excess, excess_of_other / 2)
        scale, excess = middle, excess_of_middle
    return scale
