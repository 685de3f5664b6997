"""Intervals over replicates by formulas of the tests' own: one arm, two arms, near a bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

LEVEL_FACTORS = {3: 1.27, 4: 1.16, 5: 1.09, 6: 1.05, 7: 1.02}
OF_SHARES = (0.0, 1.0)
"""The range of accuracies and other shares."""
Ends = tuple[float, float] | None


def reach(value: float, half: float, low: float, high: float) -> list[float]:
    """The squared asymmetry of the score interval, by numerical solution of its equation.

    Its bounds are where the distance to the value is half, scaled by the standard deviation that a
    share has there.
    """
    x, h = (value - low) / (high - low), half / (high - low)
    if not 0 < x < 1 or not h:
        return [1.0, 1.0]

    def distance(mu: float) -> float:
        return (x - mu) ** 2 * x * (1 - x) - h**2 * mu * (1 - mu)

    ends = x - optimize.brentq(distance, 0, x), optimize.brentq(distance, x, 1) - x
    room = x / h, (1 - x) / h
    return [max(1.0, min((e / h) ** 2, r)) for e, r in zip(ends, room, strict=True)]


def of_level(values: Sequence[float], ends: Ends = None) -> list[float]:
    """The mean of one arm, and its bounds."""
    mean, n = float(np.mean(values)), len(values)
    half = LEVEL_FACTORS.get(n, 1.0) * stats.t.ppf(0.975, n - 1) * stats.sem(values)
    below, above = reach(mean, half, *ends) if ends else (1.0, 1.0)
    low, high = ends or (-np.inf, np.inf)
    return [mean, max(mean - below * half, low), min(mean + above * half, high)]


def of_difference(
    first: Sequence[float], second: Sequence[float], ends: Ends = None
) -> list[float | None]:
    """The mean of first minus second, paired, and its bounds; none where there is no spread."""
    arms = np.array([first, second], dtype=float)
    gain, spreads = arms[0] - arms[1], arms.std(axis=1)
    if not np.ptp(gain) > 1e-12:
        return [float(gain.mean()), None, None]
    half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
    parts = half * spreads / np.hypot(*spreads)
    sides = [
        reach(arm.mean(), part, *ends) if ends else [1.0, 1.0]
        for arm, part in zip(arms, parts, strict=True)
    ]
    below = np.hypot(sides[0][0] * parts[0], sides[1][1] * parts[1])
    above = np.hypot(sides[0][1] * parts[0], sides[1][0] * parts[1])
    return [float(gain.mean()), float(gain.mean() - below), float(gain.mean() + above)]
