"""Metrics read from the training history of a trial.

Shape letters: T evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

__all__ = [
    "History",
    "divergence_flag",
    "final_value",
    "last_epoch",
    "metric_curve",
    "non_finite_epochs",
]

History = Sequence[Mapping[str, float | None]]


def metric_curve(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs at which ``column`` has a value, ascending, and its values.

    Shapes: int64 (T,) and float64 (T,).
    """
    points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
    epochs, values = np.array(sorted(points), dtype=np.float64).reshape(-1, 2).T
    return epochs.astype(np.int64), values


def last_epoch(history: History) -> int:
    """The epoch at which training ended."""
    return max((int(row["epoch"] or 0) for row in history), default=0)


def final_value(history: History, column: str) -> float | None:
    """The value of ``column`` at the last epoch; None if it has none there."""
    epochs, values = metric_curve(history, column)
    return float(values[-1]) if len(values) and epochs[-1] == last_epoch(history) else None


def non_finite_epochs(history: History) -> list[int]:
    """The epochs, ascending, that were evaluated without a finite value of any metric."""
    return sorted(
        int(row["epoch"] or 0)
        for row in history
        if all(value is None for name, value in row.items() if name != "epoch")
    )


def divergence_flag(history: History) -> str | None:
    """The flag of a training that ended without a finite value of any metric, else None."""
    non_finite = set(non_finite_epochs(history))
    backwards = sorted((int(row["epoch"] or 0) for row in history), reverse=True)
    trailing = list(takewhile(non_finite.__contains__, backwards))
    return f"diverged: nothing finite from epoch {trailing[-1]} on" if trailing else None
