"""How far effects rise with their position, or with other effects: Kendall's tau with an interval.

A rank correlation of means takes few values. Where every replicate left out keeps the order, the
jackknife gives it an interval without width, which says that the sample is stable and not that the
order is certain: of two equal levels, one is always ahead. So each pair of levels is tested, and
the interval follows from the number of pairs whose order is established.

Shape letters: K levels, N pairs of levels, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transferbench.statistics.intervals import (
    Estimator,
    Interval,
    Jackknifed,
    jackknifed,
    method_name,
    units_of,
)
from transferbench.statistics.p_values import LEAST

__all__ = ["concordance", "tau_bounds"]

EQUAL = 1e-9
"""Differences of replicates that vary by less than this share of the effects are equal."""


def concordance(
    effects: Sequence[Estimator],
    against: Sequence[Estimator],
    replicates: Sequence[int],
    level: float = 0.95,
    networks: int = 1,
) -> Interval:
    """Kendall's tau of K >= 2 effects with their position, or with K others ``against`` them.

    Tau is (concordant - discordant) / N over the N pairs of levels; equal ones are neither. A pair
    is tested by Student-t over the pseudo-values of its difference; what follows from others (a < b
    and b < c) is as certain as the least certain of them. Against effects, both orders must be
    established, at half the level since both directions would do. That at least u of N pairs are
    concordant is established where (N - u + 1) p_(u) <= (1 - level) / 2 for the u-th smallest
    p-value; between the values of tau the bound moves with that p-value, so that no finite number
    of replicates makes it 1. Of several source ``networks`` (as in ``jackknife``) each gives one
    pseudo-value.

    Error: the bounds hold at ``level`` whatever the dependence between pairs, given normal effects;
    of skewed ones with unequal spread 4 to 8% of orders are established falsely instead of 2.5%.
    Coverage and power: ``make coverage``.
    Source: Kendall 1938; Benjamini and Heller 2008, doi:10.1111/j.1541-0420.2007.00984.x, for the
    number of true hypotheses; Berger 1982 for the intersection of them.
    """
    n, method = len(units_of(replicates, networks)), method_name("pairs", level, networks)
    sides = [
        [jackknifed(effect, replicates, networks) for effect in side] for side in (effects, against)
    ]
    every = [effect for side in sides for effect in side]
    if None in [effect.value for effect in every]:
        reason = next(effect.reason for effect in every if effect.value is None)
        return Interval(None, None, None, n, method, reason)
    orders = [_order(side) for side in sides if side]
    tau = float(np.mean(np.prod([order.sign for order in orders], axis=0)))
    if reason := next((effect.reason for effect in every if effect.reason), None):
        return Interval(tau, None, None, n, method, reason)
    return Interval(tau, *_bounds(orders, level), n, method)


def tau_bounds(sides: Sequence[np.ndarray], level: float = 0.95) -> tuple[float, float]:
    """The bounds of ``concordance`` for the means of values, at once.

    ``sides``: the levels, and those that they are set against. Shapes: (K, R) each, R at least 2.
    """
    return _bounds([_order_of(value_KR.mean(axis=1), value_KR) for value_KR in sides], level)


def _bounds(orders: Sequence[_Order], level: float) -> tuple[float, float]:
    concordant_N, discordant_N = _p_values(orders)
    pairs, alpha = len(concordant_N), (1 - level) / 2
    low = 2 * _established(concordant_N, alpha) / pairs - 1
    return low, 1 - 2 * _established(discordant_N, alpha) / pairs


class _Order(NamedTuple):
    """The pairs of levels of one side: the sign of the difference, p-values of rise and fall.

    Shapes: (N,) each.
    """

    sign: np.ndarray
    rising: np.ndarray
    falling: np.ndarray


def _order(effects: Sequence[Jackknifed]) -> _Order:
    value_K = np.array([effect.value for effect in effects], dtype=np.float64)
    return _order_of(value_K, np.array([effect.pseudo for effect in effects]))


def _order_of(value_K: np.ndarray, pseudo_KR: np.ndarray) -> _Order:
    first_N, second_N = np.triu_indices(len(value_K), k=1)
    p_KK = _rising(value_K, pseudo_KR)
    sign_N = np.sign(value_K[second_N] - value_K[first_N])
    return _Order(sign_N, p_KK[first_N, second_N], p_KK[second_N, first_N])


def _rising(value_K: np.ndarray, pseudo_KR: np.ndarray) -> np.ndarray:
    """The p-value of the second level's effect not being above the first's. Shapes: (K, K)."""
    from scipy.special import stdtr  # 0.14 s: too long for --help

    replicates = pseudo_KR.shape[1]
    if replicates < 2:
        return np.ones((len(value_K), len(value_K)))
    difference_KK = value_K[None, :] - value_K[:, None]
    spread_KK = np.std(pseudo_KR[None, :, :] - pseudo_KR[:, None, :], axis=2, ddof=1)
    error_KK = spread_KK / math.sqrt(replicates)
    # Equal differences tell no error; rounding must not make one of them.
    known_KK = error_KK > EQUAL * np.abs(pseudo_KR).max(initial=0)
    t_KK = np.divide(difference_KK, error_KK, out=np.zeros_like(error_KK), where=known_KK)
    # Far in its tail a p-value would vanish beside 1, and the interval have no width.
    p_KK: np.ndarray = np.where(known_KK, np.maximum(stdtr(replicates - 1, -t_KK), LEAST), 1.0)
    for between in range(len(value_K)):
        path_KK = np.maximum(p_KK[:, between, None], p_KK[None, between, :])
        p_KK = np.minimum(p_KK, path_KK)
    return p_KK


def _p_values(orders: Sequence[_Order]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair being concordant, and of its being discordant. Shapes: (N,)."""
    first, *others = orders
    if not others:
        return first.rising, first.falling
    (other,) = others
    alike_N = np.minimum(
        np.maximum(first.rising, other.rising), np.maximum(first.falling, other.falling)
    )
    unlike_N = np.minimum(
        np.maximum(first.rising, other.falling), np.maximum(first.falling, other.rising)
    )
    return 2 * alike_N, 2 * unlike_N


def _established(p_N: np.ndarray, alpha: float) -> float:
    """The lower bound of the number of pairs that are as tested, between u - 1 and u of N."""
    count = len(p_N)
    # At 1 the u-th is just established, at 0 beyond doubt.
    share_N = np.arange(count, 0, -1) * np.sort(p_N) / alpha
    bound_N = np.where(share_N < 1, np.arange(1, count + 1) - share_N, 0.0)
    return float(bound_N.max(initial=0.0))
