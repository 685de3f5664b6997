"""Samples with a known truth for each kind of interval, to count how often it holds.

A simulation draws replicates or items as its setting says, and gives the interval of one sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from network_simulations import image_simulations, network_simulations
from scipy import stats
from score_simulations import (
    correlations_of_scores,
    metrics_of_classes,
    transferability_scores,
)
from simulated import Simulation, columns_of

from transferbench.statistics import (
    Interval,
    bootstrap_mean,
    concordance,
    exact_share,
    jackknife,
    jackknife_ratio,
    paired_difference,
    replicate_difference,
    replicate_mean,
)

__all__ = ["SIMULATIONS"]

REPLICATES = (3, 5, 10)
SOME_EQUAL = 0.98
"""The least share of samples with bounds: accuracies of 3 replicates may be equal."""

Values = Callable[[np.random.Generator, int], np.ndarray]

# --- replicates -------------------------------------------------------------------------------


VALUES: Mapping[str, tuple[Values, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "uniform": (lambda rng, n: rng.uniform(size=n), 0.5),
    "accuracies of 200 images": (lambda rng, n: rng.binomial(200, 0.8, n) / 200, 0.8),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
}
"""Values of one arm without a range, and their mean."""


def means() -> Iterator[Simulation]:
    """Values of one arm, and differences of two that share a replicate's draw."""
    for n in REPLICATES:
        for setting, (values, truth) in VALUES.items():

            def level(rng: np.random.Generator, n: int = n, values: Values = values) -> Interval:
                return replicate_mean(dict(enumerate(values(rng, n).tolist())))

            # Few values do not tell that a quantity without a range is skewed.
            yield Simulation("level-t", setting, n, level, truth, truth, SOME_EQUAL,
                             assumed=setting != "exponential")  # fmt: skip
            if setting in {"uniform", "exponential"}:

                def tied(rng: np.random.Generator, n: int = n, values: Values = values) -> Interval:
                    arms = [dict(enumerate(values(rng, n).tolist())) for _ in range(2)]
                    return replicate_difference(*arms)

                yield Simulation("jackknife", f"difference of two equal arms, {setting}", n, tied,
                                 0.0, 0.0)  # fmt: skip

        def paired(rng: np.random.Generator, n: int = n) -> Interval:
            shared = rng.normal(size=n)
            return paired_difference(shared + rng.normal(size=n), shared + rng.normal(size=n))

        yield Simulation("paired-student-t", "a shared draw, no difference", n, paired, 0.0, 0.0)


SHARE = (0.0, 1.0)
NEAR_A_BOUND = {
    "around 80% +- 7": (0.8, 30),
    "around 95% +- 2.2": (0.95, 100),
    "around 98% +- 1": (0.98, 200),
    "around 98% +- 2": (0.98, 50),
    "around 99.5% +- 0.5": (0.995, 200),
}
"""Mean and concentration of beta values: skewed, with a tail to the middle."""
TIES = {
    "equal arms around 98% +- 1": ((0.98, 200), (0.98, 200)),
    "equal arms around 98% +- 2": ((0.98, 50), (0.98, 50)),
    "around 98% +- 1 and +- 0.3": ((0.98, 200), (0.98, 2000)),
    "around 98% +- 0.3 and +- 1": ((0.98, 2000), (0.98, 200)),
    "around 95% +- 2.2 and +- 0.7": ((0.95, 100), (0.95, 1000)),
    "98% +- 0.7 minus 90% +- 3": ((0.98, 400), (0.9, 100)),
}
"""Two arms, of which the second is subtracted."""


def near_a_bound() -> Iterator[Simulation]:
    """Accuracies of 1,000 images near 100%, of one arm and of two, over replicates and networks."""
    for n in REPLICATES:
        for setting, arm in NEAR_A_BOUND.items():

            def level(rng: np.random.Generator, n: int = n, arm: Any = arm) -> Interval:
                return replicate_mean(_accuracies(rng, n, *arm), ends=SHARE)

            yield Simulation("bounded-t", setting, n, level, arm[0], arm[0], SOME_EQUAL)
        for setting, arms in TIES.items():

            def gain(rng: np.random.Generator, n: int = n, arms: Any = arms) -> Interval:
                both = [_accuracies(rng, n, *arm) for arm in arms]
                return replicate_difference(*both, ends=SHARE)

            truth = arms[0][0] - arms[1][0]
            yield Simulation("bounded-t", setting, n, gain, truth, truth, SOME_EQUAL)
    for networks in (3, 5):

        def over(rng: np.random.Generator, networks: int = networks) -> Interval:
            # Two replicates of a network around its own accuracy.
            values = _accuracies(rng, networks, 0.98, 200).values()
            both = [rng.binomial(1000, v) / 1000 for v in [*values, *values]]
            return replicate_mean(dict(enumerate(both)), networks, ends=SHARE)

        yield Simulation("bounded-t-networks", f"{networks} networks x 2 around 98% +- 1", networks,
                         over, 0.98, 0.98, SOME_EQUAL)  # fmt: skip


