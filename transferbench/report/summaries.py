"""Means over replicates with their intervals, and the flags of what they are made from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from transferbench.measurements import ALONE, Measurements, PairValues
from transferbench.statistics import Interval, Range, Summand, replicate_mean, weighted_sum

__all__ = [
    "Aggregate",
    "Summary",
    "aggregate",
    "as_summary",
    "flag_notes",
    "summarize",
    "summary_of",
]

NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Summary:
    """A mean over ``n`` replicates; without bounds where they do not determine an interval.

    ``over_networks``: ``n`` counts source networks, each with its replicates.
    Error: low and high are a 95% interval of the mean, by ``method``.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str
    over_networks: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the mean twice where there is none."""
        if self.low is None or self.high is None:
            return self.mean, self.mean
        return self.low, self.high

    @property
    def side(self) -> int:
        """1 or -1 where the interval lies above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


class Aggregate(NamedTuple):
    """A mean over replicates, and the flags of its measurements.

    ``missing``: how many of the measurements have no value.
    """

    summary: Summary | None
    flags: tuple[str, ...] = ()
    missing: int = 0


def as_summary(interval: Interval) -> Summary | None:
    """An interval around a value, or None where there is no value."""
    if interval.value is None:
        return None
    _, low, high, n, method, _ = interval
    return Summary(interval.value, low, high, n, method, interval.over_networks)


def summarize(
    values: Mapping[int, float], networks: int = 1, ends: Range | None = None
) -> Summary | None:
    """The mean of an arm over replicates, replicate -> value. Error: as ``replicate_mean``."""
    measured = {k: value for k, value in values.items() if not math.isnan(value)}
    return as_summary(replicate_mean(measured, networks, ends=ends)) if measured else None


def summary_of(values: PairValues, networks: int = 1, ends: Range | None = None) -> Summary | None:
    """The mean over networks, or over pairs of networks; None without values.

    ``networks``: the source networks that the replicates start from. ``ends``: the range of the
    quantity.
    Error: ``weighted_sum`` over replicates, or over source networks; for pairs it is a jackknife,
    since pairs that share a network are not independent.
    """
    if all(other == ALONE for _, other in values):
        alone = {replicate: value for (replicate, _), value in values.items()}
        return summarize(alone, networks, ends)

    def mean_of(replicates: Sequence[int]) -> float | None:
        inside = [value for pair, value in values.items() if set(pair) <= set(replicates)]
        return fmean(inside) if inside else None

    replicates = sorted({k for pair in values for k in pair})
    return as_summary(weighted_sum([Summand(1.0, mean_of, ends)], replicates, networks))


def aggregate(rows: Measurements) -> Aggregate | None:
    """The mean over replicates of these rows; None where there are no rows."""
    if not len(rows):
        return None
    missing, flags = len(rows) - len(rows.valued()), tuple(rows.distinct("flag"))
    return Aggregate(summary_of(rows.by_pair(), rows.networks, rows.bounds), flags, missing)


def flag_notes(rows: Measurements) -> list[str]:
    """The flags of measurements: how many have each, and how many of them have no value.

    Flags that differ in their numbers alone are listed once.
    """
    kinds: dict[tuple[str, str], list[tuple[str, Measurements]]] = {}
    for (flag, metric), flagged in rows.groups("flag", "metric").items():
        if flag is not None:
            kinds.setdefault((NUMBER.sub("0", flag), metric), []).append((flag, flagged))
    notes: dict[str, list[str]] = {}
    for (_, metric), flags in sorted(kinds.items(), key=lambda item: item[0]):
        more = " and the like" if len(flags) > 1 else ""
        count = sum(len(flagged) for _, flagged in flags)
        missing = count - sum(len(flagged.valued()) for _, flagged in flags)
        text = f"{metric}, {count} of {len(rows.select(metric=metric))}"
        text += f", {missing} without a value" if missing else ""
        notes.setdefault(f"{flags[0][0]}{more}", []).append(text)
    return [f"{flag} ({'; '.join(texts)})" for flag, texts in notes.items()]
