"""What the history of a trial says of one of its metrics.

Shape letters: T evaluated epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["History", "evaluated", "last_epoch", "last_value"]

History = Sequence[Mapping[str, float | None]]


def evaluated(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs where ``column`` was evaluated, ascending, and its values.

    Shapes: int64 (T,) and float64 (T,).
    """
    points = [(row["epoch"], row[column]) for row in history if row.get(column) is not None]
    epochs, values = np.array(sorted(points), dtype=np.float64).reshape(-1, 2).T
    return epochs.astype(np.int64), values


def last_epoch(history: History) -> int:
    """The epoch where training ended."""
    return max((int(row["epoch"] or 0) for row in history), default=0)


def last_value(history: History, column: str) -> float | None:
    """The value of ``column`` when it was evaluated last, or None where it never was."""
    _, values = evaluated(history, column)
    return float(values[-1]) if len(values) else None
