"""Samples of test items: mistakes of a pair, entropies of a few of them, losses, drops."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from simulated import EQUAL, Bounds, Simulation

from transferbench.statistics import Interval, mean_of_items
from transferbench.statistics.reaches import Moments, ratio_bounds, sum_bounds
from transferbench_plugins.diagnostics.mistakes._outcome_intervals import outcome_intervals

__all__ = ["losses_of_items", "mistakes_of_pairs", "scores_of_pairs"]

N_COMMON, JACCARD, KAPPA = 0, 3, 6
"""Positions in ``outcome_intervals``."""
ERRORS = {
    "2% errors each": (0.02, 0.02, 0.3),
    "10% errors each": (0.1, 0.1, 0.3),
    "30% and 10% errors": (0.3, 0.1, 0.2),
    "50% errors each, independent": (0.5, 0.5, 0.0),
    "2% errors each, nearly the same": (0.02, 0.02, 0.95),
}
"""The errors of both networks, and kappa."""


def mistakes_of_pairs() -> Iterator[Simulation]:
    """Kappas, common errors and error overlaps of two networks."""
    for setting, (a, b, kappa) in ERRORS.items():
        expected = a * b + (1 - a) * (1 - b)
        single = (1 - kappa) * (1 - expected)
        common = (a + b - single) / 2
        shares = np.array([1 - common - single, a - common, b - common, common, 0.0])
        for n in (50, 200, 1000):
            truths = {"kappa-exact": (KAPPA, kappa), "exact": (N_COMMON, n * common)}
            for kind, (position, truth) in truths.items():

                def draw(rng: np.random.Generator, n: int = n, shares: Any = shares,
                         position: int = position) -> Interval:  # fmt: skip
                    return outcome_intervals(rng.multinomial(n, shares)[None])[position]

                of = "kappa" if position == KAPPA else "common errors"
                # Without an error, kappa is not defined.
                bounded = 1 - (1 - common - single) ** n if position == KAPPA else 1.0
                yield Simulation(kind, f"{of}, {setting}", n, draw, truth, fewer=4, bounded=bounded)


def losses_of_items() -> Iterator[Simulation]:
    """Mean losses, most of which a few items have, and mean entropies of a few items."""
    for errors in (0.01, 0.02, 0.1):
        for n in (50, 200, 1000):

            def loss(rng: np.random.Generator, n: int = n, errors: float = errors) -> Interval:
                of_errors, of_hits = 0.7 + rng.exponential(3, n), rng.gamma(0.1, 0.5, n)
                values = np.where(rng.random(n) < errors, of_errors, of_hits)
                return mean_of_items(values, (0.0, np.inf))

            truth = 3.7 * errors + 0.05 * (1 - errors)
            yield Simulation("items-t", f"loss with {errors:.0%} errors", n, loss, truth, fewer=4)
    for shape in ((2.0, 2.0), (0.5, 2.0)):
        for n in (3, 5, 10, 50):

            def entropy(rng: np.random.Generator, n: int = n, shape: Any = shape) -> Interval:
                return mean_of_items(np.log(10) * rng.beta(*shape, n), (0.0, np.log(10)))

            truth = float(np.log(10)) * shape[0] / sum(shape)
            yield Simulation(
                "items-t", f"entropy of {n} errors, mean {truth:.1f}", n, entropy, truth
            )


SHARE = (0.0, 1.0)
DROPS = {
    "99% and 97.5%": (0.97, 0.02, 0.005),
    "98% and 90%": (0.89, 0.09, 0.01),
    "70% and 60%": (0.5, 0.2, 0.1),
    "20% and 18%": (0.15, 0.05, 0.03),
}
"""Shares of the items that both get right, the first alone, and the second alone."""


def scores_of_pairs() -> Iterator[Simulation]:
    """Differences and ratios of two accuracies on the same items, drawn at once."""
    for setting, shares in DROPS.items():
        a, b = shares[0] + shares[1], shares[0] + shares[2]
        agree = 1 - shares[1] - shares[2]
        for n in (50, 200, 1000):

            def difference(rng: np.random.Generator, draws: int, n: int = n,
                           shares: Any = shares) -> Bounds:  # fmt: skip
                moments = _moments(rng, draws, n, shares, (1.0, -1.0))
                with np.errstate(invalid="ignore", divide="ignore"):
                    bounds = sum_bounds((1.0, -1.0), (SHARE, SHARE), moments, n)
                alike = moments.covariance.sum(axis=(1, 2)) < EQUAL
                return np.where(alike, np.nan, bounds[0]), np.where(alike, np.nan, bounds[1])

            def ratio(rng: np.random.Generator, draws: int, n: int = n,
                      shares: Any = shares) -> Bounds:  # fmt: skip
                moments = _moments(rng, draws, n, shares, (1.0, 1.0))
                with np.errstate(invalid="ignore", divide="ignore"):
                    bounds = ratio_bounds((1.0, 1.0), (SHARE, SHARE), moments, 1, n)
                # Of accuracies that are alike the ratio has no spread.
                alike = bounds[1] - bounds[0] < EQUAL
                return np.where(alike, np.nan, bounds[0]), np.where(alike, np.nan, bounds[1])

            # Where all items agree there is no spread, and an accuracy of 20% of 50 may be 0.
            least = 1 - agree**n if a > 0.5 else 0.9
            for kind, draw, truth in (("items-t", difference, a - b),
                                      ("items-fieller", ratio, a / b)):  # fmt: skip
                yield Simulation(kind, f"accuracies of {setting}", n, draw, truth, at_once=True,
                                 fewer=8, bounded=least)  # fmt: skip


def _moments(
    rng: np.random.Generator, draws: int, n: int, shares: tuple[float, ...], weights: Any
) -> Moments:
    """Of both accuracies, from the numbers of items that both, one and the other get right."""
    both, first, second, _ = (rng.multinomial(n, (*shares, 1 - sum(shares)), draws) / n).T
    value_D2 = np.stack([both + first, both + second], axis=1)
    variance_D2 = value_D2 * (1 - value_D2) * n / (n - 1)
    shared_D = (both - value_D2.prod(axis=1)) * n / (n - 1)
    covariance = shared_D[:, None, None] * np.outer(weights, weights)
    covariance[:, [0, 1], [0, 1]] = variance_D2
    return Moments(value_D2, np.sqrt(variance_D2), covariance)
