"""Tables of a run as a whole: entries side by side, recipes, jobs that did not finish."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.parts import Scope
from transferbench.report.quantities import TEST
from transferbench.report.tables import Cell, Table
from transferbench.suite import Recipe, Suite

__all__ = ["budgets_table", "entries_table", "failures_table"]

LISTED = 40
"""Unfinished jobs in the report; a run that was stopped early has thousands."""
IDLE = ("missing", "skipped")


def entries_table(scopes: Sequence[Scope], suite: Suite) -> Table:
    """Entries side by side: the scored pair and its gain on each target, unperturbed."""
    a, b = suite.scoring.initialization, suite.scoring.baseline
    gain = TEST.gain((a, b), "gain, points")
    columns = [TEST.of_arm(a, f"test {a}"), TEST.of_arm(b, f"test {b}")]
    lines = []
    for target in suite.targets:
        for scope in scopes:
            rows = TEST.rows(scope.measurements)
            here = rows.select(target=target, perturbation=suite.scoring.perturbation)
            cells = [TEST.write(column.of(here)) for column in columns]
            gains = TEST.write_gain(gain.of(here))
            lines.append((Cell(target), Cell(scope.entry), *cells, gains))
    head = ("target", "entry", *(column.name for column in columns), gain.name)
    note = (
        "Metrics in %. Brackets: 95% Student-t interval over n replicates. Gains are paired by "
        "replicate."
    )
    return Table(head, lines, note)


# --- recipes ----------------------------------------------------------------------------------


def budgets_table(suite: Suite) -> Table:
    """The recipe of each arm; unequal tuning budgets are flagged."""
    scored = suite.scoring.initialization
    uses = dict.fromkeys(
        (arm, _recipe_name(suite, arm, target), _recipe_name(suite, scored, target))
        for arm in suite.initializations
        for target in suite.targets
    )
    head = ("arm", "targets", "recipe", "optimizer", "learning rate", "epochs", "batch")
    note = (
        "Tuned over: how many settings the recipe was the best of. An arm is flagged where that "
        f"differs from {scored}'s on the same target."
    )
    lines = [_budget_row(suite, *use) for use in uses]
    return Table((*head, "schedule", "tuned over", "flag"), lines, note)


def _recipe_name(suite: Suite, arm: str, target: str) -> str:
    use = suite.initializations[arm]
    return use.recipes.get(target, use.recipe)


def _budget_row(suite: Suite, arm: str, name: str, scored: str) -> tuple[Cell, ...]:
    """An arm's recipe, flagged where its tuning differs from the scored arm's."""
    own, other = suite.recipes[name].tuned_over, suite.recipes[scored].tuned_over
    flag = "" if own == other else f"unequal tuning: {own} against {other}"
    targets = [
        target
        for target in suite.targets
        if _recipe_name(suite, arm, target) == name
        and _recipe_name(suite, suite.scoring.initialization, target) == scored
    ]
    where = "all" if len(targets) == len(suite.targets) else ", ".join(targets)
    cells = _recipe_cells(suite.recipes[name])
    return (Cell(arm), Cell(where), Cell(name), *cells, Cell(flag, kind="flag"))


def _recipe_cells(recipe: Recipe) -> tuple[Cell, ...]:
    """What of a recipe decides a comparison."""
    return (
        Cell(recipe.optimizer),
        Cell(f"{recipe.learning_rate:g}", kind="number"),
        Cell(str(recipe.epochs), kind="number"),
        Cell(str(recipe.batch_size), kind="number"),
        Cell(recipe.schedule.name),
        Cell(str(recipe.tuned_over), kind="number"),
    )


# --- jobs -------------------------------------------------------------------------------------


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
