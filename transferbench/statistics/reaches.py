"""How far the bounds of weighted sums of arms lie from their values, for many samples at once.

Shape letters: R replicates, S summands; ``...``: samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from transferbench.statistics.intervals import t_quantile

__all__ = [
    "SKEWED",
    "Moments",
    "Range",
    "Ranges",
    "ends_of",
    "moments_of",
    "quantile_factor",
    "range_of_sum",
    "ratio_bounds",
    "reach",
    "reaches",
    "sum_bounds",
]

Range: TypeAlias = tuple[float, float]
"""The least and the largest value of a quantity; one of them may be infinite."""

Ranges: TypeAlias = Sequence[Range | None]

EVEN_FACTORS = {2: 1.7, 3: 1.5, 4: 1.27, 5: 1.14, 6: 1.1, 7: 1.07, 8: 1.05, 9: 1.04, 10: 1.03}
"""Of Student-t's quantile where one arm has all the variance, and quantities have ranges: with the
quantile itself 3.9% (n = 3) and 3.3% (n = 5) of uniform samples lie beyond a bound."""
SKEWED = 3.3
"""Of a quantity without a range, over the root of n: it may be as skewed as an exponential one, of
which 10.9% (n = 3) to 9.6% (n = 10) lie beyond a bound of Student-t. What skewness changes falls
with the root of n (Johnson 1978, doi:10.1080/01621459.1978.10480051); 3.3 is enough from n = 3."""
EXPONENT = 2.5
"""Of the asymmetry of the score interval: replicates are more skewed than a share or a count, since
their deviation rises with the distance to the end, not its root. With 1 up to 5%, with 2 up to 3.2%
of samples lie beyond the outer bound, the latter for the difference of a skewed arm and another."""
DOUBLINGS, HALVINGS = 60, 30
"""Of the distance between a ratio and its bound, until it is enclosed, and until it is exact."""


class Moments(NamedTuple):
    """Of S summands: values, deviations, and the covariance of their weighted values.

    Shapes: (..., S), (..., S) and (..., S, S).
    """

    value: np.ndarray
    deviation: np.ndarray
    covariance: np.ndarray


def moments_of(weights: Sequence[float], value: np.ndarray, values: np.ndarray) -> Moments:
    """From the values of replicates, or their pseudo-values. Shapes: (..., S), (..., S, R)."""
    centred = values - values.mean(axis=-1, keepdims=True)
    weighted = centred * np.asarray(weights)[:, None]
    freedom = values.shape[-1] - 1
    covariance = weighted @ np.swapaxes(weighted, -1, -2) / freedom
    return Moments(value, np.sqrt(np.square(centred).sum(axis=-1) / freedom), covariance)


def quantile_factor(wide: np.ndarray | bool, n: int, share: np.ndarray) -> np.ndarray:
    """Of Student-t's quantile for a sum in which one summand has this ``share`` of the variance.

    ``wide``: whether a quantity has no range.
    Student-t is exact for normal values. The sum of two arms with equal variance is close to one,
    whatever their distribution; that of one arm is not.
    """
    even = 1 + (EVEN_FACTORS.get(n, 1.0) - 1) * np.maximum(2 * share - 1, 0.0)
    return np.where(wide, 1 + SKEWED / math.sqrt(n), even)


def reaches(
    weights: Sequence[float] | np.ndarray,
    ranges: Ranges,
    moments: Moments,
    spread: np.ndarray,
    n: int,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """How far the bounds of a weighted sum lie below and above it, before they are cut.

    The squared half-width of Student-t is divided between the summands in proportion to their
    variances, so that what they share stays cancelled, and each part is widened by ``_asymmetry``.
    ``spread``: the deviation of the sum. Shapes: weights (S,) or (..., S), ``spread`` and both
    results (...). Source: Zou and Donner 2008, doi:10.1002/sim.3095, for the sum of intervals.
    """
    weight_S = np.asarray(weights, dtype=np.float64)
    own_S = np.abs(weight_S) * moments.deviation
    total = np.square(own_S).sum(axis=-1)
    total = np.where(total > 0, total, 1.0)  # without any variance nothing is reached
    share = np.square(own_S).max(axis=-1) / total
    scale = quantile_factor(None in ranges, n, share) * t_quantile(n - 1, level) / math.sqrt(n)
    scale = scale * spread / np.sqrt(total)
    ends = ends_of(ranges)
    below, above = (reach(sign * weight_S, ends, moments, scale) for sign in (1, -1))
    return below, above


def ends_of(ranges: Ranges) -> np.ndarray:
    """The least and the largest value of each quantity, infinite without a range; (2, S)."""
    return np.array([ends or (-math.inf, math.inf) for ends in ranges]).reshape(-1, 2).T


def reach(weight: np.ndarray, ends: np.ndarray, moments: Moments, scale: np.ndarray) -> np.ndarray:
    """How far below itself a sum reaches, of summands whose errors are ``scale`` deviations.

    Shapes: weight (S,) or (..., S), ends (2, S) or (2, ..., S), scale and the result (...).
    """
    squared = np.zeros_like(scale)
    for i in range(weight.shape[-1]):
        value, deviation = moments.value[..., i], moments.deviation[..., i]
        below, above = value - ends[0][..., i], ends[1][..., i] - value
        # A summand with a negative weight is at its high end where the sum is at its low end.
        positive = weight[..., i] > 0
        near, far = np.where(positive, below, above), np.where(positive, above, below)
        error = np.abs(weight[..., i]) * deviation * scale
        squared = squared + np.square(error * _asymmetry(near, far, deviation * scale))
    reached: np.ndarray = np.sqrt(squared)
    return reached


def _asymmetry(near: np.ndarray, far: np.ndarray, error: np.ndarray) -> np.ndarray:
    """How many times ``error`` an arm reaches towards an end of its range.

    ``near``: the distance to that end, infinite without one; ``far``: that to the other end.
    Wilson's score interval takes the variance at the bound in place of that at the value, as if it
    rose with the distance to the end of the range; its asymmetry is that of a share, and next to
    the only end of a half-open range that of a count. ``EXPONENT`` makes it that of replicates. It
    never reaches beyond the end. In the middle of the range, and without an end, the factor is 1.
    Shapes: any, the same for all.
    """
    inside = (near > 0) & (far > 0) & (error > 0)
    error = np.where(inside, error, 1.0)
    # The error in units of the distance to each end; u^2 (1 + p q) - (q - p) u - 1 = 0.
    p, q = (np.where(inside, error / np.where(inside, room, 1.0), 1.0) for room in (near, far))
    u = np.sqrt(1 + np.square(p + q) / 4) - (p - q) / 2
    reached = (u / (1 + p * q)) ** EXPONENT
    # At most as far as the end, which is 1 / p errors away.
    return np.where(inside, np.maximum(1.0, reached / np.maximum(1.0, reached * p)), 1.0)


def sum_bounds(
    weights: Sequence[float],
    ranges: Ranges,
    moments: Moments,
    n: int,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of weighted sums, cut at the range of the sum. Shapes: (...) both."""
    value = moments.value @ np.asarray(weights, dtype=np.float64)
    spread = np.sqrt(moments.covariance.sum(axis=(-2, -1)))
    below, above = reaches(weights, ranges, moments, spread, n, level)
    least, most = range_of_sum(weights, ranges)
    return (
        np.maximum(value - below, np.minimum(least, value)),
        np.minimum(value + above, np.maximum(most, value)),
    )