def _accuracies(
    rng: np.random.Generator, n: int, mean: float, concentration: float
) -> dict[int, float]:
    shares = rng.beta(mean * concentration, (1 - mean) * concentration, n)
    return dict(enumerate((rng.binomial(1000, shares) / 1000).tolist()))


def pairs_of_networks() -> Iterator[Simulation]:
    """Means over all pairs of R networks, by how much of the spread is that of the networks."""
    for setting, share in (("of the networks", 1.0), ("half", 0.5), ("of the pairs", 0.0)):
        for n in REPLICATES:

            def draw(rng: np.random.Generator, n: int = n, share: float = share) -> Interval:
                network, pair = rng.normal(size=n), rng.normal(size=(n, n))
                value = share * (network[:, None] + network[None, :]) + (1 - share) * pair
                return jackknife(
                    lambda rows: fmean(value[a, b] for a, b in combinations(rows, 2))
                    if len(rows) > 1 else None,
                    range(n),
                )  # fmt: skip

            yield Simulation("jackknife", f"all pairs, spread {setting}", n, draw, 0.0, 0.0)


def shares() -> Iterator[Simulation]:
    """A ratio of two effects, the divisor so many standard errors above 0."""
    for distance in (4, 8):
        for n in REPLICATES:

            def draw(rng: np.random.Generator, n: int = n, d: int = distance) -> Interval:
                under = d / np.sqrt(n) + rng.normal(size=n)
                over = 0.5 * d / np.sqrt(n) + 0.5 * rng.normal(size=n)
                return jackknife_ratio(*columns_of(np.stack([over, under], axis=1)), range(n))

            # There are bounds where a t-test finds the divisor above 0, with this power.
            bounded = float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, distance))
            yield Simulation("fieller", f"divisor {distance} errors above 0", n, draw, 0.5, 0.5,
                             bounded)  # fmt: skip


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
        for n in REPLICATES:

            def along(rng: np.random.Generator, n: int = n, levels: Any = levels) -> Interval:
                values = levels + rng.normal(size=(n, 1)) + rng.normal(size=(n, len(levels)))
                return concordance(columns_of(values), (), range(n))

            def against(rng: np.random.Generator, n: int = n, levels: Any = levels) -> Interval:
                # The noise of both sides nearly the same: the worst case of their dependence.
                noise = rng.normal(size=(n, len(levels)))
                other = 3.0 * np.arange(len(levels)) + noise + 0.1 * rng.normal(size=noise.shape)
                return concordance(columns_of(levels + noise), columns_of(other), range(n))

            yield Simulation("pairs", f"position: {setting}", n, along, truth, threshold)
            yield Simulation("pairs", f"against others: {setting}", n, against, truth, threshold)
    for n in REPLICATES:

        def ties(rng: np.random.Generator, n: int = n) -> Interval:
            noise = rng.normal(size=(n, 2))
            return concordance(columns_of(noise), columns_of(noise * [1, 2]), range(n))

        yield Simulation("pairs", "against others: 2 equal on both sides, one noise", n, ties,
                         0.0, 0.0)  # fmt: skip


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    signs = [
        np.sign(first[b] - first[a]) * np.sign(second[b] - second[a])
        for a, b in combinations(range(len(first)), 2)
    ]
    return float(np.mean(signs))


# --- test items -------------------------------------------------------------------------------


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
        means, near_a_bound, pairs_of_networks, shares, orders, network_simulations,
        image_simulations, items, metrics_of_classes, transferability_scores,
        correlations_of_scores,
    )
    for simulation in family()
]  # fmt: skip
