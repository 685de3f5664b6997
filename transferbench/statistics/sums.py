"""Intervals over replicates: of the mean of an arm, and of weighted sums such as a difference.

Student-t is exact for normal values. Of three to ten replicates it covers too little in two cases,
which have an answer each. Values of one arm that are spread evenly (uniform) need a wider quantile;
the difference of two arms does not, since their spreads add up to something closer to a normal one.
Near a bound of its range a quantity is skewed: accuracies around 98% have a tail on one side only,
and a sample that misses the tail is too high and too certain. There the interval reaches further
towards the middle of the range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeAlias

import numpy as np

from transferbench.statistics.intervals import (
    Estimator,
    Interval,
    deviation,
    is_constant,
    jackknifed,
    method_name,
    no_spread,
    t_quantile,
    units_of,
)

__all__ = [
    "Range",
    "Summand",
    "level_factor",
    "mean_of_replicates",
    "quantile_factor",
    "range_of",
    "range_of_sum",
    "reaches",
    "replicate_difference",
    "replicate_mean",
    "weighted_sum",
]

Range: TypeAlias = tuple[float, float]
"""The least and the largest value of a quantity."""

LEVEL_FACTORS = {2: 1.4, 3: 1.27, 4: 1.16, 5: 1.09, 6: 1.05, 7: 1.02}
"""Of Student-t's quantile for n values of one arm, such that 2.7% of uniform samples lie beyond a
bound (3,000,000 samples); with the quantile itself 3.9% (n = 3) and 3.3% (n = 5) do."""
MOST_OF_A_SUM = 2 / 3
"""A sum in which one summand has a larger share of the weights is the mean of one arm."""


class Summand(NamedTuple):
    """An estimate with its weight, and the range of its quantity, None where it has none."""

    weight: float
    estimate: Estimator
    range: Range | None = None


def weighted_sum(
    summands: Sequence[Summand],
    replicates: Sequence[int],
    networks: int = 1,
    level: float = 0.95,
) -> Interval:
    """The weighted sum of estimates from the same replicates, which are paired.

    Without ranges it is the jackknife of the sum, for a mean of one arm with the quantile of
    ``level_factor``. With ranges, each summand has a part of its squared error (in proportion to
    its own variance, so that what arms of a replicate share stays cancelled), which is widened
    by ``_reach`` where the summand is near an end. The interval is cut at the range of the sum.

    ``networks``: as in ``jackknife``. No bounds where replicates give one value: their spread is
    not known then.
    Error: measured for 3, 5 and 10 replicates around 80 to 99.5% (beta values with a standard
    deviation of up to the distance to the bound): 95% or more covered, at most 2.5% beyond a bound,
    for means and for differences of arms with equal spread; 2.9% where one spreads three times as
    much (``make coverage``). Student-t covers 90 to 96%, with up to 10% beyond the outer bound.
    Source: Zou and Donner 2008, doi:10.1002/sim.3095, for the sum of intervals.
    """
    sums = [jackknifed(part.estimate, replicates, networks) for part in summands]
    weights_S = np.array([part.weight for part in summands])
    n, method = len(units_of(replicates, networks)), method_name(_name(summands), level, networks)
    if any(part.value is None for part in sums):
        reason = next(part.reason for part in sums if part.value is None)
        return Interval(None, None, None, n, method, reason)
    value_S = np.array([part.value for part in sums], dtype=np.float64)
    value = float(weights_S @ value_S)
    if reason := next((part.reason for part in sums if part.reason), None):
        return Interval(value, None, None, n, method, reason)
    pseudo_SR = weights_S[:, None] * np.array([part.pseudo for part in sums])
    if is_constant(pseudo_SR.sum(axis=0), np.abs(pseudo_SR).max()):
        return Interval(value, None, None, n, method, no_spread(networks))
    spread, spread_S = deviation(pseudo_SR.sum(axis=0)), np.std(pseudo_SR, axis=1, ddof=1)
    ranges = [part.range for part in summands]
    below, above = reaches(weights_S.tolist(), ranges, value_S, spread_S, spread, n, level)
    bounds = value - float(below), value + float(above)
    return Interval(value, *bounds, n, method).within(*range_of(summands))


def reaches(
    weights: Sequence[float],
    ranges: Sequence[Range | None],
    value_S: np.ndarray,
    spread_S: np.ndarray,
    spread: float | np.ndarray,
    n: int,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """How far the bounds of ``weighted_sum`` lie below and above the sum, before they are cut.

    ``value_S``: the estimates. ``spread_S``: deviations of their weighted values over ``n``
    replicates, and ``spread`` that of the sum.
    Shapes: of S summands (..., S), and (...) of the sum and of both results.
    """
    quantile = quantile_factor(weights, n) * t_quantile(n - 1, level) / math.sqrt(n)
    scale = quantile * np.asarray(spread) / np.sqrt(np.square(spread_S).sum(axis=-1))
    error_S = spread_S * scale[..., None]
    sides = [
        _reach(weight, ends, value_S[..., i], error_S[..., i])
        for i, (weight, ends) in enumerate(zip(weights, ranges, strict=True))
    ]
    below_S, above_S = (error_S * np.stack(side, axis=-1) for side in zip(*sides, strict=True))
    return np.sqrt(np.square(below_S).sum(axis=-1)), np.sqrt(np.square(above_S).sum(axis=-1))


def replicate_mean(
    values: Mapping[int, float],
    networks: int = 1,
    level: float = 0.95,
    ends: Range | None = None,
) -> Interval:
    """The mean of an arm over replicates, replicate -> value, from so many source networks.

    ``ends``: the range of the quantity. Error: as ``weighted_sum``; of several networks over the
    means of each (the jackknife, where they have unequally many replicates).
    """
    arm = Summand(1.0, mean_of_replicates(values), ends)
    return weighted_sum([arm], sorted(values), networks, level)


def replicate_difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    networks: int = 1,
    level: float = 0.95,
    ends: Range | None = None,
) -> Interval:
    """The mean of first minus second, at the replicates that both have.

    ``networks``, ``ends``, and error: as ``replicate_mean``.
    """
    shared = sorted(first.keys() & second.keys())
    arms = [
        Summand(weight, mean_of_replicates(values), ends)
        for weight, values in ((1.0, first), (-1.0, second))
    ]
    return weighted_sum(arms, shared, networks, level)


def level_factor(n: int) -> float:
    """Of Student-t's quantile for the mean of one arm over ``n`` replicates or networks."""
    return LEVEL_FACTORS.get(n, 1.0)


