"""What a training of a tuning grid measures, and the rate of a trial as a measurement of it."""

from __future__ import annotations

from transferbench.plan.tuning import BEST_METRIC, RATE, TRAINED, Choice
from transferbench.records import Coordinate, Measurement
from transferbench.suite import Recipe
from transferbench.training import DIVERGED, UNDEFINED, TaskData, TrainingResult

__all__ = ["rate_measurement", "tuning_measurements"]


def tuning_measurements(
    result: TrainingResult, data: TaskData, recipe: Recipe
) -> list[Measurement]:
    """What a training of a grid measures: the best validation metric, and what it cost.

    A training whose outputs were not finite at an evaluated epoch has none. No interval: the best
    of several epochs has no error bar of its own, and rates are compared over replicates.
    """
    if data.validation is None:
        raise ValueError("a learning rate is tuned on validation images, and there are none")
    n, trained = len(data.validation.pipeline), len(data.train.pipeline)
    best = next((row for row in result.history if row["epoch"] == result.best_epoch), None)
    value, flag = best and best["validation_metric"], None
    if any(row["validation_loss"] is None for row in result.history):
        value, flag = None, DIVERGED
    elif value is None:
        flag = UNDEFINED
    at: dict[str, Coordinate] = {RATE: recipe.learning_rate or 0.0}
    steps = recipe.epochs * max(trained // recipe.batch_size, 1)
    images = float(steps * min(recipe.batch_size, trained))
    return [
        Measurement(
            metric=BEST_METRIC, value=value, unit="fraction", n=n, flag=flag, coordinates=at
        ),
        Measurement(metric=TRAINED, value=images, unit="images", n=1, coordinates=at),
    ]


def rate_measurement(choice: Choice) -> Measurement:
    """The learning rate that a trial was trained with, with what makes the choice doubtful."""
    return Measurement(
        metric=RATE,
        value=choice.best.learning_rate,
        unit="1",
        n=choice.trainings,
        flag="; ".join(choice.flags) or None,
    )
