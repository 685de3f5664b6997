"""Samples of replicates: means of an arm, differences of two, ratios, and means over pairs.

Shape letters: D draws, R replicates, S arms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from simulated import Simulation, Values, ratios, student, sums

from transferbench.statistics.reaches import Range

__all__ = [
    "ANY",
    "REPLICATES",
    "SHARE",
    "Arm",
    "accuracy",
    "differences",
    "distance",
    "exponential",
    "means",
    "normal",
    "pairs_of_networks",
    "ratios_of_gains",
    "uniform",
]

REPLICATES = (3, 5, 10)
SOME_EQUAL = 0.98
"""The least share of samples with bounds: accuracies of 3 replicates may be equal."""

Sampler = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
SHARE, SIGNED, COUNT, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, np.inf), (-np.inf, np.inf)
"""Ranges: of accuracies, speeds and areas; of kappa, CKA and correlations; of distances, losses and
entropies; and of what is not skewed."""


class Arm(NamedTuple):
    """Values with a mean; ``range`` is declared, None where it is not."""

    sample: Sampler
    mean: float
    range: Range | None


def normal(mean: float, deviation: float, ends: Range | None = ANY) -> Arm:
    return Arm(lambda rng, size: rng.normal(mean, deviation, size), mean, ends)


def uniform(mean: float, half: float, ends: Range | None = SHARE) -> Arm:
    return Arm(lambda rng, size: rng.uniform(mean - half, mean + half, size), mean, ends)


def exponential(mean: float, ends: Range | None = COUNT, least: float = 0.0) -> Arm:
    return Arm(lambda rng, size: least + rng.exponential(mean, size), least + mean, ends)


def distance(mean: float, deviation: float) -> Arm:
    """Gamma values, which are exponential where the deviation is the mean."""
    shape = (mean / deviation) ** 2
    return Arm(lambda rng, size: rng.gamma(shape, mean / shape, size), mean, COUNT)


def accuracy(mean: float, concentration: float, images: int = 1000) -> Arm:
    """Beta values: skewed, with a tail to the middle."""
    a, b = mean * concentration, (1 - mean) * concentration
    return Arm(lambda rng, size: rng.binomial(images, rng.beta(a, b, size)) / images, mean, SHARE)


def speed(mean: float, deviation: float) -> Arm:
    concentration = mean * (1 - mean) / deviation**2 - 1
    a, b = mean * concentration, (1 - mean) * concentration
    return Arm(lambda rng, size: rng.beta(a, b, size), mean, SHARE)


def signed(mean: float, deviation: float) -> Arm:
    """Of [-1, 1], as kappa, CKA and correlations."""
    of_share = speed((mean + 1) / 2, deviation / 2)
    return Arm(lambda rng, size: 2 * of_share.sample(rng, size) - 1, mean, SIGNED)


def drop(mean: float) -> Arm:
    """A relative drop in percent: at most 100, with a tail to below."""
    return Arm(lambda rng, size: 100 - rng.exponential(100 - mean, size), mean, (-np.inf, 100.0))


MEANS: Mapping[str, Arm] = {
    "normal": normal(0.0, 1.0),
    "uniform": uniform(0.5, 0.1),
    "accuracies of 200 images": Arm(
        lambda rng, size: rng.binomial(200, 0.8, size) / 200, 0.8, SHARE
    ),
    "around 80% +- 7": accuracy(0.8, 30),
    "around 95% +- 2.2": accuracy(0.95, 100),
    "around 98% +- 1": accuracy(0.98, 200),
    "around 98% +- 2": accuracy(0.98, 50),
    "around 99.5% +- 0.5": accuracy(0.995, 200),
    "speed around 0.89 +- 0.01": speed(0.89, 0.01),
    "speed around 0.98 +- 0.02": speed(0.98, 0.02),
    "kappa around 0.4 +- 0.05": signed(0.4, 0.05),
    "kappa around 0.95 +- 0.05": signed(0.95, 0.05),
    "CKA around 0.99 +- 0.01": signed(0.99, 0.01),
    "distance, exponential": exponential(1.0),
    "relative drop of 98%, exponential": drop(98.0),
    "normal, no range": normal(0.0, 1.0, None),
    "uniform, no range": uniform(0.5, 0.1, None),
    "exponential, no range": exponential(1.0, None),
    "exponential from 5, no range": exponential(1.0, None, 5.0),
}  # fmt: skip

DIFFERENCES: Mapping[str, tuple[Arm, Arm]] = {
    "normal +- 1 and +- 0.3": (normal(0.0, 1.0), normal(0.0, 0.3)),
    "equal arms, uniform": (uniform(0.5, 0.1), uniform(0.5, 0.1)),
    "uniform +- 1 and +- 0.5": (uniform(0.5, 0.1), uniform(0.5, 0.05)),
    "uniform +- 1 and +- 0.3": (uniform(0.5, 0.1), uniform(0.5, 0.03)),
    "equal arms around 98% +- 1": (accuracy(0.98, 200), accuracy(0.98, 200)),
    "equal arms around 98% +- 2": (accuracy(0.98, 50), accuracy(0.98, 50)),
    "around 98% +- 1 and +- 0.3": (accuracy(0.98, 200), accuracy(0.98, 2000)),
    "around 98% +- 0.3 and +- 1": (accuracy(0.98, 2000), accuracy(0.98, 200)),
    "around 95% +- 2.2 and +- 0.7": (accuracy(0.95, 100), accuracy(0.95, 1000)),
    "98% +- 0.7 minus 90% +- 3": (accuracy(0.98, 400), accuracy(0.9, 100)),
    "98% +- 2 minus 99.4% +- 0.6": (accuracy(0.98, 50), accuracy(0.994, 165)),
    "speed 0.98 +- 0.004 minus 0.89 +- 0.01": (speed(0.98, 0.004), speed(0.89, 0.01)),
    "kappa 0.42 +- 0.03 minus 0.29 +- 0.02": (signed(0.42, 0.03), signed(0.29, 0.02)),
    "kappa 0.95 +- 0.05 minus 0.8 +- 0.02": (signed(0.95, 0.05), signed(0.8, 0.02)),
    "CKA 0.99 +- 0.01 minus 0.95 +- 0.01": (signed(0.99, 0.01), signed(0.95, 0.01)),
    "equal arms, exponential": (exponential(1.0), exponential(1.0)),
    "exponential +- 1 and +- 0.3": (exponential(1.0), exponential(0.3)),
    "equal arms, exponential, no range": (exponential(1.0, None), exponential(1.0, None)),
    "exponential +- 1 and +- 0.3, no range": (exponential(1.0, None), exponential(0.3, None)),
}
"""Two arms, of which the second is subtracted."""


def _samples(arms: Sequence[Arm], n: int) -> Values:
    return lambda rng, draws: np.stack([arm.sample(rng, (draws, n)) for arm in arms], axis=1)


def _kind(arms: Sequence[Arm], of: str) -> str:
    return f"{'ranged' if all(arm.range for arm in arms) else 'wide'}-{of}"


def means() -> Iterator[Simulation]:
    """Values of one arm."""
    for n in REPLICATES:
        for setting, arm in MEANS.items():
            batch = sums(_samples([arm], n), [1.0], [arm.range])
            yield Simulation(_kind([arm], "t"), setting, n, batch, arm.mean, arm.mean, SOME_EQUAL,
                             at_once=True)  # fmt: skip


def differences() -> Iterator[Simulation]:
    """Differences of two arms, and those of two that share a replicate's draw."""
    for n in REPLICATES:
        for setting, arms in DIFFERENCES.items():
            batch = sums(_samples(arms, n), [1.0, -1.0], [arm.range for arm in arms])
            truth = arms[0].mean - arms[1].mean
            yield Simulation(_kind(arms, "t"), setting, n, batch, truth, truth, SOME_EQUAL,
                             at_once=True)  # fmt: skip

        def shared(rng: np.random.Generator, draws: int, n: int = n) -> np.ndarray:
            return rng.normal(size=(draws, 1, n)) + rng.normal(size=(draws, 2, n))

        for kind, batch in (("ranged-t", sums(shared, [1.0, -1.0], [ANY, ANY])),
                            ("paired-student-t", student(shared, [1.0, -1.0]))):  # fmt: skip
            yield Simulation(kind, "a shared draw, no difference", n, batch, 0.0, 0.0, at_once=True)


