"""The measurements that a term of a claim averages over.

An average of averages: over the coordinates of a measurement, then over the cells (target,
perturbation) of the term.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from transferbench.measurements import Measurements
from transferbench.suite import Grid, Suite, Term

__all__ = ["Sample", "planned_replicates", "sample_of", "select_term"]

CELL = ("target", "perturbation", "other_initialization")


class Sample(NamedTuple):
    """The values that a term averages.

    A point is one coordinate in one cell. ``rows``: the measurements, also those without a value;
    ``missing``: descriptions of the cells without a value; ``planned``: the replicates that every
    cell has; ``networks``: the source networks that they start from, 1 where they share one.
    Shapes: values (M,); replicates (M, 2) of the network, or of both of a pair (NaN: there is no
    second); points (M,), the point of a value; cells (P,), the cell of a point.
    """

    weight: float
    values: np.ndarray
    replicates: np.ndarray
    points: np.ndarray
    cells: np.ndarray
    rows: Measurements
    missing: tuple[str, ...]
    planned: int
    networks: int

    def complete(self) -> set[int]:
        """The replicates that have a value in every cell."""
        cell_M = self.cells[self.points]
        by_cell = [
            {int(k) for k in self.replicates[cell_M == cell].ravel() if not np.isnan(k)}
            for cell in np.unique(cell_M)
        ]
        return set.intersection(*by_cell) if by_cell and not self.missing else set()

    def mean(self, replicates: Sequence[int]) -> float | None:
        """Over values whose networks are of ``replicates``; None where a cell has none."""
        outside_M2 = ~np.isnan(self.replicates) & ~np.isin(self.replicates, replicates)
        inside_M = ~outside_M2.any(axis=1)
        points, mean = _means(self.points[inside_M], self.values[inside_M])
        cells, mean = _means(self.cells[points], mean)
        return float(mean.mean()) if len(cells) == len(np.unique(self.cells)) else None


def _means(group: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The groups that occur, and the mean of each."""
    groups, index = np.unique(group, return_inverse=True)
    return groups, np.bincount(index, value) / np.bincount(index)


def sample_of(suite: Suite, term: Term, measurements: Measurements) -> Sample:
    """The measurements of ``term``, and the cells of the suite where none has a value."""
    rows = select_term(term, measurements)
    valued = rows.valued()
    point_M = valued.group_codes(*CELL, *valued.coordinates)
    cell_P = np.zeros(point_M.max(initial=-1) + 1, dtype=np.int64)
    cell_P[point_M] = valued.group_codes(*CELL)
    return Sample(
        weight=term.weight,
        values=valued.to_numpy(),
        replicates=valued.replicates,
        points=point_M,
        cells=cell_P,
        rows=rows,
        missing=tuple(_missing(suite, term, valued)),
        planned=planned_replicates(suite, term),
        networks=suite.networks if rows.distinct("network") else 1,
    )


def select_term(term: Term, measurements: Measurements) -> Measurements:
    """The rows of ``term``, also those without a value."""
    labels = term.model_dump(exclude={"coordinates", "weight"}, exclude_none=True)
    return measurements.select(**labels | term.coordinates)


def _missing(suite: Suite, term: Term, valued: Measurements) -> list[str]:
    """Descriptions of the cells where the suite measures ``term`` and no replicate has a value."""
    arms = f"{term.initialization} & {term.other_initialization}"
    quantity = f"{term.diagnostic} {term.metric} of "
    quantity += arms if term.other_initialization else term.initialization
    if term.coordinates:
        quantity += f" at {', '.join(f'{k}={v}' for k, v in term.coordinates.items())}"
    if not len(valued):
        return [quantity]
    measured = valued.groups("target", "perturbation")
    return [f"{quantity} on {', '.join(c)}" for c in _cells(suite, term) if c not in measured]


def planned_replicates(suite: Suite, term: Term) -> int:
    """The replicates that every cell of ``term`` has in the suite."""
    counts = (
        [suite.replicates_in(*cell, arm) for arm in _arms(term)] for cell in _inputs(suite, term)
    )
    return min((min(count) for count in counts if all(count)), default=suite.replicates)


def _cells(suite: Suite, term: Term) -> list[tuple[str, str]]:
    """Where the suite trains all arms of ``term`` and measures them."""
    return [
        cell
        for cell in _inputs(suite, term)
        if all(suite.trains(*cell, arm) for arm in _arms(term))
    ]


def _arms(term: Term) -> list[str]:
    return [arm for arm in (term.initialization, term.other_initialization) if arm is not None]


def _inputs(suite: Suite, term: Term) -> list[tuple[str, str]]:
    """The targets and perturbations that ``term`` names, or where its diagnosis looks."""
    diagnosis = suite.diagnostics.get(term.diagnostic)
    targets, perturbations, _ = suite.axes(diagnosis.on if diagnosis else Grid())
    targets = (term.target,) if term.target else targets
    perturbations = (term.perturbation,) if term.perturbation else perturbations
    return list(product(targets, perturbations))
