"""How far effects rise with their position, or with other effects: Kendall's tau with an interval.

A rank correlation of means takes few values. Where every replicate left out keeps the order, the
jackknife gives it an interval without width, which says that the sample is stable and not that the
order is certain: of two equal levels, one is always ahead. So each pair of levels is tested, and
the interval follows from the number of pairs whose order is established.

Shape letters: K levels, N pairs of levels, R replicates, S distinct summands of the levels, T
summands of a pair; ``...``: samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.statistics.exclusion import excluding_errors
from transferbench.statistics.intervals import (
    Interval,
    Jackknifed,
    jackknifed,
    method_name,
    units_of,
)
from transferbench.statistics.reaches import Moments, Ranges, ends_of
from transferbench.statistics.sums import Summand

__all__ = ["concordance", "concordance_at", "pair_signs", "tau_bounds"]

EQUAL = 1e-9
"""Differences of replicates that vary by less than this share of the effects are equal."""


def concordance(
    effects: Sequence[Sequence[Summand]],
    against: Sequence[Sequence[Summand]],
    replicates: Sequence[int],
    level: float = 0.95,
    networks: int = 1,
) -> Interval:
    """Kendall's tau of K >= 2 effects with their position, or with K others ``against`` them.

    An effect is a weighted sum. Tau is (concordant - discordant) / N over the N pairs of levels;
    equal ones are neither. The p-value of a pair is the smallest error at which the interval of
    ``weighted_sum`` of its difference excludes 0; what follows from others (a < b and b < c) is as
    certain as the least certain of them. Against effects, both orders must be established, at half
    the level since both directions would do. That at least u of N pairs are concordant is
    established where (N - u + 1) p_(u) <= (1 - level) / 2 for the u-th smallest p-value; between
    the values of tau the bound moves with that p-value, so that no finite number of replicates
    makes it 1. Of several source ``networks`` (as in ``jackknife``) each gives one pseudo-value.

    Error: the bounds hold at ``level`` whatever the dependence between pairs, where intervals of
    differences do: also of skewed effects with unequal spread. Coverage and power:
    ``make coverage``.
    Source: Kendall 1938; Benjamini and Heller 2008, doi:10.1111/j.1541-0420.2007.00984.x, for the
    number of true hypotheses; Berger 1982 for the intersection of them.
    """
    return concordance_at(effects, against, replicates, networks)(level)


def concordance_at(
    effects: Sequence[Sequence[Summand]],
    against: Sequence[Sequence[Summand]],
    replicates: Sequence[int],
    networks: int = 1,
) -> Callable[[float], Interval]:
    """``concordance`` by its level: the pairs, which do not depend on it, are tested once."""
    n = len(units_of(replicates, networks))
    sides = [
        [_level(summands, replicates, networks) for summands in side]
        for side in (effects, against)
        if side
    ]
    parts = [part for side in sides for level in side for part in level.parts]
    undefined = next((part.reason for part in parts if part.value is None), None)
    reason = undefined or next((part.reason for part in parts if part.reason), None)
    signs = [pair_signs([level.value for level in side]) for side in sides]
    tau = None if undefined else float(np.mean(np.prod(signs, axis=0)))
    if reason:
        return lambda level: Interval(
            tau, None, None, n, method_name("pairs", level, networks), reason
        )
    concordant_N, discordant_N = _p_values([_order(_levels(side)) for side in sides])

    def at(level: float) -> Interval:
        low, high = _bounds(concordant_N, discordant_N, level)
        return Interval(tau, float(low), float(high), n, method_name("pairs", level, networks))

    return at


def tau_bounds(
    sides: Sequence[np.ndarray], ranges: Sequence[Ranges], level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of ``concordance`` for the means of values, of many samples at once.

    ``sides``: the levels, and those that they are set against, with the ``ranges`` of their values.
    Shapes: (..., K, R) each, R at least 2; ranges (K,) each; (...) both results.
    """
    levels = [
        _Levels(value.mean(axis=-1), value, np.eye(len(ends)), ends, _moments(value))
        for value, ends in zip(sides, ranges, strict=True)
    ]
    return _bounds(*_p_values([_order(side) for side in levels]), level)


class _Level(NamedTuple):
    """An effect: its summands with their pseudo-values."""

    summands: Sequence[Summand]
    parts: Sequence[Jackknifed]

    @property
    def value(self) -> float:
        values = (s.weight * (part.value or 0.0) for s, part in zip(*self, strict=True))
        return sum(values)


def _level(summands: Sequence[Summand], replicates: Sequence[int], networks: int) -> _Level:
    return _Level(summands, [jackknifed(s.estimate, replicates, networks) for s in summands])


def pair_signs(values: Sequence[float]) -> np.ndarray:
    """The sign of the difference of each pair of K values, the later minus the earlier: (N,)."""
    first_N, second_N = np.triu_indices(len(values), k=1)
    value_K = np.asarray(values)
    signs: np.ndarray = np.sign(value_K[second_N] - value_K[first_N])
    return signs


class _Levels(NamedTuple):
    """The levels of one side, as weighted sums of the same summands, each of which occurs once.

    Shapes: value (..., K), pseudo (..., K, R), weight (K, S), ranges (S,), moments (..., S).
    """

    value: np.ndarray
    pseudo: np.ndarray
    weight: np.ndarray
    ranges: Ranges
    moments: Moments


