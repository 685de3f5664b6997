"""What two MINORs of one MAJOR may differ in: the later one only adds, so that scores compare.

A later MINOR may have more arms, targets, perturbations, recipes, cells, diagnoses, claims and
columns of the board, keep more checkpoints of its sources, and have another summary and other
default backbones. All that the earlier one says of these stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from transferbench.identity import digest
from transferbench.suite.schema import Grid, Suite

__all__ = ["changed_between"]

FREE = frozenset({"version", "summary", "backbones"})
"""Fields that move no number of a board."""
TABLES = ("sources", "targets", "perturbations", "recipes", "initializations", "diagnostics",
          "claims")  # fmt: skip
"""Fields that map labels to what they stand for."""
COMPARED = frozenset({*TABLES, "trials", "scoring"}) | FREE


def changed_between(suites: Iterable[Suite]) -> Iterator[str]:
    """What the MINORs of one MAJOR change instead of adding, as sentences."""
    ordered = sorted(suites, key=lambda suite: int(suite.version.partition(".")[2]))
    for earlier, later in pairwise(ordered):
        for what in _changes(earlier, later):
            yield f"{later.id} changes {what} of {earlier.id}; a MINOR only adds: give it a MAJOR"


def _changes(earlier: Suite, later: Suite) -> Iterator[str]:
    before, after = (suite.model_dump(mode="json") for suite in (earlier, later))
    for name in sorted(before.keys() | after.keys()):
        if name not in COMPARED and before.get(name) != after.get(name):
            yield name
    for table in TABLES:
        yield from _changed_labels(table, before[table], after[table])
    yield from _lost_checkpoints(before["sources"], after["sources"])
    if _without_columns(before["scoring"]) != _without_columns(after["scoring"]):
        yield "scoring"
    columns = [suite.scoring.columns for suite in (earlier, later)]
    if any(column not in columns[1] for column in columns[0]):
        yield "scoring.columns"
    for cell in earlier.cells():
        if earlier.replicates_in(*cell) != later.replicates_in(*cell):
            yield f"the replicates of {cell[2]} on {cell[0]}, {cell[1]}"
    yield from _other_averages(earlier, later)


def _changed_labels(
    table: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[str]:
    for label, entry in before.items():
        entries = (_without_checkpoints(table, each) for each in (entry, after.get(label)))
        if len({digest(each) for each in entries}) > 1:
            yield f"{table}.{label}"


def _without_checkpoints(table: str, entry: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if table != "sources" or entry is None:
        return entry
    return {key: value for key, value in entry.items() if key != "checkpoints"}


def _lost_checkpoints(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for label, source in before.items():
        if not set(source["checkpoints"]) <= set(after.get(label, source)["checkpoints"]):
            yield f"sources.{label}.checkpoints"


def _without_columns(scoring: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scoring.items() if key != "columns"}


def _other_averages(earlier: Suite, later: Suite) -> Iterator[str]:
    """Claims that average over all targets or perturbations, of which the later one has more."""
    for label, claim in earlier.claims.items():
        for term in claim.all_terms:
            grids = [
                suite.diagnostics[term.diagnostic].on
                if term.diagnostic in suite.diagnostics
                else Grid()
                for suite in (earlier, later)
            ]
            (targets, perturbations, _), (others, other_perturbations, _) = (
                suite.axes(grid) for suite, grid in zip((earlier, later), grids, strict=True)
            )
            if (term.target is None and set(targets) != set(others)) or (
                term.perturbation is None and set(perturbations) != set(other_perturbations)
            ):
                yield f"what claims.{label} averages over"
                break
