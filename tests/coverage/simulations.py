"""Samples with a known truth for each kind of interval, to count how often it holds.

A simulation draws replicates or items as its setting says, and gives the interval of one sample, or
the bounds of many at once.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from network_simulations import image_simulations, network_simulations
from rank_simulations import rank_simulations
from score_simulations import (
    correlations_of_scores,
    metrics_of_classes,
    metrics_of_labels,
    shares_of_classes,
    transferability_scores,
)
from simulated import Simulation
from sum_simulations import REPLICATES, differences, means, pairs_of_networks, ratios_of_gains

from transferbench.statistics import Interval, bootstrap_mean, exact_share
from transferbench.statistics.concordance import tau_bounds

__all__ = ["SIMULATIONS"]

ORDERS = {
    "5 equal": ((0, 0, 0, 0, 0), 0.0),
    "2 of 5 equal, others far apart": ((0, 5, 10, 15, 15), 0.9),
    "2 of 5 exchanged, others far apart": ((0, 5, 10, 15.5, 15), 0.8),
    "5 a standard deviation apart": ((0, 1, 2, 3, 4), 0.0),
    "5 two standard deviations apart": ((0, 2, 4, 6, 8), 0.9),
    "5 four standard deviations apart": ((0, 4, 8, 12, 16), 0.9),
}  # fmt: skip
"""Levels, and the threshold of the claim on their rank correlation with position."""


def orders() -> Iterator[Simulation]:
    """Levels that share a replicate's draw, along their position and against other effects."""
    for setting, (levels, threshold) in ORDERS.items():
        truth = _tau(levels, range(len(levels)))
        column_K1 = np.array(levels, dtype=float)[:, None]
        for n in REPLICATES:

            def along(rng: np.random.Generator, n: int = n, levels: Any = column_K1) -> Interval:
                noise = rng.normal(size=(1, n)) + rng.normal(size=(len(levels), n))
                return _tau_interval([levels + noise])

            def against(rng: np.random.Generator, n: int = n, levels: Any = column_K1) -> Interval:
                # The noise of both sides nearly the same: the worst case of their dependence.
                noise = rng.normal(size=(len(levels), n))
                other = 3.0 * np.arange(len(levels))[:, None] + noise
                return _tau_interval([levels + noise, other + 0.1 * rng.normal(size=noise.shape)])

            yield Simulation("pairs", f"position: {setting}", n, along, truth, threshold,
                             fewer=2)  # fmt: skip
            yield Simulation("pairs", f"against others: {setting}", n, against, truth, threshold,
                             fewer=2)  # fmt: skip
    for n in REPLICATES:

        def ties(rng: np.random.Generator, n: int = n) -> Interval:
            noise = rng.normal(size=(2, n))
            return _tau_interval([noise, noise * np.array([[1], [2]])])

        yield Simulation("pairs", "against others: 2 equal on both sides, one noise", n, ties,
                         0.0, 0.0)  # fmt: skip


def _tau_interval(sides: Sequence[np.ndarray]) -> Interval:
    low, high = tau_bounds(sides)
    return Interval(None, low, high, sides[0].shape[1], "pairs-95")


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    signs = [
        np.sign(first[b] - first[a]) * np.sign(second[b] - second[a])
        for a, b in combinations(range(len(first)), 2)
    ]
    return float(np.mean(signs))


def items() -> Iterator[Simulation]:
    """Shares and means over test images."""
    for n in (50, 300):
        for share in (0.003, 0.05, 0.5, 0.9, 0.98):
            yield Simulation("exact", f"share {share:g}", n,
                             lambda rng, n=n, p=share: exact_share(int(rng.binomial(n, p)), n),
                             share)  # fmt: skip
        yield Simulation("bootstrap", "mean of uniform values", n,
                         lambda rng, n=n: bootstrap_mean(rng.uniform(size=n),
                                                         int(rng.integers(2**31)), 500),
                         0.5)  # fmt: skip


SIMULATIONS = [
    simulation
    for family in (
        means, differences, pairs_of_networks, ratios_of_gains, orders, network_simulations,
        image_simulations, items, metrics_of_classes, transferability_scores,
        correlations_of_scores, rank_simulations, metrics_of_labels, shares_of_classes,
    )
    for simulation in family()
]  # fmt: skip
