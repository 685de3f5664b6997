"""Means over replicates with their intervals, and the flags of what they are made from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from transferbench.measurements import ALONE, Measurements, PairValues
from transferbench.statistics import Interval, jackknife, student_t

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

    Error: low and high are a 95% interval of the mean, by ``method``.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str

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
    return Summary(interval.value, interval.low, interval.high, interval.n, interval.method)


def summarize(values: Iterable[float]) -> Summary | None:
    """The mean of values of independent replicates. Error: Student-t."""
    return as_summary(student_t([value for value in values if not math.isnan(value)]))


def summary_of(values: PairValues) -> Summary | None:
    """The mean over networks, or over pairs of networks; None without values.

    Error: Student-t over replicates; of pairs the jackknife over replicates, since pairs that
    share a network are not independent.
    """
    if all(other == ALONE for _, other in values):
        return summarize(values.values())

    def mean_of(replicates: Sequence[int]) -> float | None:
        inside = [value for pair, value in values.items() if set(pair) <= set(replicates)]
        return fmean(inside) if inside else None

    return as_summary(jackknife(mean_of, sorted({k for pair in values for k in pair})))


def aggregate(rows: Measurements) -> Aggregate | None:
    """The mean over replicates of these rows; None where there are no rows."""
    if not len(rows):
        return None
    missing = len(rows) - len(rows.valued())
    return Aggregate(summary_of(rows.by_pair()), tuple(rows.distinct("flag")), missing)


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