def quantile_factor(weights: Sequence[float], n: int) -> float:
    """Of Student-t's quantile for a sum with these weights: 1, unless it is of one arm."""
    return level_factor(n) if _of_one_arm(weights) else 1.0


def range_of(summands: Sequence[Summand]) -> Range:
    """The least and the most of a weighted sum; infinite where a summand has no range."""
    return range_of_sum([part.weight for part in summands], [part.range for part in summands])


def range_of_sum(weights: Sequence[float], ranges: Sequence[Range | None]) -> Range:
    """As ``range_of``, of the weights and the ranges of the summands."""
    lows, highs = [], []
    for weight, ends in zip(weights, ranges, strict=True):
        low, high = ends or (-math.inf, math.inf)
        lows.append(min(weight * low, weight * high))
        highs.append(max(weight * low, weight * high))
    return sum(lows), sum(highs)


def mean_of_replicates(values: Mapping[int, float]) -> Estimator:
    """The mean of the values, replicate -> value, of some replicates; None of no replicates."""
    return lambda replicates: fmean(values[k] for k in replicates) if replicates else None


def _of_one_arm(weights: Sequence[float]) -> bool:
    sizes = [abs(weight) for weight in weights]
    return max(sizes) > MOST_OF_A_SUM * sum(sizes)


def _name(summands: Sequence[Summand]) -> str:
    if any(part.range for part in summands):
        return "bounded-t"
    return "level-t" if _of_one_arm([part.weight for part in summands]) else "jackknife"


def _reach(
    weight: float, ends: Range | None, value: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many times ``error``, its part of the sum's, a summand reaches below and above.

    Wilson's score interval takes the variance at the bound in place of that at the value, as if
    it rose with the distance to the end of the range; its asymmetry is that of a share. Replicates
    are more skewed (their deviation rises with the distance, not its root), so the asymmetry is
    squared: with the asymmetry itself up to 5% of samples lie beyond the outer bound. It never
    reaches beyond the end. In the middle of the range both factors are 1.
    Shapes: any, the same for all.
    """
    if ends is None or not weight:
        return np.ones_like(error), np.ones_like(error)
    low, high = ends
    span = high - low
    x, h = (value - low) / span, error / (abs(weight) * span)
    inside = (x > 0) & (x < 1) & (h > 0)
    x, h = np.where(inside, x, 0.5), np.where(inside, h, 1.0)
    g = h * h / (x * (1 - x))
    centre, root = (x + g / 2) / (1 + g), np.sqrt(g * x * (1 - x) + g * g / 4) / (1 + g)
    sides = ((x - centre + root, x), (centre + root - x, 1 - x))
    below, above = (
        np.where(inside, np.maximum(1.0, np.minimum((side / h) ** 2, room / h)), 1.0)
        for side, room in sides
    )
    # A summand with a negative weight is at its high end where the sum is at its low end.
    return (below, above) if weight > 0 else (above, below)
