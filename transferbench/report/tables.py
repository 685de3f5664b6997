"""The tables of a report: each cell a mean, its interval and the n behind both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from transferbench.report.formats import ABSENT, interval_text, number, signed
from transferbench.report.mistakes import Pair, pairs_of
from transferbench.report.summaries import Measured, Summary
from transferbench.suite import Recipe, Suite

__all__ = [
    "Cell",
    "Table",
    "arms_table",
    "budgets_table",
    "comparison_table",
    "failures_table",
    "mistakes_table",
    "transfer_table",
]

INTERVALS = "Brackets: 95% Student-t interval over n replicates."
LISTED = 40
"""Unfinished jobs in the report; a run that was stopped early has thousands."""
IDLE = ("missing", "skipped")
UNTRAINED = 0.05
"""A network did not train if its train metric covers no more of the way from chance to 1."""


@dataclass(frozen=True)
class Cell:
    """One field of a table: what it says, and its interval in smaller type."""

    text: str
    detail: str = ""
    kind: Literal["label", "number", "flag", "text"] = "label"


@dataclass(frozen=True)
class Table:
    """Rows under heads, with a sentence that says how the numbers were made."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def mean_cell(
    one: Summary | None, scale: float = 100.0, write: Callable[[float], str] = number
) -> Cell:
    """A mean with its interval; a dash where nothing was measured."""
    if one is None:
        return Cell(ABSENT, "not measured", kind="number")
    return Cell(write(one.mean * scale), interval_text(one, scale), kind="number")


# --- the scored pair --------------------------------------------------------------------------


def untrained(measured: Measured, suite: Suite, arm: str, where: dict[str, str]) -> list[str]:
    """A warning where an arm did not learn its own training set in some replicates."""
    chance = suite.scoring.chance.get(where["target"])
    if chance is None:
        return []
    train = measured.replicates("trial", "train_metric", initialization=arm, **where)
    stuck = sum(value - chance <= UNTRAINED * (1 - chance) for value in train.values())
    return [f"{arm} did not train in {stuck} of {len(train)} replicates"] if stuck else []


def warnings_of(measured: Measured, suite: Suite, where: dict[str, str]) -> list[str]:
    """What makes a cell's comparison doubtful, arm by arm."""
    found = []
    for arm in (suite.scoring.initialization, suite.scoring.baseline):
        found += untrained(measured, suite, arm, where)
        flags = measured.flags("trial", initialization=arm, **where)
        found += [f"{arm}: {flag}" for flag in flags]
    return found


def transfer_row(
    measured: Measured, suite: Suite, target: str, perturbation: str
) -> tuple[Cell, ...]:
    """One target under one perturbation."""
    where = {"target": target, "perturbation": perturbation}
    pair = (suite.scoring.initialization, suite.scoring.baseline)
    test = [measured.summary("trial", "test_metric", initialization=arm, **where) for arm in pair]
    train = [measured.summary("trial", "train_metric", initialization=arm, **where) for arm in pair]
    gain = measured.difference("trial", "test_metric", pair, **where)
    speed = measured.difference("speed", "speed", pair, **where)
    drop = measured.drop(pair, **where)
    flags = warnings_of(measured, suite, where)
    return (
        Cell(target),
        Cell(perturbation),
        *map(mean_cell, test),
        mean_cell(gain, write=signed),
        mean_cell(drop, scale=1.0),
        *map(mean_cell, train),
        mean_cell(speed, write=signed),
        Cell("; ".join(flags), kind="flag"),
    )


def measured_cells(measured: Measured, suite: Suite) -> list[tuple[str, str]]:
    """The targets and perturbations with a finished trial, in the suite's order."""
    rows = measured.rows("trial", "test_metric")
    seen = {(row["target"], row["perturbation"]) for row in rows}
    return [
        (target, perturbation)
        for target in suite.targets
        for perturbation in suite.perturbations
        if (target, perturbation) in seen
    ]


