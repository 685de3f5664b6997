"""Intervals over test items of means, of their differences and of their ratios.

Those over replicates, of more values: next to the end of a range they reach further towards its
middle, since a few items that differ from all others are missing in many samples. A percentile
bootstrap resamples the items that it has, and has no width where all are alike.

Shape letters: N items, S summands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from transferbench.statistics.intervals import Interval, is_constant, method_name, too_few
from transferbench.statistics.reaches import (
    SKEWED,
    Moments,
    Range,
    moments_of,
    range_of_sum,
    ratio_bounds,
    reaches,
)

__all__ = ["difference_of_items", "mean_of_items", "ratio_of_items"]

EQUAL_ITEMS = "all items give the same value: their spread is not known"


def mean_of_items(values: np.ndarray, ends: Range, level: float = 0.95) -> Interval:
    """The mean of one value per item, of a quantity between ``ends``; one may be infinite.

    Shapes: (N,). Error: as ``weighted_sum`` of N replicates; without one of the ends with a wider
    quantile, as of an exponential distribution: a few items of 1,000 may have most of a loss. Of
    losses of 1% to 10% errors, and of entropies of 3 and more errors, 94% and more are covered
    (``make coverage``); by a percentile bootstrap 70 to 91% and 67 to 92%.
    """
    return _sum(np.asarray(values, dtype=np.float64)[None], (1.0,), ends, level)


def difference_of_items(
    first: np.ndarray, second: np.ndarray, ends: Range, level: float = 0.95
) -> Interval:
    """The mean of ``first`` minus that of ``second``, of the same items.

    Shapes: (N,) both. Error: as ``mean_of_items``.
    """
    return _sum(np.stack([first, second]).astype(np.float64), (1.0, -1.0), ends, level)


def _sum(value_SN: np.ndarray, weights: Sequence[float], ends: Range, level: float) -> Interval:
    n, method = value_SN.shape[1], method_name("items-t", level)
    if n < 2:
        value = float(np.dot(weights, value_SN[:, 0])) if n else None
        return Interval(value, None, None, n, method, too_few(n))
    moments = _moments(value_SN, weights)
    value = float(np.dot(weights, moments.value))
    if is_constant(np.dot(weights, value_SN), float(np.abs(value_SN).max())):
        return Interval(value, None, None, n, method, EQUAL_ITEMS)
    ranges = [ends] * len(weights)
    factor = 1.0 if np.isfinite(ends).all() else 1 + SKEWED / math.sqrt(n)
    spread = factor * np.sqrt(moments.covariance.sum())
    below, above = reaches(weights, ranges, moments, spread, n, level)
    bounds = Interval(value, value - float(below), value + float(above), n, method)
    return bounds.within(*range_of_sum(weights, ranges))


def ratio_of_items(
    over: np.ndarray, under: np.ndarray, ends: Range, level: float = 0.95
) -> Interval:
    """The mean of ``over`` by that of ``under``, of the same items; both are between ``ends``.

    It is undefined unless the divisor is significantly above 0. Shapes: (N,) both.
    Error: as ``weighted_ratio`` of N replicates. Source: Fieller 1954.
    """
    value_SN, weights = np.stack([over, under]).astype(np.float64), (1.0, 1.0)
    n, method = value_SN.shape[1], method_name("items-fieller", level)
    if n < 2:
        return Interval(None, None, None, n, method, too_few(n))
    moments = _moments(value_SN, weights)
    top, bottom = (float(value) for value in moments.value)
    if bottom <= 0:
        return Interval(None, None, None, n, method, "the denominator is not above 0")
    ratio = top / bottom
    if is_constant(value_SN[0] - ratio * value_SN[1], float(np.abs(value_SN).max())):
        return Interval(ratio, None, None, n, method, EQUAL_ITEMS)
    low, high = ratio_bounds(weights, [ends, ends], moments, 1, n, level)
    if math.isnan(low):
        reason = f"the denominator's {100 * level:g}% interval includes 0"
        return Interval(ratio, None, None, n, method, reason)
    return Interval(ratio, float(low), float(high), n, method)


def _moments(value_SN: np.ndarray, weights: Sequence[float]) -> Moments:
    return moments_of(weights, value_SN.mean(axis=1), value_SN)
