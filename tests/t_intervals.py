"""Intervals over replicates by formulas of the tests' own: one arm, two arms, near a bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

EVEN_FACTORS = {3: 1.5, 4: 1.27, 5: 1.14, 6: 1.1, 7: 1.07, 8: 1.05, 9: 1.04, 10: 1.03}
OF_SHARES = (0.0, 1.0)
"""The range of accuracies and other shares."""
ANY = (-np.inf, np.inf)
"""Declared not to be skewed."""
Ends = tuple[float, float] | None


def quantile(n: int, ends: Ends, share: float = 1.0, level: float = 0.95) -> float:
    """Of Student-t, times the factor for the share of the variance that one arm has."""
    factor = 1 + (EVEN_FACTORS.get(n, 1.0) - 1) * max(2 * share - 1, 0.0)
    return float(stats.t.ppf((1 + level) / 2, n - 1)) * (factor if ends else 1 + 3.3 / n**0.5)


def reach(value: float, half: float, low: float, high: float) -> list[float]:
    """The asymmetry of the score interval to the power 2.5, by numerical solution of its equation.

    Its bounds are where the distance to the value is half, scaled by the standard deviation that a
    share has there.
    """
    if (low, high) == ANY:
        return [1.0, 1.0]
    if np.isinf(low) or np.isinf(high):
        sides = _of_one_end(value - low if np.isinf(high) else high - value, half)
        return sides if np.isinf(high) else sides[::-1]
    x, h = (value - low) / (high - low), half / (high - low)
    if not 0 < x < 1 or not h:
        return [1.0, 1.0]

    def distance(mu: float) -> float:
        return (x - mu) ** 2 * x * (1 - x) - h**2 * mu * (1 - mu)

    ends = x - optimize.brentq(distance, 0, x), optimize.brentq(distance, x, 1) - x
    room = x / h, (1 - x) / h
    return [max(1.0, min((e / h) ** 2.5, r)) for e, r in zip(ends, room, strict=True)]


def _of_one_end(x: float, h: float) -> list[float]:
    """Towards the end and away from it, at a distance x: (x - mu)^2 = h^2 mu / x."""
    bounds = np.sort(np.roots([1, -2 * x - h**2 / x, x**2]).real)
    reached = (np.abs(bounds - x) / h) ** 2.5
    return [max(1.0, min(float(reached[0]), x / h)), max(1.0, float(reached[1]))]


def of_level(values: Sequence[float], ends: Ends = None) -> list[float]:
    """The mean of one arm, and its bounds."""
    mean, n = float(np.mean(values)), len(values)
    half = quantile(n, ends) * stats.sem(values)
    below, above = reach(mean, half, *ends) if ends else (1.0, 1.0)
    low, high = ends or (-np.inf, np.inf)
    return [mean, max(mean - below * half, low), min(mean + above * half, high)]


def of_difference(
    first: Sequence[float], second: Sequence[float], ends: Ends = None, level: float = 0.95
) -> list[float | None]:
    """The mean of first minus second, paired, and its bounds; none where there is no spread."""
    arms = np.array([first, second], dtype=float)
    gain, spreads = arms[0] - arms[1], arms.std(axis=1)
    if not np.ptp(gain) > 1e-12:
        return [float(gain.mean()), None, None]
    share = float((spreads**2).max() / (spreads**2).sum())
    half = quantile(len(gain), ends, share, level) * stats.sem(gain)
    parts = half * spreads / np.hypot(*spreads)
    sides = [
        reach(arm.mean(), part, *ends) if ends else [1.0, 1.0]
        for arm, part in zip(arms, parts, strict=True)
    ]
    below = np.hypot(sides[0][0] * parts[0], sides[1][1] * parts[1])
    above = np.hypot(sides[0][1] * parts[0], sides[1][0] * parts[1])
    return [float(gain.mean()), float(gain.mean() - below), float(gain.mean() + above)]


def factor_of(arms: Sequence[Sequence[float]]) -> float:
    """Of Student-t's quantile for a sum of these weighted arms, not skewed."""
    variances = np.var(np.array(arms, dtype=float), axis=1)
    share = float(variances.max() / variances.sum())
    return quantile(len(arms[0]), ANY, share) / float(stats.t.ppf(0.975, len(arms[0]) - 1))


def p_value(first: Sequence[float], second: Sequence[float], threshold: float = 0.0) -> float:
    """Two-sided, of the paired difference being the threshold."""
    t = stats.ttest_1samp(np.subtract(first, second), threshold).statistic
    return float(2 * stats.t.sf(abs(t) / factor_of([first, second]), len(first) - 1))
