"""Statistics of each label of a task, and their mean over labels.

Shape letters: B resamples, L labels (1 for multi-class tasks), N items, S statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.metrics import ratio
from transferbench.records import Coordinate, Measurement
from transferbench.statistics import Interval

__all__ = ["StatisticInfo", "append_label_mean", "item_counts", "label_measurements"]


class StatisticInfo(NamedTuple):
    """Name and unit of a statistic. ``undefined``: the flag of a missing value."""

    metric: str
    unit: str
    undefined: str
    coordinates: dict[str, Coordinate]


def item_counts(members_NLS: np.ndarray) -> list[list[int]]:
    """The number of items of each statistic, for the rows of ``append_label_mean``.

    For the mean over labels: the items that count for at least one label.
    Shapes: bool (N, L, S); returns L or L + 1 rows of S.
    """
    rows: list[list[int]] = members_NLS.sum(axis=0).tolist()
    if len(rows) > 1:
        rows.append(members_NLS.any(axis=1).sum(axis=0).tolist())
    return rows


def label_measurements(
    intervals: Sequence[Interval], counts: Sequence[Sequence[int]], infos: Sequence[StatisticInfo]
) -> Iterator[Measurement]:
    """A measurement of each statistic for each label, then for the mean over labels.

    ``intervals``: those of ``append_label_mean``, row by row; ``counts``: from ``item_counts``.
    """
    size = len(infos)
    rows = [intervals[start : start + size] for start in range(0, len(intervals), size)]
    for label, (row, row_counts) in enumerate(zip(rows, counts, strict=True)):
        is_mean = label == len(rows) - 1
        labels = rows[:-1] if is_mean else ()
        coordinates: dict[str, Coordinate] = {} if is_mean else {"label": label}
        for k, (info, interval) in enumerate(zip(infos, row, strict=True)):
            undefined = sum(label_row[k].value is None for label_row in labels)
            partial = f"{undefined} of {len(labels)} labels do not define it" if undefined else None
            yield Measurement(
                metric=info.metric,
                value=interval.value,
                unit=info.unit,
                n=row_counts[k],
                coordinates=info.coordinates | coordinates,
                flag=info.undefined if interval.value is None else partial,
                **interval.fields(),
            )


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
