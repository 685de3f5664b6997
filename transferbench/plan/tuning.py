"""The choice of a learning rate, from the validation metrics of the trainings of its grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from transferbench.suite import Recipe

__all__ = [
    "BEST_METRIC",
    "RATE",
    "TRAINED",
    "Choice",
    "TriedRate",
    "choices_of",
    "choose_rate",
    "recipe_at",
    "required_jobs",
]

Key = TypeVar("Key", bound=Hashable)

RATE = "learning_rate"
"""A coordinate of tuning measurements, and the metric that a trial records its rate as."""

BEST_METRIC = "validation_metric"
"""What a training of the grid measures: its best validation metric at the evaluated epochs."""

TRAINED = "trained_images"
"""What it cost: images that were trained on, counted in each epoch."""

ROUNDING = 1e-9
"""Means that differ by less are equal: those of (.15, .15) and (.1, .2) differ in the last bit."""

WORST = 0.0
"""Of all metrics; a training that diverged counts as that."""


class TriedRate(NamedTuple):
    """A learning rate of a grid.

    ``values``: the best validation metric of each replicate; None where it diverged, or where the
    metric is not defined. Units: fraction.
    """

    learning_rate: float
    values: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Over the replicates; one without a value counts as the worst."""
        return fmean(WORST if value is None else value for value in self.values)

    @property
    def lost(self) -> int:
        """The number of replicates without a value."""
        return sum(value is None for value in self.values)


class Choice(NamedTuple):
    """What was tried for one entry, arm and target, by ascending learning rate."""

    tried: tuple[TriedRate, ...]

    @property
    def best(self) -> TriedRate:
        """The rate with the highest mean, of equals the smallest."""
        highest = max(rate.mean for rate in self.tried)
        return next(rate for rate in self.tried if rate.mean >= highest - ROUNDING)

    @property
    def trainings(self) -> int:
        """The number of trainings that it was made from."""
        return sum(len(rate.values) for rate in self.tried)

    @property
    def edge(self) -> str:
        """``smallest`` or ``largest`` where the best rate is that of its grid, else ""."""
        edges = {self.tried[0]: "smallest", self.tried[-1]: "largest"}
        return edges.get(self.best, "")

    @property
    def flags(self) -> tuple[str, ...]:
        """What makes the choice doubtful."""
        flags = [
            f"no finite validation metric in {rate.lost} of {len(rate.values)} tuning replicates "
            f"at {rate.learning_rate:g}"
            for rate in self.tried
            if rate.lost
        ]
        if self.edge:
            low, high = self.tried[0].learning_rate, self.tried[-1].learning_rate
            grid = f"{len(self.tried)} rates from {low:g} to {high:g}"
            flags.append(f"the chosen learning rate is the {self.edge} of {grid}")
        return tuple(flags)


def choose_rate(
    planned: Sequence[Mapping[str, Any]], value_of: Callable[[str], float | None]
) -> Choice:
    """The choice that the ``tuning`` of a trial's payload asks for.

    ``planned``: each rate with the ids of its ``jobs``. ``value_of``: what a job measured.
    """
    tried = (TriedRate(row[RATE], tuple(map(value_of, row["jobs"]))) for row in planned)
    return Choice(tuple(sorted(tried)))


def choices_of(measured: Iterable[tuple[Key, float, float | None]]) -> dict[Key, Choice]:
    """The choice by key, such as an arm on a target, from its learning rates and their values."""
    values: defaultdict[Key, defaultdict[float, list[float | None]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for key, rate, value in measured:
        values[key][rate].append(value)
    return {
        key: Choice(tuple(TriedRate(rate, tuple(rates[rate])) for rate in sorted(rates)))
        for key, rates in values.items()
    }


def recipe_at(payload: Mapping[str, Any], learning_rate: float | None = None) -> Recipe:
    """The recipe of a training; ``learning_rate``: the one that was chosen for it, if one was."""
    chosen = {} if learning_rate is None else {RATE: learning_rate}
    return Recipe.model_validate({**payload["recipe"], **chosen})


def required_jobs(kind: str, payload: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the jobs whose artefacts a job reads, each once."""
    if kind == "diagnosis":
        return tuple(dict.fromkeys(map(str, payload["subjects"])))
    source = payload["initialization"].get("source") if kind in {"trial", "tuning"} else None
    tuning = (str(job) for row in payload.get("tuning", ()) for job in row["jobs"])
    return (*([source] if source else []), *tuning)
