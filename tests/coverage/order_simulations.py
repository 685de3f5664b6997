"""Samples of effects at five levels: their order along positions, and against other effects."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from simulated import Batch, Bounds, Simulation
from sum_simulations import (
    ANY,
    REPLICATES,
    Arm,
    accuracy,
    distance,
    exponential,
    normal,
    uniform,
)

from transferbench.statistics.concordance import tau_bounds

__all__ = ["UNEQUAL", "orders", "tau_of"]

ORDERS = {
    "5 equal": ((0, 0, 0, 0, 0), 0.0),
    "2 of 5 equal, others far apart": ((0, 5, 10, 15, 15), 0.9),
    "2 of 5 exchanged, others far apart": ((0, 5, 10, 15.5, 15), 0.8),
    "5 a standard deviation apart": ((0, 1, 2, 3, 4), 0.0),
    "5 two standard deviations apart": ((0, 2, 4, 6, 8), 0.9),
    "5 four standard deviations apart": ((0, 4, 8, 12, 16), 0.9),
}  # fmt: skip
"""Levels, and the threshold of the claim on their rank correlation with position."""

LOW_ACCURACIES = tuple(accuracy(mean, 2000) for mean in (0.5, 0.7, 0.85))
PRECISE, NOISY = accuracy(0.98, 2000), accuracy(0.98, 50)
FAR_DISTANCES = tuple(distance(mean, 0.1) for mean in (40.0, 20.0, 10.0))

UNEQUAL: Mapping[str, Sequence[Arm]] = {
    "2 of 5 accuracies equal, 98% +- 0.3 and +- 2": (*LOW_ACCURACIES, PRECISE, NOISY),
    "2 of 5 accuracies equal, 98% +- 2 and +- 0.3": (*LOW_ACCURACIES, NOISY, PRECISE),
    "5 equal accuracies, 98% +- 0.3 to 2": (PRECISE, NOISY, accuracy(0.98, 200), PRECISE, NOISY),
    "2 of 5 distances equal, 1 +- 1 and +- 0.3": (
        *FAR_DISTANCES, distance(1.0, 1.0), distance(1.0, 0.3)
    ),
    "2 of 5 distances equal, 1 +- 0.3 and +- 1": (
        *FAR_DISTANCES, distance(1.0, 0.3), distance(1.0, 1.0)
    ),
    "5 equal distances, exponential": (exponential(1.0),) * 5,
    "2 of 5 equal, exponential +- 0.3 and +- 1, no range": (
        *(normal(mean, 0.3, None) for mean in (60.0, 40.0, 20.0)),
        exponential(0.3, None, 0.7), exponential(1.0, None),
    ),
    "2 of 5 equal, uniform +- 1 and +- 0.3": (
        *(uniform(mean, 0.01) for mean in (0.1, 0.2, 0.3)), uniform(0.5, 0.1), uniform(0.5, 0.03)
    ),
    "2 of 5 equal, normal +- 1 and +- 0.3": (
        *(normal(mean, 0.3) for mean in (0.0, 10.0, 20.0)), normal(30.0, 1.0), normal(30.0, 0.3)
    ),
}  # fmt: skip
"""Levels with unequal spread; those that differ are far apart, rising or falling."""


class Side(NamedTuple):
    """Values at K levels and their range. Shapes: (D, K, R)."""

    values: np.ndarray
    ranges: Sequence[tuple[float, float] | None]


def orders() -> Iterator[Simulation]:
    """Levels that share a replicate's draw, and levels with unequal spread."""
    for setting, (levels, threshold) in ORDERS.items():
        truth = tau_of(levels)
        column_K1 = np.array(levels, dtype=float)[:, None]
        for n in REPLICATES:
            yield _row(f"position: {setting}", n, _along(column_K1, n), truth, threshold)
            yield _row(f"against others: {setting}", n, _against(column_K1, n), truth, threshold)
    for n in REPLICATES:

        def ties(rng: np.random.Generator, draws: int, n: int = n) -> Bounds:
            noise = rng.normal(size=(draws, 2, n))
            return _bounds(Side(noise, [ANY] * 2), Side(noise * [[1], [2]], [ANY] * 2))

        yield _row("against others: 2 equal on both sides, one noise", n, ties, 0.0, 0.0)
    for setting, arms in UNEQUAL.items():
        for n in REPLICATES:
            truth = tau_of([arm.mean for arm in arms])
            yield _row(f"position: {setting}", n, _unequal(arms, n), truth, truth)
            yield _row(f"against others: {setting}", n, _unequal(arms, n, against=True), truth,
                       truth)  # fmt: skip


def _row(setting: str, n: int, batch: Batch, truth: float, threshold: float) -> Simulation:
    return Simulation("pairs", setting, n, batch, truth, threshold, at_once=True)


def _along(level_K1: np.ndarray, n: int) -> Batch:
    def along(rng: np.random.Generator, draws: int) -> Bounds:
        noise = rng.normal(size=(draws, 1, n)) + rng.normal(size=(draws, len(level_K1), n))
        return _bounds(Side(level_K1 + noise, [ANY] * len(level_K1)))

    return along


def _against(level_K1: np.ndarray, n: int) -> Batch:
    def against(rng: np.random.Generator, draws: int) -> Bounds:
        # The noise of both sides nearly the same: the worst case of their dependence.
        noise = rng.normal(size=(draws, len(level_K1), n))
        other = 3.0 * np.arange(len(level_K1))[:, None] + noise
        other += 0.1 * rng.normal(size=noise.shape)
        ranges = [ANY] * len(level_K1)
        return _bounds(Side(level_K1 + noise, ranges), Side(other, ranges))

    return against


def _unequal(arms: Sequence[Arm], n: int, *, against: bool = False) -> Batch:
    def unequal(rng: np.random.Generator, draws: int) -> Bounds:
        values = np.stack([arm.sample(rng, (draws, n)) for arm in arms], axis=1)
        side = Side(values, [arm.range for arm in arms])
        if not against:
            return _bounds(side)
        other = 100.0 * np.arange(len(arms))[:, None] + rng.normal(size=values.shape)
        return _bounds(side, Side(other, [ANY] * len(arms)))

    return unequal


def _bounds(*sides: Side) -> Bounds:
    return tau_bounds([side.values for side in sides], [side.ranges for side in sides])


def tau_of(levels: Sequence[float]) -> float:
    """Kendall's tau of levels with their position; equal ones are neither."""
    return float(np.mean([np.sign(b - a) for a, b in combinations(levels, 2)]))
