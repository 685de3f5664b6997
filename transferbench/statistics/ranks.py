"""Ranks of entries with intervals: how far the differences of their scores are certain."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from statistics import fmean
from typing import NamedTuple, TypeAlias

from transferbench.statistics.intervals import Interval, deviation, units_of
from transferbench.statistics.p_values import holm
from transferbench.statistics.sums import replicate_mean

__all__ = ["Rank", "rank_intervals"]

Scores: TypeAlias = Sequence[float] | Mapping[int, float]
"""The scores of one entry: a list by replicate, or replicate -> score where some are missing."""

Pairs: TypeAlias = set[frozenset[str]]


class Rank(NamedTuple):
    """The rank of an entry, between ``rank_low`` (the best possible) and ``rank_high``.

    ``interval`` is that of the mean, None for a single replicate. Entries that share a letter of
    ``tie_group`` are not separated.
    """

    mean: float
    interval: Interval | None
    rank: int
    rank_low: int
    rank_high: int
    tie_group: str


def rank_intervals(
    scores: Mapping[str, Scores], level: float = 0.95, networks: Mapping[str, int] | None = None
) -> dict[str, Rank]:
    """Ranks of entries by their mean score (larger is better), best first.

    ``networks``: of entries whose replicates start from several source networks, their number. Such
    scores are averaged over the replicates of each network before they are compared.

    Two entries are separated where the test of their difference (paired by replicate, Welch
    where the replicates differ) rejects after Holm's correction over all pairs. ``rank_low`` is
    1 + the number of separated entries that are better, ``rank_high`` the number of entries minus
    that of separated entries that are worse. Tie groups are a compact letter display of the pairs
    not separated.
    Error: with probability ``level`` no two equal entries are separated. Measured for 10 equal
    entries of 3 replicates (2,000 boards): 95.4% of boards without a false separation, 16.8%
    without the correction.
    Source: Holm 1979; Mogstad et al. 2024, doi:10.1093/restud/rdad006, for the ranks.
    """
    values = {entry: _by_replicate(entry, of_entry) for entry, of_entry in scores.items()}
    means = {entry: fmean(replicates.values()) for entry, replicates in values.items()}
    order = sorted(values, key=lambda entry: (-means[entry], entry))
    several = networks or {}
    separated = _separated(values, order, level, several)
    letters = _letters(order, separated)
    ranks = {}
    for entry in order:
        mean, replicates = means[entry], values[entry]
        apart = [other for other in order if {entry, other} in separated]
        better = sum(means[other] > mean for other in apart)
        ranks[entry] = Rank(
            mean=mean,
            interval=(
                replicate_mean(replicates, several.get(entry, 1), level)
                if len(replicates) > 1
                else None
            ),
            rank=1 + sum(other > mean for other in means.values()),
            rank_low=1 + better,
            rank_high=len(order) - (len(apart) - better),
            tie_group=letters[entry],
        )
    return ranks


def _by_replicate(entry: str, scores: Scores) -> dict[int, float]:
    values = dict(scores) if isinstance(scores, Mapping) else dict(enumerate(scores))
    if not values or not all(math.isfinite(value) for value in values.values()):
        raise ValueError(
            f"entry {entry!r} needs at least one finite score to be ranked, found "
            f"{list(values.values())}; list entries without a score apart"
        )
    return values


def _separated(
    values: Mapping[str, Mapping[int, float]],
    order: Sequence[str],
    level: float,
    networks: Mapping[str, int],
) -> Pairs:
    """The pairs of entries that Holm's step-down procedure separates."""
    p_values = {
        frozenset((a, b)): p
        for a, b in combinations(order, 2)
        if (p := _p_value(*_independent(values, networks, a, b))) is not None
    }
    adjusted = zip(p_values, holm(list(p_values.values())), strict=True)
    return {pair for pair, p in adjusted if p < 1 - level}


def _independent(
    values: Mapping[str, Mapping[int, float]], networks: Mapping[str, int], a: str, b: str
) -> list[dict[int, float]]:
    """The scores of two entries at each replicate, or averaged over those of a source network."""
    counts = [networks.get(entry, 1) for entry in (a, b)]
    if values[a].keys() == values[b].keys():
        # Paired: what the networks of one entry share is in the difference too.
        counts = [max(counts)] * 2
    return [
        {
            unit[0]: fmean(values[entry][k] for k in unit)
            for unit in units_of(sorted(values[entry]), n)
        }
        for entry, n in zip((a, b), counts, strict=True)
    ]


def _p_value(a: Mapping[int, float], b: Mapping[int, float]) -> float | None:
    """Two-sided p-value of equal means; None where an entry has a single replicate."""
    from scipy.special import stdtr  # 0.14 s: too long for --help

    if min(len(a), len(b)) < 2:
        return None
    if a.keys() == b.keys():
        differences = [a[replicate] - b[replicate] for replicate in a]
        value, freedom = fmean(differences), len(differences) - 1.0
        error = deviation(differences) / math.sqrt(len(differences))
    else:
        first, second = list(a.values()), list(b.values())
        value = fmean(first) - fmean(second)
        error, freedom = _welch(first, second)
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(value) / error))


def _letters(order: Sequence[str], separated: Pairs) -> dict[str, str]:
    """Compact letter display: groups without a separated pair that cover all pairs not separated.

    Groups are extended greedily, best entry first.
    """
    groups: list[list[str]] = []
    covered: set[frozenset[str]] = set()
    for pair in map(frozenset, combinations_with_replacement(order, 2)):
        if pair in separated or pair in covered:
            continue
        group = sorted(pair)
        for entry in order:
            if not any(entry == member or {entry, member} in separated for member in group):
                group.append(entry)
        groups.append(group)
        covered.update(map(frozenset, combinations_with_replacement(group, 2)))
    return {
        entry: "".join(_letter(k) for k, group in enumerate(groups) if entry in group)
        for entry in order
    }


def _letter(number: int) -> str:
    """Letters a to z, A to Z, then a2 and so on, so that none can be read as two."""
    letters = string.ascii_letters
    cycle, index = divmod(number, len(letters))
    return letters[index] + (str(cycle + 1) if cycle else "")


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The standard error of a difference of means, and its degrees of freedom."""
    first, second = deviation(a) ** 2 / len(a), deviation(b) ** 2 / len(b)
    if first + second == 0:
        return 0.0, float(len(a) + len(b) - 2)
    freedom = (first + second) ** 2 / (first**2 / (len(a) - 1) + second**2 / (len(b) - 1))
    return math.sqrt(first + second), freedom
