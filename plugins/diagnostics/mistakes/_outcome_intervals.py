"""Intervals of the statistics of a pair's outcomes, from exact intervals of shares.

Shape letters: L labels, T outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from transferbench.statistics import Interval, exact_share
from transferbench.statistics.intervals import method_name

__all__ = ["outcome_intervals"]

LEVEL = 0.95


def outcome_intervals(tables_LT: np.ndarray) -> list[Interval]:
    """Those of ``outcome_statistics`` over test items, label by label.

    Shapes: (L, T) counts. Error: exact (Clopper and Pearson) for counts and shares, those among the
    errors given their number; ``_kappa_interval`` for kappa.
    """
    return [interval for table_T in tables_LT.tolist() for interval in _intervals(table_T)]


def _intervals(table_T: Sequence[float]) -> list[Interval]:
    right, only_a, only_b, same, other = table_T
    n, common = round(sum(table_T)), same + other
    errors = only_a + only_b + common
    return [
        *(_count(count, n) for count in (common, only_a, only_b)),
        exact_share(common, round(errors), LEVEL),
        exact_share(right + same, n, LEVEL),
        exact_share(same, round(common), LEVEL),
        _kappa_interval(only_a, only_b, common, n),
    ]


def _count(count: float, n: int) -> Interval:
    share = exact_share(count, n, LEVEL)
    if share.low is None or share.high is None:
        return share
    return share._replace(value=count, low=n * share.low, high=n * share.high)


def _kappa_interval(only_a: float, only_b: float, common: float, n: int) -> Interval:
    """Error consistency, a function of three shares that are independent given their numbers.

    With u the items that either gets wrong among all, j the common ones among these and s those of
    a among the others, the deviations of kappa at the bounds of each are combined (MOVER).
    Error: 95% and more are covered for kappa of 0 and more; below, where networks avoid each
    other's errors, 92% and more from 50 items on. A percentile bootstrap covers 56 to 75% for 2%
    errors of 200 items, and has no width where no error is common, or all are.
    Source: Zou and Donner 2008, doi:10.1002/sim.3095; Clopper and Pearson 1934.
    """
    method, single = method_name("kappa-exact", LEVEL), only_a + only_b
    errors = single + common
    if not errors or common == n:
        reason = "both are right everywhere, or wrong everywhere"
        return Interval(None, None, None, n, method, reason)
    j, j_low, j_high = _bounds(common, errors)
    u, u_low, u_high = _bounds(errors, n)
    s, s_low, s_high = _bounds(only_a, single) if single else (0.5, 0.0, 1.0)
    # Kappa rises with j, falls with u, and is least where both err equally often.
    equal, unequal = min(max(0.5, s_low), s_high), max(s_low, s_high, key=lambda x: abs(x - 0.5))
    value = _kappa_of(j, u, s)
    lowest = _kappa_of(j_low, u, s), _kappa_of(j, u_high, s), _kappa_of(j, u, equal)
    highest = _kappa_of(j_high, u, s), _kappa_of(j, u_low, s), _kappa_of(j, u, unequal)
    below = math.hypot(*(max(value - kappa, 0.0) for kappa in lowest))
    above = math.hypot(*(max(kappa - value, 0.0) for kappa in highest))
    return Interval(value, max(value - below, -1.0), min(value + above, 1.0), n, method)


def _bounds(count: float, n: float) -> tuple[float, float, float]:
    """A share of at least one item, with its bounds."""
    share = exact_share(count, round(n), LEVEL)
    return share.value or 0.0, share.low or 0.0, share.high or 0.0


def _kappa_of(j: float, u: float, s: float) -> float:
    """Kappa where u of the items are wrong, j of these in both, and s of the others in a alone.

    1 where the errors are the same; at least -1.
    """
    common, single = j * u, (1 - j) * u
    a, b = common + s * single, common + (1 - s) * single
    if single == 0:
        return 1.0
    return max(1 - single / (a + b - 2 * a * b), -1.0)
