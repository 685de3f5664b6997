"""A kind of sample with a known truth, from which intervals are made and counted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy import stats

from transferbench.statistics import Interval
from transferbench.statistics.reaches import (
    Range,
    moments_of,
    ratio_bounds,
    sum_bounds,
)

__all__ = [
    "EQUAL",
    "Batch",
    "Bounds",
    "Draw",
    "Simulation",
    "Values",
    "ratios",
    "student",
    "sums",
]

Draw: TypeAlias = Callable[[np.random.Generator], Interval]
"""The interval of one sample."""
Bounds: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Of D samples, NaN where one has none. Shapes: (D,) both."""
Batch: TypeAlias = Callable[[np.random.Generator, int], Bounds]
"""The bounds of many samples at once."""
Values: TypeAlias = Callable[[np.random.Generator, int], np.ndarray]
"""Samples of arms: the values of replicates, or their pseudo-values. Shapes: (D, S, R)."""

MANY = 4
"""Times the draws of a simulation whose samples are drawn at once."""
EQUAL = 1e-12
"""A variance below it is that of equal replicates."""


class Simulation(NamedTuple):
    """``truth``: of the quantity. ``threshold``: of a claim on it; None where there is none. Where
    the truth is not above it, a claim of *above* that is reproduced is false, and at the threshold
    one of *below* too. ``bounded``: the least probability of bounds. ``used``: whether this is how
    intervals are made; others are rejected methods, and show what they miss. ``fewer``: the draws
    are divided by it, since a sample takes long.
    """

    kind: str
    setting: str
    n: int
    draw: Draw | Batch
    truth: float
    threshold: float | None = None
    bounded: float = 1.0
    used: bool = True
    at_once: bool = False
    fewer: int = 1


def sums(
    values: Values,
    weights: Sequence[float],
    ranges: Sequence[Range | None],
) -> Batch:
    """The bounds of weighted sums, as ``weighted_sum`` makes them."""

    def batch(rng: np.random.Generator, draws: int) -> Bounds:
        value_DSR = values(rng, draws)
        moments = moments_of(weights, value_DSR.mean(axis=2), value_DSR)
        equal_D = moments.covariance.sum(axis=(1, 2)) < EQUAL
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high = sum_bounds(weights, ranges, moments, value_DSR.shape[2])
        return np.where(equal_D, np.nan, low), np.where(equal_D, np.nan, high)

    return batch


def student(values: Values, weights: Sequence[float] = (1.0,)) -> Batch:
    """Student-t of the weighted sum."""

    def batch(rng: np.random.Generator, draws: int) -> Bounds:
        sum_DR = np.asarray(weights) @ values(rng, draws)
        half_D = stats.sem(sum_DR, axis=1) * stats.t.ppf(0.975, sum_DR.shape[1] - 1)
        half_D = np.where(sum_DR.var(axis=1, ddof=1) < EQUAL, np.nan, half_D)
        return sum_DR.mean(axis=1) - half_D, sum_DR.mean(axis=1) + half_D

    return batch


def ratios(
    values: Values, weights: Sequence[float], ranges: Sequence[Range | None], over: int
) -> Batch:
    """The bounds of ratios, as ``weighted_ratio`` makes them: the first ``over`` by the rest."""

    def batch(rng: np.random.Generator, draws: int) -> Bounds:
        value_DSR = values(rng, draws)
        moments = moments_of(weights, value_DSR.mean(axis=2), value_DSR)
        return ratio_bounds(weights, ranges, moments, over, value_DSR.shape[2])

    return batch
