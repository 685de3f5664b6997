"""The learning rates that a run chose: what each rate of a grid reached, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from transferbench.measurements import Measurements
from transferbench.plan.tuning import BEST_METRIC, RATE, TRAINED, Choice, TriedRate, choices_of
from transferbench.report.formats import ABSENT, percent
from transferbench.report.parts import Listing, Part, Scope
from transferbench.report.tables import Cell, Table
from transferbench.suite import TUNING, Suite

__all__ = ["TUNED", "choices_in", "planned_trainings", "tuning_part"]

TUNED = frozenset({BEST_METRIC, TRAINED})
"""The metrics of tuning that its part shows."""

NOTE = (
    "Validation metric in %, the mean over tuning replicates of the best of a training, with their "
    "values below; one that diverged counts as 0. The rate with the highest mean is chosen, of "
    "equals the smallest. Whole images, no test image, and seeds that no trial uses."
)


WORDS = {
    "tuning": "trainings at each learning rate of a recipe's grid, on images that are not "
    "perturbed; by their validation metrics each arm gets its rate on each target"
}


def choices_in(measurements: Measurements) -> dict[tuple[str, str, str], Choice]:
    """What was tried, by entry, target and arm."""
    rows = measurements.select(diagnostic=TUNING, metric=BEST_METRIC)
    names = ("entry", "target", "initialization")
    keys = zip(*map(rows.labels, names), strict=True)
    values = (None if math.isnan(value) else value for value in rows.to_numpy().tolist())
    return choices_of(zip(keys, rows.labels(RATE), values, strict=True))


def planned_trainings(suite: Suite, target: str, arm: str) -> int:
    """How many trainings the learning rate of an arm on a target is chosen from."""
    tune = suite.recipes[suite.initializations[arm].recipe_on(target)].tune
    return len(tune.learning_rate) * tune.replicates if tune else 0


def tuning_part(scope: Scope, seconds: Mapping[str, float]) -> Part | None:
    """The chosen rate of each arm on each target; None where the suite tunes none.

    ``seconds``: that each job took.
    """
    choices = {key[1:]: choice for key, choice in choices_in(scope.measurements).items()}
    suite = scope.suite
    planned = {
        (target, arm): count
        for target in suite.targets
        for arm in suite.initializations
        if (count := planned_trainings(suite, target, arm))
        and any(suite.trains(target, label, arm) for label in suite.perturbations)
    }
    if not planned:
        return None
    title = "Chosen learning rates"
    if not choices:
        return Part(title, (), ["No training of a grid of this entry has finished."])
    rates = sorted({rate.learning_rate for own in choices.values() for rate in own.tried})
    lines = []
    for (target, arm), count in planned.items():
        choice = choices.get((target, arm), Choice(()))
        own = scope.measurements.select(diagnostic=TUNING, target=target, initialization=arm)
        is_complete = choice.trainings == count
        flags = choice.flags if is_complete else [f"{choice.trainings} of {count} have finished"]
        lines.append((
            Cell(target),
            Cell(arm),
            Cell(f"{choice.best.learning_rate:g}" if is_complete else ABSENT, kind="number"),
            *_rate_cells(choice, rates),
            Cell(str(choice.trainings), kind="number"),
            *_cost_cells(own, seconds),
            Cell("; ".join(flags), kind="flag"),
        ))  # fmt: skip
    head = ("target", "arm", "chosen", *(f"at {rate:g}" for rate in rates))
    table = Table((*head, "trainings", "trained images", "time", "flag"), lines, NOTE)
    return Part(title, [Listing("Learning rate of each arm, from its grid", table)], words=WORDS)


def _rate_cells(choice: Choice, rates: Iterable[float]) -> list[Cell]:
    tried: dict[float, TriedRate] = {rate.learning_rate: rate for rate in choice.tried}
    cells = []
    for rate in rates:
        if (own := tried.get(rate)) is None:
            cells.append(Cell(ABSENT, kind="number"))
            continue
        values = ", ".join("none" if value is None else percent(value) for value in own.values)
        cells.append(Cell(percent(own.mean), values, kind="number"))
    return cells


def _cost_cells(rows: Measurements, seconds: Mapping[str, float]) -> list[Cell]:
    """Images trained on, and the time of the jobs one after another."""
    costs = rows.select(metric=TRAINED)
    times = [seconds[job] for job in dict.fromkeys(costs.labels("job")) if job in seconds]
    took = f"{sum(times):,.0f} s" if times else ABSENT
    images = f"{costs.to_numpy().sum():,.0f}"
    return [Cell(images, kind="number"), Cell(took, kind="number")]
