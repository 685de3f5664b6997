"""The values of one measurement in a run's tidy table, network by network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Column", "Network", "values_of"]


class Network(NamedTuple):
    """What has one value a replicate: an arm of an entry."""

    entry: str
    initialization: str


class Column(NamedTuple):
    """A measurement at one place of a suite; ``coordinates`` are matched exactly."""

    diagnostic: str
    metric: str
    target: str
    perturbation: str
    coordinates: Mapping[str, str | int | float] = {}


def values_of(frame: pd.DataFrame, column: Column) -> dict[Network, dict[int, float]]:
    """The values of ``column`` by network and replicate, those that are missing left out.

    ``frame`` holds ``Record.row()`` of a run, a column for each coordinate.
    Raises: ``ValueError`` where a network has several values in one replicate.
    """
    found: dict[Network, dict[int, float]] = {}
    rows = _matching(frame, column)
    keys = zip(rows["entry"], rows["initialization"], rows["replicate"], strict=True)
    for (entry, arm, replicate), value in zip(keys, rows["value"].astype(float), strict=True):
        values = found.setdefault(Network(str(entry), str(arm)), {})
        if int(replicate) in values:
            raise ValueError(
                f"{column.diagnostic} gives {column.metric} of {arm} of {entry}, replicate "
                f"{replicate}, more than once at {dict(column.coordinates) or 'no coordinates'}; "
                "give the coordinates of one value, or one pair of initializations"
            )
        values[int(replicate)] = value
    return found


def _matching(frame: pd.DataFrame, column: Column) -> pd.DataFrame:
    wanted = {
        "diagnostic": column.diagnostic,
        "metric": column.metric,
        "target": column.target,
        "perturbation": column.perturbation,
        **column.coordinates,
    }
    rows = frame[frame["value"].notna()]
    for name, value in wanted.items():
        # A table without the coordinate has no row at it.
        rows = rows[rows[name] == value] if name in rows else rows[:0]
    return rows