def pairs_of_networks() -> Iterator[Simulation]:
    """Means over all pairs of R networks, by how much of the spread is that of the networks."""
    for setting, share in (("of the networks", 1.0), ("half", 0.5), ("of the pairs", 0.0)):
        for n in REPLICATES:

            def values(
                rng: np.random.Generator, draws: int, n: int = n, share: float = share
            ) -> np.ndarray:
                network = rng.normal(size=(draws, n))
                value = share * (network[:, :, None] + network[:, None, :])
                return _jackknifed(value + (1 - share) * rng.normal(size=(draws, n, n)))

            yield Simulation("ranged-t", f"all pairs, spread {setting}", n,
                             sums(values, [1.0], [ANY]), 0.0, 0.0, at_once=True)  # fmt: skip


def _jackknifed(pair_DRR: np.ndarray) -> np.ndarray:
    """Pseudo-values of the mean over pairs, whose mean is that. Shapes: (D, 1, R)."""
    upper_DRR = np.triu(pair_DRR, k=1)
    n = upper_DRR.shape[1]
    own_DR = upper_DRR.sum(axis=1) + upper_DRR.sum(axis=2)
    total_D1 = own_DR.sum(axis=1, keepdims=True) / 2
    without_DR = (total_D1 - own_DR) / ((n - 1) * (n - 2) / 2)
    pseudo_DR = n * total_D1 / (n * (n - 1) / 2) - (n - 1) * without_DR
    # The mean over pairs is linear in each, so that the pseudo-values have it as their mean.
    return pseudo_DR[:, None, :]