def range_of_sum(weights: Sequence[float], ranges: Ranges) -> Range:
    """The least and the most of a weighted sum; infinite where a summand has no range."""
    lows, highs = [], []
    for weight, ends in zip(weights, ranges, strict=True):
        low, high = ends or (-math.inf, math.inf)
        both = (weight * low, weight * high) if weight else (0.0, 0.0)
        lows.append(min(both))
        highs.append(max(both))
    return sum(lows), sum(highs)


def ratio_bounds(
    weights: Sequence[float],
    ranges: Ranges,
    moments: Moments,
    over: int,
    n: int,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of U / V, for U the sum of the first ``over`` summands and V that of the rest.

    They contain each rho for which the bounds of U - rho V contain 0 (Fieller 1954); NaN where
    those of V contain 0. Shapes: (...) both.
    """
    contrast = _contrasts(np.asarray(weights, dtype=np.float64), ranges, moments, over, n, level)
    lowest, bottom, _ = contrast(0.0, np.array(1.0))
    positive = lowest > 0
    bottom = np.where(positive, bottom, 1.0)
    ratio = contrast(1.0, np.array(0.0))[1] / bottom
    low, _, high = contrast(1.0, -ratio)
    bounds = []
    for sign, width in ((-1.0, -low), (1.0, high)):
        step = np.where(positive, width, 1.0) / bottom

        def excludes(step: np.ndarray, sign: float = sign) -> np.ndarray:
            """Whether 0 is outside the bounds of U - rho V, on the side of ``sign``."""
            low, _, high = contrast(1.0, -(ratio + sign * step))
            return (high < 0 if sign > 0 else low > 0) | ~positive

        for _ in range(DOUBLINGS):
            out = excludes(step)
            if np.all(out):
                break
            step = np.where(out, step, 2 * step)
        inside, outside = np.zeros_like(step), step
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            out = excludes(middle)
            inside, outside = np.where(out, inside, middle), np.where(out, middle, outside)
        bounds.append(np.where(positive, ratio + sign * outside, np.nan))
    return bounds[0], bounds[1]


def _contrasts(
    weight_S: np.ndarray, ranges: Ranges, moments: Moments, over: int, n: int, level: float
) -> Callable[[float, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The lower bound, the value and the upper bound of a U + b V, of numbers or arrays (...)."""
    is_over = np.arange(len(weight_S)) < over
    value_U, value_V = (moments.value @ np.where(side, weight_S, 0) for side in (is_over, ~is_over))
    own_U, own_V = (moments.covariance[..., s, :][..., s].sum(axis=(-2, -1))
                    for s in (is_over, ~is_over))  # fmt: skip
    shared = moments.covariance[..., is_over, :][..., ~is_over].sum(axis=(-2, -1))

    def contrast(a: float, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value = a * value_U + b * value_V
        variance = a * a * own_U + 2 * a * b * shared + b * b * own_V
        spread = np.sqrt(np.maximum(variance, 0.0))
        signed_S = weight_S * np.where(is_over, a, b[..., None])
        below, above = reaches(signed_S, ranges, moments, spread, n, level)
        return value - below, value, value + above

    return contrast
