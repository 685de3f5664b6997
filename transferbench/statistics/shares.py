"""Confidence intervals of shares and of their means, on their own scale: no bound leaves [0, 1].

Shape letters: K classes.
"""

from __future__ import annotations

import math

import numpy as np

from transferbench.statistics.intervals import Interval, method_name, wilson_bounds

__all__ = ["effective_wilson", "exact_share", "mean_of_shares"]


def exact_share(successes: float, n: int, level: float = 0.95) -> Interval:
    """The share of successes among ``n`` test items.

    Error: Clopper and Pearson's exact interval, which covers 95% at least, whatever the share.
    Rejected: Wilson's score interval; next to 0 and 1 it covers 84% for any n, and 93% of shares
    around 0.5 of 20 to 100 items. Of 1,000 items the exact interval is 3 to 4% wider.
    Source: Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404; Brown, Cai, DasGupta 2001 for
    the coverage of Wilson's.
    """
    method = method_name("exact", level)
    if n < 1:
        return Interval(None, None, None, 0, method, "no items")
    low, high = _exact_bounds(np.float64(successes), np.float64(n), level)
    share = successes / n
    return Interval(share, min(float(low), share), max(float(high), share), n, method)


def _exact_bounds(
    successes: np.ndarray | np.float64, counts: np.ndarray | np.float64, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of Beta distributions; one with a parameter of 0 has its mass at a bound."""
    from scipy.special import betaincinv  # 0.14 s: too long for --help

    missed, tail = counts - successes, (1 - level) / 2
    low = betaincinv(np.where(successes > 0, successes, 1), missed + 1, tail)
    high = betaincinv(successes + 1, np.where(missed > 0, missed, 1), 1 - tail)
    return np.where(successes > 0, low, 0.0), np.where(missed > 0, high, 1.0)


def mean_of_shares(successes: np.ndarray, counts: np.ndarray, level: float = 0.95) -> Interval:
    """The mean of the shares of K independent classes, each with one item at least.

    The wider of two intervals on each side, so that the bounds stay within [0, 1], and differ where
    all shares are 0 or 1. One recovers the errors of the shares from their exact intervals; it
    holds for a few classes of unequal shares. Of many classes near 1 those without an error reach
    no further upwards: alone it covers 85 to 92% of shares of 0.95 to 0.99 in 10 or more classes.
    The other is the exact interval of one share, of the number of items that has the variance of
    the mean; alone it covers 87% of shares of 1, 1 and 0.5 (45, 12 and 3 items).

    Shapes: (K,) both. Error: MOVER and Clopper and Pearson. Coverage: ``make coverage``.
    Source: Zou and Donner 2008, doi:10.1002/sim.3095; Clopper and Pearson 1934; Korn and Graubard
    1998 for effective sizes.
    """
    method, n = method_name("mean-exact", level), int(np.sum(counts))
    if not n:
        return Interval(None, None, None, 0, method, "no items")
    hits_K, count_K = np.asarray(successes, np.float64), np.asarray(counts, np.float64)
    share_K, (low_K, high_K) = hits_K / count_K, _exact_bounds(hits_K, count_K, level)
    value, classes = float(share_K.mean()), len(share_K)
    below = math.sqrt(((share_K - low_K) ** 2).sum()) / classes
    above = math.sqrt(((high_K - share_K) ** 2).sum()) / classes
    size = _effective_size(value, hits_K, count_K)
    pooled = _exact_bounds(np.float64(value * size), np.float64(size), level)
    low, high = min(value - below, float(pooled[0])), max(value + above, float(pooled[1]))
    return Interval(value, max(low, 0.0), min(high, 1.0), n, method)


def _effective_size(value: float, hits_K: np.ndarray, count_K: np.ndarray) -> float:
    """The items whose share varies like the mean: at most those of classes with one share.

    A class whose few items are all right has a variance all the same: each has one item more, of
    the mean share.
    """
    classes = len(count_K)
    most = classes / float((1 / count_K).mean())
    smoothed_K = (hits_K + value) / (count_K + 1)
    variance = float((smoothed_K * (1 - smoothed_K) / count_K).sum()) / classes**2
    return min(most, value * (1 - value) / variance) if variance > 0 else most


def effective_wilson(share: float, size: float, n: int, level: float = 0.95) -> Interval:
    """A share of ``n`` items that varies like one of ``size`` independent items.

    Error: Wilson's score interval for the effective sample size share (1 - share) / variance.
    Source: Korn and Graubard 1998, Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data, for effective sizes.
    """
    low, high = wilson_bounds(share, size, level)
    return Interval(share, low, high, n, method_name("wilson-effective", level))
