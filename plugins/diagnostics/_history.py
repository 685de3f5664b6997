"""What the history of a trial says of one of its metrics.

Shape letters: T evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

__all__ = ["History", "blank_epochs", "divergence", "evaluated", "last_epoch", "last_value"]

History = Sequence[Mapping[str, float | None]]


def evaluated(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs where ``column`` was evaluated to a number, ascending, and its values.

    Shapes: int64 (T,) and float64 (T,).
    """
    points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
    epochs, values = np.array(sorted(points), dtype=np.float64).reshape(-1, 2).T
    return epochs.astype(np.int64), values


def last_epoch(history: History) -> int:
    """The epoch where training ended."""
    return max((int(row["epoch"] or 0) for row in history), default=0)


def last_value(history: History, column: str) -> float | None:
    """The value of ``column`` where training ended, or None: that of an epoch before is no end."""
    epochs, values = evaluated(history, column)
    return float(values[-1]) if len(values) and epochs[-1] == last_epoch(history) else None


def blank_epochs(history: History) -> list[int]:
    """The epochs, ascending, that were evaluated and gave no number: nothing was finite."""
    return sorted(
        int(row["epoch"] or 0)
        for row in history
        if all(value is None for name, value in row.items() if name != "epoch")
    )


def divergence(history: History) -> str | None:
    """What to flag of a training that ended without a finite number, or None."""
    blank = set(blank_epochs(history))
    backwards = sorted((int(row["epoch"] or 0) for row in history), reverse=True)
    trailing = list(takewhile(blank.__contains__, backwards))
    return f"diverged: nothing finite from epoch {trailing[-1]} on" if trailing else None