def transfer_table(measured: Measured, suite: Suite) -> Table | None:
    """Test, gain, relative drop and train metric of the scored pair in every cell."""
    cells = measured_cells(measured, suite)
    if not cells:
        return None
    a, b = suite.scoring.initialization, suite.scoring.baseline
    head = ("target", "perturbation", f"test {a}", f"test {b}", "gain", "relative drop")
    note = (
        f"Metrics in %, differences in points. {INTERVALS} Gain and speed gain are {a} minus {b}, "
        f"paired by replicate. A network is flagged as untrained where its train metric covers no "
        f"more than {UNTRAINED:.0%} of the way from chance to 100%: the drop then measures "
        "trainability."
    )
    note = " ".join([note, *(f"Speed: {flag}." for flag in measured.flags("speed"))])
    rows = tuple(transfer_row(measured, suite, *cell) for cell in cells)
    return Table((*head, f"train {a}", f"train {b}", "speed gain", "flag"), rows, note)


# --- every arm --------------------------------------------------------------------------------


def arm_row(measured: Measured, target: str, perturbation: str, arm: str) -> tuple[Cell, ...]:
    """One arm in one cell."""
    where = {"target": target, "perturbation": perturbation, "initialization": arm}
    metrics = [
        mean_cell(measured.summary("trial", name, **where))
        for name in ("test_metric", "best_test_metric", "train_metric")
    ]
    loss = measured.summary("trial", "test_loss", **where)
    plain = [measured.summary("trial", name, **where) for name in ("best_epoch", "n_train")]
    return (
        *map(Cell, (target, perturbation, arm)),
        *metrics,
        precise_cell(loss),
        *map(count_cell, plain),
    )


def arms_table(measured: Measured, suite: Suite) -> Table | None:
    """Every arm in every cell, controls included."""
    rows = tuple(
        arm_row(measured, target, perturbation, arm)
        for target, perturbation in measured_cells(measured, suite)
        for arm in suite.initializations
        if measured.summary(
            "trial",
            "test_metric",
            target=target,
            perturbation=perturbation,
            initialization=arm,
        )
    )
    if not rows:
        return None
    head = ("target", "perturbation", "arm", "test", "test at best", "train", "test loss")
    note = (
        f"Metrics in %. {INTERVALS} Test is after the last epoch; test at best is at the epoch "
        "that the validation images chose, never the test images."
    )
    return Table((*head, "best epoch", "train images"), rows, note)


# --- recipes ----------------------------------------------------------------------------------


def recipe_of(suite: Suite, arm: str, target: str) -> str:
    """The name of the recipe that an arm uses on a target."""
    use = suite.initializations[arm]
    return use.recipes.get(target, use.recipe)


def recipe_cells(recipe: Recipe) -> tuple[Cell, ...]:
    """What of a recipe decides a comparison."""
    return (
        Cell(recipe.optimizer),
        Cell(f"{recipe.learning_rate:g}", kind="number"),
        Cell(str(recipe.epochs), kind="number"),
        Cell(str(recipe.batch_size), kind="number"),
        Cell(recipe.schedule.name),
        Cell(str(recipe.tuned_over), kind="number"),
    )


def budget_row(suite: Suite, arm: str, name: str, scored: str) -> tuple[Cell, ...]:
    """An arm's recipe, flagged where its tuning differs from the scored arm's."""
    own, other = suite.recipes[name].tuned_over, suite.recipes[scored].tuned_over
    flag = "" if own == other else f"unequal tuning: {own} against {other}"
    targets = [
        target
        for target in suite.targets
        if recipe_of(suite, arm, target) == name
        and recipe_of(suite, suite.scoring.initialization, target) == scored
    ]
    where = "all" if len(targets) == len(suite.targets) else ", ".join(targets)
    cells = recipe_cells(suite.recipes[name])
    return (Cell(arm), Cell(where), Cell(name), *cells, Cell(flag, kind="flag"))


def budgets_table(suite: Suite) -> Table:
    """The recipe of each arm; unequal tuning budgets are flagged."""
    scored = suite.scoring.initialization
    used = dict.fromkeys(
        (arm, recipe_of(suite, arm, target), recipe_of(suite, scored, target))
        for arm in suite.initializations
        for target in suite.targets
    )
    head = ("arm", "targets", "recipe", "optimizer", "learning rate", "epochs", "batch")
    note = (
        "Tuned over: how many settings the recipe was the best of. An arm is flagged where that "
        f"differs from {scored}'s on the same target."
    )
    rows = tuple(budget_row(suite, *one) for one in used)
    return Table((*head, "schedule", "tuned over", "flag"), rows, note)


