"""Rows of measurements, picked by their labels and averaged over replicates with an interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transferbench.statistics import Interval, jackknife, student_t

__all__ = [
    "ALONE",
    "SHOWN",
    "Band",
    "Measured",
    "ReplicateValues",
    "Summary",
    "as_summary",
    "mean_per_replicate",
    "summarize",
    "summarize_pairs",
]

ALONE = -1
"""Stands for the second replicate where one network was measured, not a pair."""

ReplicateValues: TypeAlias = dict[tuple[int, int], float]
"""The replicate (and that of the other network of a pair) and what was measured there."""

Row: TypeAlias = Mapping[Hashable, Any]

SHOWN = {
    "trial": {
        "test_metric",
        "test_loss",
        "train_metric",
        "train_loss",
        "best_test_metric",
        "best_epoch",
        "n_train",
    },
    "learning-curve": {"test_metric", "train_metric"},
    "speed": {"speed"},
    "relative-drop": {"relative_drop", "gain", "train_metric_a", "train_metric_b", "speed_gain"},
    "agreement": {
        "kappa",
        "error_jaccard",
        "agreement",
        "n_common",
        "uncommon_a",
        "uncommon_b",
        "reference_entropy",
    },
}
"""The metrics of each diagnostic that have a place of their own in figures and tables."""

COLUMNS = (
    "entry",
    "target",
    "perturbation",
    "initialization",
    "replicate",
    "other_initialization",
    "other_replicate",
    "diagnostic",
    "metric",
    "value",
    "flag",
    "epoch",
)
COORDINATES = ("set", "label")


@dataclass(frozen=True)
class Summary:
    """A mean over ``n`` replicates; without bounds where they do not determine an interval.

    Error: low and high are a 95% interval of the mean, made as ``method`` names.
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
        """1 or -1 where the whole interval lies above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Band:
    """Means along the epochs with their intervals, and the single runs behind them.

    Shapes: x, mean, low, high (E,); runs (R, E), NaN where a run was not evaluated.
    Error: as ``Summary``, at each epoch alone (not simultaneous); NaN where one run is left.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    runs: NDArray[np.float64]


def as_summary(interval: Interval) -> Summary | None:
    """An interval around a value, or None where there is no value."""
    if interval.value is None:
        return None
    return Summary(interval.value, interval.low, interval.high, interval.n, interval.method)


def summarize(values: Iterable[float]) -> Summary | None:
    """The mean of what is there, one value a replicate; None where nothing is.

    Error: Student-t over the values.
    """
    return as_summary(student_t([value for value in values if not math.isnan(value)]))


def summarize_pairs(values: ReplicateValues) -> Summary | None:
    """The mean over pairs of networks.

    Error: jackknife over replicates, since pairs that share a network are not independent.
    """

    def mean_of(replicates: Sequence[int]) -> float | None:
        kept = [value for pair, value in values.items() if set(pair) <= set(replicates)]
        return fmean(kept) if kept else None

    return as_summary(jackknife(mean_of, sorted({one for pair in values for one in pair})))


def has_label(row: Row, name: str, value: object) -> bool:
    """Whether the row carries this label, or none where none is asked for."""
    found = row.get(name)
    return bool(pd.isna(found)) if value is None else found == value


def mean_per_replicate(rows: Iterable[Row]) -> ReplicateValues:
    """One value a replicate, or a pair of them: the mean over what else varies."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        other = row["other_replicate"]
        pair = (int(row["replicate"]), ALONE if pd.isna(other) else int(other))
        found.setdefault(pair, []).append(float(row["value"]))
    return {pair: fmean(values) for pair, values in found.items()}


class Measured:
    """The measurements of one entry."""

    def __init__(self, frame: pd.DataFrame, entry: str) -> None:
        missing = [name for name in COLUMNS if name not in frame.columns]
        whole = frame.reindex(columns=[*frame.columns, *missing])
        self.frame = whole[whole["entry"] == entry]
        names = [name for name in (*COLUMNS, *COORDINATES) if name in self.frame.columns]
        known = self.frame.loc[self.frame["value"].notna(), names]
        # Cut once into plain rows a metric: thousands of small picks cost a frame seconds.
        self._parts: dict[tuple[Hashable, ...], Sequence[Row]] = {
            key: part.to_dict("records")
            for key, part in known.groupby(["diagnostic", "metric"])
            if key[1] in SHOWN.get(str(key[0]), ())
        }

    def rows(self, diagnostic: str, metric: str, **labels: object) -> list[Row]:
        """The rows of a shown metric with these labels, where they hold a value.

        A label of None picks the rows that have none.
        """
        rows = self._parts.get((diagnostic, metric), ())
        for name, value in labels.items():
            rows = [row for row in rows if has_label(row, name, value)]
        return list(rows)

    def replicates(self, diagnostic: str, metric: str, **labels: object) -> ReplicateValues:
        """One value a replicate, or a pair of them."""
        return mean_per_replicate(self.rows(diagnostic, metric, **labels))

    def summary(self, diagnostic: str, metric: str, **labels: object) -> Summary | None:
        """The mean over replicates."""
        return summarize(self.replicates(diagnostic, metric, **labels).values())

    def pair_summary(self, diagnostic: str, metric: str, **labels: object) -> Summary | None:
        """The mean over pairs of networks."""
        return summarize_pairs(self.replicates(diagnostic, metric, **labels))

    def differences(
        self, diagnostic: str, metric: str, arms: tuple[str, str], **labels: object
    ) -> ReplicateValues:
        """First arm minus second at each replicate that both have."""
        first, second = (
            self.replicates(diagnostic, metric, initialization=arm, **labels) for arm in arms
        )
        return {one: first[one] - second[one] for one in first if one in second}

    def difference(
        self, diagnostic: str, metric: str, arms: tuple[str, str], **labels: object
    ) -> Summary | None:
        """The mean of the paired differences."""
        return summarize(self.differences(diagnostic, metric, arms, **labels).values())

    def drop(self, arms: tuple[str, str], **labels: object) -> Summary | None:
        """The mean relative drop from the first arm to the second."""
        first, second = arms
        return self.summary(
            "relative-drop",
            "relative_drop",
            initialization=first,
            other_initialization=second,
            **labels,
        )

    def band(self, diagnostic: str, metric: str, **labels: object) -> Band | None:
        """The metric along the epochs, or None where nothing was measured."""
        rows = [row for row in self.rows(diagnostic, metric, **labels) if not pd.isna(row["epoch"])]
        if not rows:
            return None
        table = pd.DataFrame(rows).pivot_table(index="replicate", columns="epoch", values="value")
        runs = table.to_numpy(dtype=float)
        places = [one for one in map(summarize, runs.T) if one is not None]
        return Band(
            x=np.asarray(table.columns, dtype=float),
            mean=np.array([one.mean for one in places]),
            low=np.array([one.low for one in places], dtype=float),
            high=np.array([one.high for one in places], dtype=float),
            runs=runs,
        )

    def flags(self, diagnostic: str, **labels: object) -> tuple[str, ...]:
        """What the diagnostic itself warned of, each once, in order of name."""
        part = self.frame[(self.frame["diagnostic"] == diagnostic) & self.frame["flag"].notna()]
        for name, value in labels.items():
            part = part[part[name] == value]
        return tuple(sorted(set(part["flag"].astype(str))))
