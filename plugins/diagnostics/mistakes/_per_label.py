"""Statistics of each label of a task, and of their mean.

Shape letters: B resamples, L labels (1 where the task is multi-class), N items, S statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.metrics import ratio
from transferbench.records import Measurement
from transferbench.statistics import Interval

__all__ = ["Column", "measurements", "sizes_of", "with_mean"]


class Column(NamedTuple):
    """What a statistic is called, and ``why`` it may be without a value."""

    metric: str
    unit: str
    why: str
    coordinates: dict[str, str | int | float]


def sizes_of(members_NLS: np.ndarray) -> list[list[int]]:
    """How many items each statistic is of, for the rows of ``with_mean``.

    The mean over labels is of the items that any label counts.
    Shapes: bool (N, L, S); returns L or L + 1 rows of S.
    """
    rows: list[list[int]] = members_NLS.sum(axis=0).tolist()
    if len(rows) > 1:
        rows.append(members_NLS.any(axis=1).sum(axis=0).tolist())
    return rows


def measurements(
    found: Sequence[Interval], sizes: Sequence[Sequence[int]], columns: Sequence[Column]
) -> Iterator[Measurement]:
    """A measurement for each label and column, then for the mean over labels, without a label.

    ``found``: the intervals of ``with_mean``, row after row; ``sizes`` as ``sizes_of`` gives them.
    """
    rows = [found[start : start + len(columns)] for start in range(0, len(found), len(columns))]
    for label, (row, counts) in enumerate(zip(rows, sizes, strict=True)):
        labels = rows[:-1] if label == len(rows) - 1 else ()
        place = {} if label == len(rows) - 1 else {"label": label}
        for k, (column, interval) in enumerate(zip(columns, row, strict=True)):
            lacking = sum(other[k].value is None for other in labels)
            partial = f"{lacking} of {len(labels)} labels do not define it" if lacking else None
            yield Measurement(
                metric=column.metric,
                value=interval.value,
                unit=column.unit,
                n=counts[k],
                coordinates=column.coordinates | place,
                flag=column.why if interval.value is None else partial,
                **interval.fields(),
            )


def with_mean(values_BLS: np.ndarray) -> np.ndarray:
    """The values and, last, their mean over the labels that define them.

    Shapes: (B, L, S) to (B, L + 1, S); a single label is its own mean and is left as it is.
    """
    if values_BLS.shape[1] == 1:
        return values_BLS
    defined = ~np.isnan(values_BLS)
    total = np.where(defined, values_BLS, 0.0).sum(axis=1, keepdims=True)
    mean = ratio(total, defined.sum(axis=1, keepdims=True))
    return np.concatenate([values_BLS, mean], axis=1)
