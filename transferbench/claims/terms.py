"""The measurements that a term of a claim averages over.

An average of averages: over the coordinates of a measurement, then over the places (target,
perturbation) of the term.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferbench.records import Record
from transferbench.suite import Grid, Suite, Term

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sample", "Table", "matching", "sample_of"]


class Table:
    """One entry's measurements; a term looks through those of its diagnostic and metric alone."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._rows = frame.groupby(["diagnostic", "metric"]).indices if len(frame) else {}

    def of(self, term: Term) -> pd.DataFrame:
        """The rows of the term's diagnostic and metric."""
        rows = self._rows.get((term.diagnostic, term.metric))
        return self.frame.iloc[:0] if rows is None else self.frame.iloc[rows]


class Sample(NamedTuple):
    """The values that a term averages.

    A cell is one coordinate at one place. ``rows``: where in the frame, also those without a
    value; ``missing``: the places without a value, in words.
    Shapes: values (M,); replicates (M, 2) of the network, or of both of a pair (NaN: there is no
    second); cells (M,), the cell of a value; places (C,), the place of a cell.
    """

    weight: float
    values: np.ndarray
    replicates: np.ndarray
    cells: np.ndarray
    places: np.ndarray
    rows: frozenset[int]
    missing: tuple[str, ...]

    def complete(self) -> set[int]:
        """The replicates that have a value at every place."""
        place_M = self.places[self.cells]
        found = [
            {int(k) for k in self.replicates[place_M == place].ravel() if not np.isnan(k)}
            for place in np.unique(place_M)
        ]
        return set.intersection(*found) if found and not self.missing else set()

    def mean(self, replicates: Sequence[int]) -> float | None:
        """Over values whose networks are of ``replicates``; None where a place has none."""
        apart_M2 = ~np.isnan(self.replicates) & ~np.isin(self.replicates, replicates)
        inside_M = ~apart_M2.any(axis=1)
        cells, mean = _means(self.cells[inside_M], self.values[inside_M])
        places, mean = _means(self.places[cells], mean)
        return float(mean.mean()) if len(places) == len(np.unique(self.places)) else None


def _means(group: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The groups that occur, and the mean of each."""
    groups, place = np.unique(group, return_inverse=True)
    return groups, np.bincount(place, value) / np.bincount(place)


def sample_of(suite: Suite, term: Term, table: Table) -> Sample:
    """What was measured of ``term``, and where nothing was though the suite measures it."""
    rows = matching(term, table)
    valued = rows[rows["value"].notna()] if len(rows) else rows
    place = ["target", "perturbation", "other_initialization"]
    cell_M = _codes(valued, [*place, *_coordinates(valued)])
    place_C = np.zeros(cell_M.max(initial=-1) + 1, dtype=np.int64)
    place_C[cell_M] = _codes(valued, place)
    return Sample(
        weight=term.weight,
        values=_numbers(valued, "value"),
        replicates=np.stack(
            [_numbers(valued, "replicate"), _numbers(valued, "other_replicate")], axis=1
        ),
        cells=cell_M,
        places=place_C,
        rows=frozenset(rows.index),
        missing=tuple(_missing(suite, term, valued)),
    )


def matching(term: Term, table: Table) -> pd.DataFrame:
    """The rows of ``term``, also those without a value."""
    frame = table.of(term)
    found_by = {"coordinates", "weight", "diagnostic", "metric"}
    wanted = term.model_dump(exclude=found_by, exclude_none=True) | term.coordinates
    for column, value in wanted.items():
        if column not in frame:
            return frame.iloc[:0]
        frame = frame[frame[column] == value]
    return frame


def _coordinates(rows: pd.DataFrame) -> list[str]:
    extra = [column for column in rows.columns if column not in Record.model_fields]
    return [column for column in extra if rows[column].notna().any()]


def _codes(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """A number for each distinct row of ``columns``, in the order of appearance. Shapes: (M,)."""
    if rows.empty:
        return np.zeros(0, dtype=np.int64)
    return rows.groupby(columns, dropna=False, sort=False).ngroup().to_numpy(dtype=np.int64)


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    if rows.empty:
        return np.zeros(0)
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _missing(suite: Suite, term: Term, valued: pd.DataFrame) -> list[str]:
    """The places where the suite measures ``term`` and no replicate has a value, in words."""
    arms = f"{term.initialization} & {term.other_initialization}"
    what = f"{term.diagnostic} {term.metric} of "
    what += arms if term.other_initialization else term.initialization
    if term.coordinates:
        what += f" at {', '.join(f'{k}={v}' for k, v in term.coordinates.items())}"
    if valued.empty:
        return [what]
    found = set(zip(valued["target"], valued["perturbation"], strict=True))
    return [f"{what} on {', '.join(place)}" for place in _places(suite, term) if place not in found]


def _places(suite: Suite, term: Term) -> list[tuple[str, str]]:
    """Where the suite trains all arms of ``term`` and measures them."""
    diagnosis = suite.diagnostics.get(term.diagnostic)
    on = diagnosis.on if diagnosis else Grid()
    targets = [term.target] if term.target else _chosen(on.targets, suite.targets)
    perturbations = (
        [term.perturbation] if term.perturbation else _chosen(on.perturbations, suite.perturbations)
    )
    arms = [arm for arm in (term.initialization, term.other_initialization) if arm is not None]
    return [
        (target, perturbation)
        for target, perturbation in product(targets, perturbations)
        if all(suite.trains(target, perturbation, arm) for arm in arms)
    ]


def _chosen(wanted: tuple[str, ...] | None, known: Iterable[str]) -> list[str]:
    return list(known if wanted is None else wanted)
