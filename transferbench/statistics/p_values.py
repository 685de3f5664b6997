"""P-values by inversion: the smallest error level at which an interval still decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["LEAST", "holm", "least_error"]

LEAST = 1e-8
"""The smallest p-value; below it, quantiles of 1 - p lose their digits."""
HALVINGS = 28
"""They bring the logarithm of a p-value within 1e-7."""


def least_error(decides: Callable[[float], bool]) -> float:
    """The smallest 1 - level at which an interval decides, from ``LEAST`` to 1.

    ``decides``: of a level; intervals of a higher level contain those of a lower one. For an
    interval by Student-t that lies above a threshold, it is the two-sided p-value of the t-test.
    Error: 1e-7, relative. Source: Casella and Berger 2002, 9.2.1, for the inversion.
    """
    if not decides(0.0):
        return 1.0
    if decides(1 - LEAST):
        return LEAST
    low, high = math.log(LEAST), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if decides(-math.expm1(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number: at most alpha where Holm's procedure rejects.

    Error: whatever their dependence, the probability of a false rejection is at most alpha.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(count, 0, -1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]