def _levels(levels: Sequence[_Level]) -> _Levels:
    parts = [pair for level in levels for pair in zip(*level, strict=True)]
    # What two levels share, such as a baseline, cancels in their difference.
    names = [(part.pseudo.tobytes(), summand.range) for summand, part in parts]
    index = {name: s for s, name in enumerate(dict.fromkeys(names))}
    distinct = dict(zip(names, parts, strict=True))
    weight_KS = np.zeros((len(levels), len(index)))
    whose = [k for k, level in enumerate(levels) for _ in level.parts]
    for k, name, (summand, _) in zip(whose, names, parts, strict=True):
        weight_KS[k, index[name]] += summand.weight
    pseudo_SR = np.array([distinct[name][1].pseudo for name in index])
    value_S = np.array([distinct[name][1].value for name in index], dtype=np.float64)
    return _Levels(
        np.array([level.value for level in levels]),
        weight_KS @ pseudo_SR,
        weight_KS,
        [ends for _, ends in index],
        _moments(pseudo_SR)._replace(value=value_S),
    )


def _moments(values: np.ndarray) -> Moments:
    """Shapes: (..., S, R)."""
    return Moments(values.mean(axis=-1), values.std(axis=-1, ddof=1), np.empty(0))


class _Order(NamedTuple):
    """The p-values of the rise and of the fall of each pair of levels. Shapes: (..., N)."""

    rising: np.ndarray
    falling: np.ndarray


def _order(levels: _Levels) -> _Order:
    first_N, second_N = np.triu_indices(len(levels.weight), k=1)
    pseudo_NR = levels.pseudo[..., second_N, :] - levels.pseudo[..., first_N, :]
    difference_N = levels.value[..., second_N] - levels.value[..., first_N]
    spread_N = pseudo_NR.std(axis=-1, ddof=1)
    # Equal differences tell no error; rounding must not make one of them.
    size = np.abs(levels.pseudo).max(axis=(-2, -1))
    known_N = spread_N > EQUAL * np.sqrt(pseudo_NR.shape[-1]) * size[..., None]
    spread_N = np.where(known_N, spread_N, 1.0)
    p_N = _pair_errors(levels, difference_N, spread_N, pseudo_NR.shape[-1])
    p_KK = np.ones((*levels.value.shape, levels.value.shape[-1]))
    p_KK[..., first_N, second_N] = np.where(known_N & (difference_N > 0), p_N, 1.0)
    p_KK[..., second_N, first_N] = np.where(known_N & (difference_N < 0), p_N, 1.0)
    for between in range(levels.value.shape[-1]):
        path_KK = np.maximum(p_KK[..., :, between, None], p_KK[..., None, between, :])
        p_KK = np.minimum(p_KK, path_KK)
    return _Order(p_KK[..., first_N, second_N], p_KK[..., second_N, first_N])


def _pair_errors(
    levels: _Levels, difference_N: np.ndarray, spread_N: np.ndarray, n: int
) -> np.ndarray:
    """The smallest error at which the interval of a difference excludes 0. Shapes: (..., N)."""
    first_N, second_N = np.triu_indices(len(levels.weight), k=1)
    weight_NS = levels.weight[second_N] - levels.weight[first_N]
    most = max(1, int(np.count_nonzero(weight_NS, axis=1).max()))
    which_NT = np.argsort(weight_NS == 0, axis=1, kind="stable")[:, :most]
    weight_NT = np.take_along_axis(weight_NS, which_NT, axis=1)
    without_S = np.array([ends is None for ends in levels.ranges])
    return excluding_errors(
        weight_NT * np.where(difference_N < 0, -1.0, 1.0)[..., None],
        ends_of(levels.ranges)[:, which_NT],
        (without_S[which_NT] & (weight_NT != 0)).any(axis=1),
        Moments(
            levels.moments.value[..., which_NT],
            levels.moments.deviation[..., which_NT],
            levels.moments.covariance,
        ),
        np.abs(difference_N),
        spread_N,
        n,
    )


def _p_values(orders: Sequence[_Order]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair being concordant, and of its being discordant. Shapes: (..., N)."""
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


def _bounds(
    concordant_N: np.ndarray, discordant_N: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    pairs, alpha = concordant_N.shape[-1], (1 - level) / 2
    low = 2 * _established(concordant_N, alpha) / pairs - 1
    return low, 1 - 2 * _established(discordant_N, alpha) / pairs


def _established(p_N: np.ndarray, alpha: float) -> np.ndarray:
    """The lower bound of the number of pairs that are as tested, between u - 1 and u of N.

    Shapes: (..., N) to (...).
    """
    count = p_N.shape[-1]
    # At 1 the u-th is just established, at 0 beyond doubt.
    share_N = np.arange(count, 0, -1) * np.sort(p_N, axis=-1) / alpha
    bound_N: np.ndarray = np.where(share_N < 1, np.arange(1, count + 1) - share_N, 0.0)
    established: np.ndarray = bound_N.max(axis=-1, initial=0.0)
    return established
