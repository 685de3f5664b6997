"""Outcomes of test items for a pair of networks, and their statistics for each label of a task.

Shape letters: B resamples, C distinct rows of outcomes, L labels (1 for multi-class tasks),
N items, S statistics, T outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.metrics import ratio
from transferbench.records import Coordinate, Measurement
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics._measurement import measurement

__all__ = [
    "ANY",
    "BOTH_WRONG",
    "ONLY_A_WRONG",
    "ONLY_B_WRONG",
    "STATISTICS",
    "Statistic",
    "append_label_mean",
    "label_measurements",
    "members_of",
    "outcome_statistics",
    "outcome_tables",
    "pair_outcomes",
]

BOTH_RIGHT, ONLY_A_WRONG, ONLY_B_WRONG, SAME_WRONG, OTHER_WRONG = range(5)
"""The outcomes; in the last two both networks are wrong, with equal or different predictions."""
UNKNOWN = 5
"""In place of an outcome where the label is unknown: it counts nowhere."""

ANY = tuple(range(5))
BOTH_WRONG = (SAME_WRONG, OTHER_WRONG)


class Statistic(NamedTuple):
    """A statistic of the items that have one of the outcomes ``among``.

    ``undefined``: the flag of a missing value. ``subset``: the name of these items, as coordinate
    ``set``.
    """

    metric: str
    unit: str
    among: tuple[int, ...] = ANY
    undefined: str = ""
    subset: str | None = None


STATISTICS = (
    Statistic("n_common", "items"),
    Statistic("uncommon_a", "items"),
    Statistic("uncommon_b", "items"),
    Statistic(
        "error_jaccard", "fraction", (ONLY_A_WRONG, ONLY_B_WRONG, *BOTH_WRONG), "neither errs"
    ),
    Statistic("agreement", "fraction"),
    Statistic("agreement_given_both_wrong", "fraction", BOTH_WRONG, "no common errors"),
    Statistic("kappa", "kappa", undefined="both are right everywhere, or wrong everywhere"),
)


def pair_outcomes(
    predicted_a: np.ndarray, predicted_b: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The outcome of each label of each item; ``UNKNOWN`` where the label is NaN.

    Shapes: all (N,), or all (N, L); returns int64 (N, L).
    """
    truth = labels if labels.ndim == 1 else labels > 0.5
    # A class is the one label of an item.
    a, b, truth = (x.reshape(len(labels), -1) for x in (predicted_a, predicted_b, truth))
    wrong_a, wrong_b = a != truth, b != truth
    both_wrong = np.where(a == b, SAME_WRONG, OTHER_WRONG)
    outcomes_NL: np.ndarray = np.select(
        [wrong_a & wrong_b, wrong_a, wrong_b], [both_wrong, ONLY_A_WRONG, ONLY_B_WRONG], BOTH_RIGHT
    )
    if labels.ndim == 2:
        outcomes_NL[np.isnan(labels)] = UNKNOWN
    return outcomes_NL


def outcome_tables(counts_BC: np.ndarray, outcomes_CL: np.ndarray) -> np.ndarray:
    """Counts of each outcome, from the counts of distinct rows. Shapes: returns (B, L, T)."""
    return np.stack([counts_BC @ (outcomes_CL == outcome) for outcome in range(5)], axis=-1)


def outcome_statistics(tables_BLT: np.ndarray) -> np.ndarray:
    """The values in the order of ``STATISTICS``, NaN where undefined.

    Shapes: (B, L, T) to (B, L, S).
    """
    n = tables_BLT.sum(axis=-1)
    right, only_a, only_b, same, other = np.moveaxis(tables_BLT, -1, 0)
    common = same + other
    columns = [
        common,
        only_a,
        only_b,
        ratio(common, common + only_a + only_b),
        ratio(right + same, n),
        ratio(same, common),
        _kappa(*(ratio(part + common, n) for part in (right, only_a, only_b))),
    ]
    return np.stack(columns, axis=-1)


def _kappa(observed: np.ndarray, error_a: np.ndarray, error_b: np.ndarray) -> np.ndarray:
    """Error consistency (c_obs - c_exp) / (1 - c_exp) from error rates.

    Source: Geirhos, Meding, Wichmann 2020, arXiv 2006.16736.
    """
    expected = error_a * error_b + (1 - error_a) * (1 - error_b)
    return ratio(observed - expected, 1 - expected)


# --- labels -----------------------------------------------------------------------------------


def members_of(outcomes_NL: np.ndarray, statistics: Sequence[Statistic]) -> np.ndarray:
    """Whether an item counts for a statistic of a label. Shapes: (N, L) to bool (N, L, S)."""
    return np.stack([np.isin(outcomes_NL, s.among) for s in statistics], axis=-1)


def label_measurements(
    intervals: Sequence[Interval], members_NLS: np.ndarray, statistics: Sequence[Statistic]
) -> Iterator[Measurement]:
    """A measurement of each statistic for each label, then for the mean over labels.

    ``intervals``: those of ``append_label_mean``, row by row. For the mean over labels ``n`` counts
    the items that count for at least one label.
    """
    size = len(statistics)
    *by_label, means = (intervals[i : i + size] for i in range(0, len(intervals), size))
    counts = members_NLS.sum(axis=0).tolist()
    for label, row in enumerate(by_label):
        for statistic, interval, n in zip(statistics, row, counts[label], strict=True):
            yield _measurement(statistic, interval, n, {"label": label})
    counts = members_NLS.any(axis=1).sum(axis=0).tolist()
    for k, (statistic, interval, n) in enumerate(zip(statistics, means, counts, strict=True)):
        undefined = sum(row[k].value is None for row in by_label)
        partial = f"{undefined} of {len(by_label)} labels do not define it" if undefined else None
        yield _measurement(statistic, interval, n, {}, partial)


def _measurement(
    statistic: Statistic,
    interval: Interval,
    n: int,
    label: Mapping[str, Coordinate],
    partial: str | None = None,
) -> Measurement:
    metric, unit, _, undefined, subset = statistic
    coordinates = {"set": subset, **label} if subset else label
    flag = undefined if interval.value is None else partial
    return measurement(metric, interval, unit, n, coordinates, flag=flag)


def append_label_mean(values_BLS: np.ndarray) -> np.ndarray:
    """The values, followed by their mean over the labels for which they are defined.

    Shapes: (B, L, S) to (B, L + 1, S); values of a single label are returned unchanged.
    """
    if values_BLS.shape[1] == 1:
        return values_BLS
    defined = ~np.isnan(values_BLS)
    total = np.where(defined, values_BLS, 0.0).sum(axis=1, keepdims=True)
    mean = ratio(total, defined.sum(axis=1, keepdims=True))
    return np.concatenate([values_BLS, mean], axis=1)
