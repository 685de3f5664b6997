"""The recorded values of one submission, found by place, and the score that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from transferbench.records import Record
from transferbench.suite import TRIAL, Scoring, Suite

__all__ = [
    "Place",
    "Series",
    "Values",
    "as_speed",
    "compared_arms",
    "missing_scores",
    "place_of_score",
    "score_series",
    "values_of",
]

Series = Mapping[int, float]
"""Replicate -> value."""

SPEED = "speed"
"""The diagnostic, and its metric, of how fast a trial learned: its mean training metric."""


class Place(NamedTuple):
    """Where a value of a trial is recorded: nothing else can stand in for it."""

    diagnostic: str
    metric: str
    initialization: str
    perturbation: str


class Values:
    """The recorded values of a submission, found by place."""

    def __init__(self, records: Iterable[Record], targets: Sequence[str]) -> None:
        self.targets = targets
        self._found: dict[Place, dict[str, dict[int, float]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for row in records:
            if row.value is not None and not row.coordinates:
                self._found[_place_of(row)][row.target][row.replicate] = row.value

    def series(
        self,
        place: Place,
        scaled: Callable[[str, float], float] = lambda _, value: value,
    ) -> Series:
        """The mean over all targets, for each replicate that has a value on every one."""
        by_target = [self._found[place][target] for target in self.targets]
        complete = set.intersection(*map(set, by_target))
        return {
            k: fmean(
                scaled(target, values[k])
                for target, values in zip(self.targets, by_target, strict=True)
            )
            for k in sorted(complete)
        }


def compared_arms(suite: Suite) -> tuple[str, ...]:
    """The arms that a board of ``suite`` compares, the scored one and its baseline at least."""
    scoring = suite.scoring
    if scoring.ranks == "entries":
        return scoring.initialization, scoring.baseline
    # Sorted: the suite of a submission has lost its own order.
    return tuple(
        arm
        for arm in sorted(suite.initializations)
        if all(suite.trains(target, scoring.perturbation, arm) for target in scoring.chance)
    )


def values_of(suite: Suite, records: Iterable[Record]) -> Values:
    """What was recorded on the scoring targets of ``suite``."""
    return Values(records, tuple(suite.scoring.chance))


def place_of_score(scoring: Scoring, arm: str) -> Place:
    """Where the metric is recorded that an arm is scored by."""
    return Place(TRIAL, scoring.metric, arm, scoring.perturbation)


def as_speed(suite: Suite, place: Place) -> Place:
    """Where the speed at ``place`` is recorded; one that no record has where none is measured."""
    label = next((label for label, use in suite.diagnostics.items() if use.name == SPEED), "")
    return place._replace(diagnostic=label, metric=SPEED)


def score_series(scoring: Scoring, values: Values, arm: str) -> Series:
    """For each replicate the mean over targets of (value - chance) / (reference - chance)."""

    def normalised(target: str, value: float) -> float:
        chance, reference = scoring.chance[target], scoring.reference[target]
        return (value - chance) / (reference - chance)

    return values.series(place_of_score(scoring, arm), normalised)


def missing_scores(suite: Suite, records: Iterable[Record], arm: str) -> list[str]:
    """What an arm lacks to be scored by ``suite``: its target and replicate."""
    place = place_of_score(suite.scoring, arm)
    found = {
        (row.target, row.replicate)
        for row in records
        if _place_of(row) == place and row.value is not None and not row.coordinates
    }
    wanted = [(target, k) for target in suite.scoring.chance for k in range(suite.replicates)]
    return [f"{target}, replicate {k}" for target, k in wanted if (target, k) not in found]


def _place_of(row: Record) -> Place:
    return Place(row.diagnostic, row.metric, row.initialization, row.perturbation)
