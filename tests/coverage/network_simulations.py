"""Samples of several source networks, each with a few replicates, and of a fixed set of images.

A value is the draw of its network plus the draw of its replicate, whose standard deviation is 1.
Rows that are not ``used`` show what happens to an interval that leaves a source of variance out.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
from order_simulations import UNEQUAL, tau_of
from simulated import Batch, Bounds, Simulation, Values, ratios, student, sums
from sum_simulations import ANY, SHARE, Arm

from transferbench.statistics import Interval, Summand, weighted_sum
from transferbench.statistics.concordance import tau_bounds

__all__ = ["image_simulations", "network_simulations"]

NETWORKS = (3, 5)
EACH = 2
"""Replicates of each network."""
SMALL = 0.002
"""The share by which replicates of a skewed network lie apart."""
SPREADS = {
    "none": 0.0,
    "half that of replicates": 0.5,
    "as large as that of replicates": 1.0,
    "twice that of replicates": 2.0,
}
"""Standard deviation between networks, in units of that between replicates of one.

In a pilot of quickstart's source (5 networks x 4 replicates of fixup-resnet8) it was estimated as 0
for accuracy and speed of P-T and 0.5 for the gain in accuracy, with 95% intervals up to 2.1.
"""


def network_simulations() -> Iterator[Simulation]:
    """Means, differences of pairs, shares and orders over networks."""
    for networks in NETWORKS:
        yield from _means(networks)
        yield from _near_a_bound(networks)
        yield from _pairs(networks)
        yield from _shares(networks)
        yield from _orders(networks)


def _values(
    rng: np.random.Generator, networks: int, between: float, size: tuple[int, ...]
) -> np.ndarray:
    """Replicate k of network k % networks. Shapes: (*size, R)."""
    network = between * rng.normal(size=(*size, networks))
    return np.tile(network, EACH) + rng.normal(size=(*size, networks * EACH))


def _of_networks(values: np.ndarray, networks: int) -> np.ndarray:
    """Pseudo-values of each network: of as many replicates each, their means."""
    *size, replicates = values.shape
    of_networks: np.ndarray = values.reshape(*size, replicates // networks, networks).mean(axis=-2)
    return of_networks


def _one_lost(values_DR: np.ndarray, networks: int) -> np.ndarray:
    """Pseudo-values of the mean where the last replicate is lost. Shapes: (D, networks)."""
    kept_DR, whose_R = values_DR[:, :-1], np.arange(values_DR.shape[1] - 1) % networks
    total_D1, count = kept_DR.sum(axis=1, keepdims=True), kept_DR.shape[1]
    own_DN = np.stack([kept_DR[:, whose_R == m].sum(axis=1) for m in range(networks)], axis=1)
    without_DN = (total_D1 - own_DN) / (count - np.bincount(whose_R))
    return networks * total_D1 / count - (networks - 1) * without_DN


def _means(networks: int) -> Iterator[Simulation]:
    n = networks * EACH
    for words, between in SPREADS.items():

        def draw(rng: np.random.Generator, draws: int, b: float = between) -> np.ndarray:
            return _values(rng, networks, b, (draws, 1))

        def over_networks(rng: np.random.Generator, draws: int, draw: Values = draw) -> np.ndarray:
            return _of_networks(draw(rng, draws), networks)

        def lost(rng: np.random.Generator, draws: int, draw: Values = draw) -> np.ndarray:
            return _one_lost(draw(rng, draws)[:, 0], networks)[:, None]

        spread = f"{networks} networks x {EACH}, spread of networks {words}"
        yield _row("ranged-t-networks", spread, networks, sums(over_networks, [1.0], [ANY]))
        if between:
            yield _row("ranged-t-networks", f"{spread}, one replicate lost", networks,
                       sums(lost, [1.0], [ANY]))  # fmt: skip
            yield _row("student-t", f"{spread}, networks ignored", n, student(draw), used=False)

            def of_one(rng: np.random.Generator, draws: int, b: float = between) -> np.ndarray:
                return b * rng.normal(size=(draws, 1, 1)) + rng.normal(size=(draws, 1, n))

            spread = f"one network x {n}, spread of networks {words}"
            yield _row("student-t", spread, n, student(of_one), used=False)


def _row(kind: str, setting: str, n: int, batch: Batch, *, used: bool = True) -> Simulation:
    return Simulation(kind, setting, n, batch, 0.0, 0.0, used=used, at_once=True)


def _near_a_bound(networks: int) -> Iterator[Simulation]:
    """Two replicates of a network around its own accuracy."""

    def draw(rng: np.random.Generator, draws: int) -> np.ndarray:
        own = np.tile(rng.beta(196, 4, (draws, 1, networks)), EACH)
        return _of_networks(rng.binomial(1000, own) / 1000, networks)

    yield Simulation("ranged-t-networks", f"{networks} networks x {EACH} around 98% +- 1", networks,
                     sums(draw, [1.0], [SHARE]), 0.98, 0.98, 0.98, at_once=True)  # fmt: skip


def _pairs(networks: int) -> Iterator[Simulation]:
    """Pairs of P-T within a network minus pairs of RI-T from anywhere, as claims compare them."""
    n = networks * 3

    def draw(rng: np.random.Generator) -> Interval:
        start, pair = rng.normal(size=networks), rng.normal(size=(2, n, n))
        single = rng.normal(size=(2, n))
        value = pair + single[:, :, None] + single[:, None, :]

        def effect(replicates: Sequence[int]) -> float:
            both = list(combinations(replicates, 2))
            p = fmean(value[0, i, j] + start[i % networks] for i, j in both
                      if i % networks == j % networks)  # fmt: skip
            return p - fmean(value[1, i, j] for i, j in both)

        return weighted_sum([Summand(1.0, effect, ANY)], range(n), networks)

    setting = f"{networks} networks x 3, pairs within a network minus all pairs of random networks"
    yield Simulation("ranged-t-networks", setting, networks, draw, 0.0, 0.0, fewer=4)


def _shares(networks: int) -> Iterator[Simulation]:
    """A ratio of two effects whose divisor is 8 standard errors above 0."""

    def draw(rng: np.random.Generator, draws: int) -> np.ndarray:
        noise = _of_networks(_values(rng, networks, 1.0, (draws, 2)), networks)
        under = 8 * np.sqrt((1 + 1 / EACH) / networks)
        return np.stack([0.5 * under + 0.5 * noise[:, 1], under + noise[:, 0]], axis=1)

    setting = f"{networks} networks x {EACH}, divisor 8 errors above 0"
    yield Simulation("ranged-fieller-networks", setting, networks,
                     ratios(draw, [1.0, 1.0], [ANY, ANY], 1), 0.5, 0.5, 0.5,
                     at_once=True, fewer=4)  # fmt: skip


ORDERS = {
    "5 equal": ((0, 0, 0, 0, 0), 0.0, 0.0),
    "2 of 5 equal, others far apart": ((0, 8, 16, 24, 24), 0.9, 0.9),
    "5 six standard deviations apart": ((0, 6, 12, 18, 24), 1.0, 0.9),
}  # fmt: skip
"""Levels, their rank correlation with position, and the threshold of the claim on it."""


def _orders(networks: int) -> Iterator[Simulation]:
    for setting, (levels, truth, threshold) in ORDERS.items():

        def draw(rng: np.random.Generator, draws: int, levels: tuple[int, ...] = levels) -> Bounds:
            noise = _of_networks(_values(rng, networks, 1.0, (draws, len(levels))), networks)
            return tau_bounds([np.array(levels)[:, None] + noise], [[ANY] * len(levels)])

        yield _order_row(networks, setting, draw, truth, threshold)
    for setting, arms in UNEQUAL.items():

        def unequal(rng: np.random.Generator, draws: int, arms: Sequence[Arm] = arms) -> Bounds:
            # Replicates that vary little around what their network gave.
            of_networks = [np.tile(arm.sample(rng, (draws, networks)), EACH) for arm in arms]
            values = np.stack(of_networks, axis=1)
            values = values * rng.uniform(1 - SMALL, 1, values.shape) / (1 - SMALL / 2)
            pseudo = _of_networks(values, networks)
            return tau_bounds([pseudo], [[arm.range for arm in arms]])

        truth = tau_of([arm.mean for arm in arms])
        yield _order_row(networks, setting, unequal, truth, truth)


def _order_row(
    networks: int, setting: str, batch: Batch, truth: float, threshold: float
) -> Simulation:
    text = f"{networks} networks x {EACH}, position: {setting}"
    return Simulation("pairs-networks", text, networks, batch, truth, threshold, at_once=True)


# --- test images ------------------------------------------------------------------------------

IMAGES = {
    "difference of two entries, the median of the boards": 0.018,
    "difference of two entries, the largest of the boards": 0.09,
    "score of one entry, the median of the boards": 0.146,
}
"""The variance that 1,000 test images add to a mean, in units of that between replicates, as the
predictions of quickstart@1 and characters@2 have it (two-way analysis of variance over replicates
and images, under the scored perturbation).
"""


def image_simulations() -> Iterator[Simulation]:
    """Scores and differences of entries on other images than the fixed ones of a suite."""
    for setting, variance in IMAGES.items():
        for n in (5, 10):

            def others(
                rng: np.random.Generator, draws: int, n: int = n, v: float = variance
            ) -> np.ndarray:
                of_images = np.sqrt(v) * rng.normal(size=(draws, 1, 1))
                return of_images + rng.normal(size=(draws, 1, n))

            text = f"{setting}, of other test images"
            yield _row("student-t", text, n, student(others), used=False)
