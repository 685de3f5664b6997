"""Samples of several source networks, each with a few replicates, and of a fixed set of images.

A value is the draw of its network plus the draw of its replicate, whose standard deviation is 1.
Rows that are not ``used`` show what happens to an interval that leaves a source of variance out.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
from simulated import Draw, Simulation, columns_of

from transferbench.statistics import (
    Interval,
    concordance,
    jackknife,
    jackknife_ratio,
    replicate_mean,
    student_t,
)

__all__ = ["image_simulations", "network_simulations"]

NETWORKS = (3, 5)
EACH = 2
"""Replicates of each network."""
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
        yield from _pairs(networks)
        yield from _shares(networks)
        yield from _orders(networks)


def _values(rng: np.random.Generator, networks: int, between: float, columns: int) -> np.ndarray:
    """Replicate k of network k % networks. Shapes: (R, K)."""
    network = between * rng.normal(size=(networks, columns))
    return np.tile(network, (EACH, 1)) + rng.normal(size=(networks * EACH, columns))


def _means(networks: int) -> Iterator[Simulation]:
    n = networks * EACH
    for words, between in SPREADS.items():

        def draw(rng: np.random.Generator, b: float = between) -> dict[int, float]:
            return dict(enumerate(_values(rng, networks, b, 1)[:, 0].tolist()))

        def over_networks(rng: np.random.Generator, draw: Draw = draw) -> Interval:
            return replicate_mean(draw(rng), networks)

        def lost(rng: np.random.Generator, draw: Draw = draw) -> Interval:
            return replicate_mean({k: v for k, v in draw(rng).items() if k < n - 1}, networks)

        def over_replicates(rng: np.random.Generator, draw: Draw = draw) -> Interval:
            return replicate_mean(draw(rng))

        spread = f"{networks} networks x {EACH}, spread of networks {words}"
        yield Simulation("networks", spread, networks, over_networks, 0.0, 0.0)
        if between:
            yield Simulation("networks", f"{spread}, one replicate lost", networks, lost, 0.0, 0.0)
            yield Simulation("student-t", f"{spread}, networks ignored", n, over_replicates,
                             0.0, 0.0, used=False)  # fmt: skip

            def of_one(rng: np.random.Generator, b: float = between) -> Interval:
                return student_t(b * rng.normal() + rng.normal(size=n))

            spread = f"one network x {n}, spread of networks {words}"
            yield Simulation("student-t", spread, n, of_one, 0.0, 0.0, used=False)


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

        return jackknife(effect, range(n), networks=networks)

    setting = f"{networks} networks x 3, pairs within a network minus all pairs of random networks"
    yield Simulation("networks", setting, networks, draw, 0.0, 0.0)


def _shares(networks: int) -> Iterator[Simulation]:
    """A ratio of two effects whose divisor is 8 standard errors above 0."""

    def draw(rng: np.random.Generator) -> Interval:
        noise = _values(rng, networks, 1.0, 2)
        under = 8 * np.sqrt((1 + 1 / EACH) / networks) + noise[:, 0]
        over = 0.5 * (under - noise[:, 0]) + 0.5 * noise[:, 1]
        columns = columns_of(np.stack([over, under], axis=1))
        return jackknife_ratio(*columns, range(len(noise)), networks=networks)

    setting = f"{networks} networks x {EACH}, divisor 8 errors above 0"
    yield Simulation("fieller-networks", setting, networks, draw, 0.5, 0.5, bounded=0.9)


ORDERS = {
    "5 equal": ((0, 0, 0, 0, 0), 0.0, 0.0),
    "2 of 5 equal, others far apart": ((0, 8, 16, 24, 24), 0.9, 0.9),
    "5 six standard deviations apart": ((0, 6, 12, 18, 24), 1.0, 0.9),
}  # fmt: skip
"""Levels, their rank correlation with position, and the threshold of the claim on it."""


def _orders(networks: int) -> Iterator[Simulation]:
    for setting, (levels, truth, threshold) in ORDERS.items():

        def draw(rng: np.random.Generator, levels: tuple[int, ...] = levels) -> Interval:
            values = levels + _values(rng, networks, 1.0, len(levels))
            return concordance(columns_of(values), (), range(len(values)), networks=networks)

        text = f"{networks} networks x {EACH}, position: {setting}"
        yield Simulation("pairs-networks", text, networks, draw, truth, threshold)


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

            def others(rng: np.random.Generator, n: int = n, v: float = variance) -> Interval:
                return student_t(np.sqrt(v) * rng.normal() + rng.normal(size=n))

            text = f"{setting}, of other test images"
            yield Simulation("student-t", text, n, others, 0.0, 0.0, used=False)
