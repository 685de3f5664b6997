"""The power of a planned comparison, and the width that its interval will have.

From the standard deviation that a pilot measured: n replicates (or source networks) are normal with
that deviation, and the claim is judged by Student-t at ``level``, two-sided, with ``factor`` its
quantile (``level_factor`` for the mean of one arm).

Shape letters: K levels, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.statistics.concordance import tau_bounds
from transferbench.statistics.reaches import Ranges

__all__ = [
    "GOAL",
    "Levels",
    "expected_half_width",
    "needed",
    "order_power",
    "power_above",
    "power_within",
]

GOAL = 0.9
"""The power that a plan aims at."""
FEWEST = 3
MOST = 1000
"""Replicates beyond which a plan is not looked for."""
NODES = 4000
"""Of the integral over the sample deviation; with 4,000 its error is below 1e-6."""
DRAWS = 1000
"""Simulated samples of an order; the standard error of a power of 90% is 1%."""


class Levels(NamedTuple):
    """The effects at K levels, their ranges, and the deviation of each from its replicate's mean.

    An effect of several arms counts as one quantity with the range of their sum.
    """

    means: Sequence[float]
    deviation: float
    ranges: Ranges


def expected_half_width(
    deviation: float, n: int, level: float = 0.95, factor: float = 1.0
) -> float:
    """The expected half-width of Student-t's interval of a mean.

    Source: E[s] = c4 sigma, Holtzman 1950.
    """
    from scipy import special, stats

    freedom = n - 1
    log_c4 = special.gammaln(n / 2) - special.gammaln(freedom / 2)
    c4 = math.sqrt(2 / freedom) * math.exp(log_c4)
    return factor * float(stats.t.ppf((1 + level) / 2, freedom)) * c4 * deviation / math.sqrt(n)


def power_above(
    margin: float, deviation: float, n: int, level: float = 0.95, factor: float = 1.0
) -> float:
    """The probability that the interval of an effect lies above what it exceeds by ``margin``.

    Exact for normal values. Source: the noncentral t distribution.
    """
    from scipy import stats

    quantile = factor * stats.t.ppf((1 + level) / 2, n - 1)
    power = float(stats.nct.sf(quantile, n - 1, margin * math.sqrt(n) / deviation))
    # Far in its tail the noncentral t is not computed; there the power is all but 1 or 0.
    return power if math.isfinite(power) else float(margin > 0)


def power_within(
    effect: float,
    margin: float,
    deviation: float,
    n: int,
    level: float = 0.95,
    factor: float = 1.0,
) -> float:
    """The probability that the interval of ``effect`` lies inside (-margin, margin).

    This is two one-sided tests, each at (1 - level) / 2. Given the sample deviation the mean is
    normal; the mean over its distribution is an integral (Owen's Q).
    Error: 1e-6. Source: Phillips 1990, doi:10.1007/BF01063556.
    """
    from scipy import special, stats

    error, freedom = deviation / math.sqrt(n), n - 1
    quantile = factor * float(stats.t.ppf((1 + level) / 2, freedom))
    middle = (np.arange(NODES) + 0.5) / NODES
    ratio = np.sqrt(stats.chi2.ppf(middle, freedom) / freedom)  # s over sigma
    upper = (margin - effect) / error - quantile * ratio
    lower = (-margin - effect) / error + quantile * ratio
    inside = special.ndtr(upper) - special.ndtr(lower)
    return float(np.mean(np.maximum(inside, 0.0)))


def order_power(
    levels: Levels,
    against: Levels | None,
    holds: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n: int,
    seed: int,
    draws: int = DRAWS,
) -> float:
    """The share of simulated samples in which an order holds.

    ``holds``: of the bounds of Kendall's tau, of all samples at once. Levels of a sample are normal
    around their means, independent of each other and of those they are set ``against``.
    Error: binomial, of ``draws`` samples.
    """
    rng = np.random.default_rng(seed)
    sides = [side for side in (levels, against) if side is not None]
    samples = [
        rng.normal(np.asarray(side.means)[:, None], side.deviation, (draws, len(side.means), n))
        for side in sides
    ]
    return float(np.mean(holds(*tau_bounds(samples, [side.ranges for side in sides]))))


def needed(power_at: Callable[[int], float], goal: float = GOAL, most: int = MOST) -> int | None:
    """The fewest replicates with a power of ``goal``; None where ``most`` do not have it.

    ``power_at`` rises with the number of replicates.
    """
    high = FEWEST
    while power_at(high) < goal:
        if high >= most:
            return None
        high = min(2 * high, most)
    low = FEWEST
    while low < high:
        middle = (low + high) // 2
        if power_at(middle) >= goal:
            high = middle
        else:
            low = middle + 1
    return high
