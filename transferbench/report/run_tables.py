"""Tables beside the parts: entries, recipes, unfinished jobs, and measurements without a part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from transferbench.measurements import Measurements
from transferbench.report.comparisons import OVER_NETWORKS, OVER_SOURCES, PAIRED
from transferbench.report.formats import label_text, significant
from transferbench.report.parts import Scope
from transferbench.report.quantities import TEST
from transferbench.report.summaries import summary_of
from transferbench.report.tables import Cell, Table, bounds_text
from transferbench.suite import Suite

__all__ = ["budgets_table", "entries_table", "failures_table", "remaining_tables"]

LISTED = 40
"""Unfinished jobs in the report; a run that was stopped early has thousands."""
IDLE = ("missing", "skipped")
REMAINING = f"Brackets: {OVER_NETWORKS}{OVER_SOURCES}; of pairs by the jackknife."
LABELS = {
    "target": "target",
    "perturbation": "perturbation",
    "initialization": "arm",
    "other_initialization": "other arm",
}
MOST_ROWS = 60


def entries_table(scopes: Sequence[Scope], suite: Suite) -> Table:
    """Entries side by side: the scored pair and its gain on each target, unperturbed."""
    pair = suite.scoring.initialization, suite.scoring.baseline
    columns = [TEST.of_arm(arm, f"test {arm}") for arm in pair]
    gain = TEST.gain(pair, "gain, points")
    lines = []
    for target in suite.targets:
        for scope in scopes:
            rows = TEST.rows(scope.measurements)
            here = rows.select(target=target, perturbation=suite.scoring.perturbation)
            cells = [TEST.write(column.of(here)) for column in columns]
            gains = TEST.write_gain(gain.of(here))
            lines.append((Cell(target), Cell(scope.entry), *cells, gains))
    head = ("target", "entry", *(column.name for column in columns), gain.name)
    note = f"Metrics in %. Brackets: {OVER_NETWORKS}. Gains are {PAIRED}."
    return Table(head, lines, note)


def budgets_table(suite: Suite) -> Table:
    """The recipe of each arm; unequal tuning budgets are flagged."""
    arms = suite.initializations
    scored = suite.scoring.initialization
    targets_of: dict[tuple[str, str, str], list[str]] = {}
    for arm in suite.initializations:
        for target in suite.targets:
            key = arm, arms[arm].recipe_on(target), arms[scored].recipe_on(target)
            targets_of.setdefault(key, []).append(target)
    lines = []
    for (arm, name, other), targets in targets_of.items():
        recipe, budget = suite.recipes[name], suite.recipes[other].budget
        where = "all" if len(targets) == len(suite.targets) else ", ".join(targets)
        unequal = f"unequal tuning: {recipe.budget} against {budget}"
        tried = recipe.tune.learning_rate if recipe.tune else (recipe.learning_rate,)
        whose = f", that of {arms[arm].rate_of}" if recipe.tune and arms[arm].rate_of else ""
        lines.append((
            *map(Cell, (arm, where, name, recipe.optimizer)),
            Cell(" or ".join(f"{rate:g}" for rate in tried) + whose, kind="number"),
            Cell(str(recipe.epochs), kind="number"),
            Cell(str(recipe.batch_size), kind="number"),
            Cell(recipe.schedule.name),
            Cell(str(recipe.budget), kind="number"),
            Cell("" if recipe.budget == budget else unequal, kind="flag"),
        ))  # fmt: skip
    head = ("arm", "targets", "recipe", "optimizer", "learning rate", "epochs", "batch")
    note = (
        "Tuned over: how many settings the recipe was the best of. An arm is flagged where that "
        f"differs from {scored}'s on the same target. Of several learning rates, each entry, arm "
        "and target has its best."
    )
    return Table((*head, "schedule", "tuned over", "flag"), lines, note)


def failures_table(statuses: pd.DataFrame) -> Table | None:
    """The jobs that did not finish, with their messages."""
    if "status" not in statuses.columns:
        return None
    failed = statuses[statuses["status"] != "ok"]
    if failed.empty:
        return None
    # Those that failed say why; those that wait for them, or for a run to go on, say nothing.
    failed = failed.sort_values("status", key=lambda status: status.isin(IDLE), kind="stable")
    columns = [name for name in ("status", "kind", "label", "message") if name in failed.columns]
    lines = [
        tuple(Cell("" if pd.isna(value) else str(value), kind="text") for value in row)
        for row in failed[columns].itertuples(index=False)
    ]
    left = len(lines) - LISTED
    note = f"And {left} more: transferbench status RUN --json lists all." if left > 0 else ""
    return Table(columns, lines[:LISTED], note)


def remaining_tables(
    measurements: Measurements, drawn: Mapping[str, Collection[str]]
) -> dict[str, Table]:
    """A table for each diagnostic of an entry, of the metrics that no part shows.

    ``drawn``: the metrics of each diagnostic that a part shows.
    """
    tables = {}
    for (name,), rows in sorted(measurements.valued().groups("diagnostic").items()):
        in_part = drawn.get(name, ())
        rest = rows.select(metric=[m for m in rows.distinct("metric") if m not in in_part])
        if len(rest):
            tables[str(name)] = _means_table(rest)
    return tables


def _means_table(rows: Measurements) -> Table:
    """The mean over replicates of each metric at each combination of labels."""
    columns = [name for name in (*LABELS, *rows.coordinates) if rows.distinct(name)]
    groups = rows.groups(*columns, "metric", "unit")
    lines = []
    for labels, here in list(groups.items())[:MOST_ROWS]:
        summary = summary_of(here.by_pair(), here.networks, here.bounds)
        if summary is not None:
            mean = Cell(significant(summary.mean), bounds_text(summary, significant), kind="number")
            lines.append((*(Cell(label_text(label)) for label in labels), mean))
    note = REMAINING
    if len(groups) > MOST_ROWS:
        note += f" The first {MOST_ROWS} of {len(groups)} rows; the records hold all of them."
    head = [LABELS.get(name, name) for name in columns]
    return Table((*head, "metric", "unit", "mean"), lines, note)