# --- mistakes ---------------------------------------------------------------------------------


def mistakes_row(measured: Measured, pair: Pair) -> tuple[Cell, ...]:
    """One pair of arms."""
    shares = ("kappa", "error_jaccard", "agreement")
    sizes = ("uncommon_a", "n_common", "uncommon_b")
    return (
        *map(Cell, (pair.target, pair.perturbation, pair.name)),
        *(precise_cell(pair.summary(measured, metric)) for metric in shares),
        *(count_cell(pair.summary(measured, metric)) for metric in sizes),
    )


def count_cell(one: Summary | None) -> Cell:
    """A count; replicates that all agree need no interval."""
    if one is not None and one.bounds == (one.mean, one.mean):
        return Cell(f"{one.mean:g}", f"n\N{NO-BREAK SPACE}{one.n}", kind="number")
    return mean_cell(one, scale=1.0)


def precise_cell(one: Summary | None) -> Cell:
    """An unscaled number with three digits."""
    if one is None:
        return Cell(ABSENT, "not measured", kind="number")
    return Cell(number(one.mean, 3), interval_text(one, digits=3), kind="number")


def mistakes_table(measured: Measured, suite: Suite) -> Table | None:
    """Agreement of errors and sizes of the sets of mistakes."""
    pairs = [
        pair
        for target in suite.targets
        for perturbation in suite.perturbations
        for pair in pairs_of(measured, suite, target, perturbation)
    ]
    if not pairs:
        return None
    head = ("target", "perturbation", "pair", "\N{GREEK SMALL LETTER KAPPA} of errors")
    note = (
        "Brackets: 95% jackknife interval over n replicates, since pairs that share a network are "
        "not independent. The last three columns count test images."
    )
    rows = tuple(mistakes_row(measured, pair) for pair in pairs)
    sets = ("only a wrong", "both wrong", "only b wrong")
    return Table((*head, "error Jaccard", "equal predictions", *sets), rows, note)


# --- the run ----------------------------------------------------------------------------------


def comparison_table(every: Sequence[tuple[str, Measured]], suite: Suite) -> Table:
    """Entries side by side: the scored pair and its gain on each target, unperturbed."""
    pair = (suite.scoring.initialization, suite.scoring.baseline)
    rows = []
    for target in suite.targets:
        where = {"target": target, "perturbation": suite.scoring.perturbation}
        for entry, measured in every:
            arms = [
                measured.summary("trial", "test_metric", initialization=arm, **where)
                for arm in pair
            ]
            gain = measured.difference("trial", "test_metric", pair, **where)
            rows.append(
                (Cell(target), Cell(entry), *map(mean_cell, arms), mean_cell(gain, write=signed))
            )
    head = ("target", "entry", *(f"test {arm}" for arm in pair), "gain, points")
    return Table(head, tuple(rows), f"Metrics in %. {INTERVALS} Gains are paired by replicate.")


def failures_table(statuses: pd.DataFrame) -> Table | None:
    """The jobs that did not finish, with what they said."""
    if "status" not in statuses.columns:
        return None
    failed = statuses[statuses["status"] != "ok"]
    if failed.empty:
        return None
    # Those that failed say why; those that wait for them, or for a run to go on, say nothing.
    failed = failed.sort_values("status", key=lambda found: found.isin(IDLE), kind="stable")
    columns = [name for name in ("status", "kind", "label", "message") if name in failed.columns]
    rows = tuple(
        tuple(Cell("" if pd.isna(value) else str(value), kind="text") for value in row)
        for row in failed[columns].itertuples(index=False)
    )
    left = len(rows) - LISTED
    note = f"And {left} more: transferbench status RUN --json lists all." if left > 0 else ""
    return Table(tuple(columns), rows[:LISTED], note)