class Gains(NamedTuple):
    """Arms S, P and the baseline RI of (S - RI) / (P - RI)."""

    arm: Arm
    source: Arm
    baseline: Arm


def _apart(make: Callable[[float], Arm], deviation: float, distance: float, n: int) -> Gains:
    """Arms a deviation wide, the gain of P so many standard errors above 0, and half of it S."""
    gain = distance * deviation * np.sqrt(2 / n)
    return Gains(make(gain / 2), make(gain), make(0.0))


def ratios_of_gains() -> Iterator[Simulation]:
    """Shares of a gain that is so many standard errors above 0."""
    for n in REPLICATES:
        for distance in (4, 8):
            # There are bounds where a t-test finds the divisor above 0, with less than this power.
            power = float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, distance))
            for setting, gains in {
                "normal": _apart(lambda m: normal(m, 1.0), 1.0, distance, n),
                "uniform": _apart(lambda m: uniform(m, 3**0.5, ANY), 1.0, distance, n),
                "normal, no range": _apart(lambda m: normal(m, 1.0, None), 1.0, distance, n),
                "exponential, no range": _apart(
                    lambda m: exponential(1.0, None, m), 1.0, distance, n
                ),
            }.items():
                least = power / 2 if gains.arm.range else 0.0
                yield _ratio(f"{setting}, divisor {distance} errors above 0", n, gains, least)
        for setting, gains in {
            "accuracies of 98%, 98.5% and 95%": Gains(
                accuracy(0.98, 400), accuracy(0.985, 400), accuracy(0.95, 200)
            ),
            "accuracies of 97%, 99% and 90%": Gains(
                accuracy(0.97, 200), accuracy(0.99, 200), accuracy(0.9, 100)
            ),
            "speeds of 0.93, 0.98 and 0.89": Gains(
                speed(0.93, 0.008), speed(0.98, 0.004), speed(0.89, 0.01)
            ),
            "kappas of 0.6, 0.8 and 0.3": Gains(
                signed(0.6, 0.05), signed(0.8, 0.05), signed(0.3, 0.03)
            ),
            "distances of 3, 1 and 9, exponential": Gains(
                exponential(0.5, COUNT, 2.5), exponential(1.0), exponential(1.0, COUNT, 8.0)
            ),
        }.items():
            yield _ratio(setting, n, gains, 0.0)


def _ratio(setting: str, n: int, gains: Gains, bounded: float) -> Simulation:
    sign = 1.0 if gains.source.mean > gains.baseline.mean else -1.0
    over, under = (gains.arm, gains.baseline), (gains.source, gains.baseline)
    arms, weights = [*over, *under], [sign, -sign, sign, -sign]

    def values(rng: np.random.Generator, draws: int) -> np.ndarray:
        arm, source, baseline = (each.sample(rng, (draws, n)) for each in gains)
        return np.stack([arm, baseline, source, baseline], axis=1)

    truth = (over[0].mean - over[1].mean) / (under[0].mean - under[1].mean)
    batch = ratios(values, weights, [arm.range for arm in arms], 2)
    return Simulation(_kind(arms, "fieller"), setting, n, batch, truth, truth, bounded,
                      at_once=True, fewer=4)  # fmt: skip
