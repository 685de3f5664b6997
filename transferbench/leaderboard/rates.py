"""The learning rates of the rows of a board, where the run chose them, and which are doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.errors import listing
from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.scores import Candidate, compared_arms
from transferbench.plan.tuning import BEST_METRIC, RATE, Choice, choices_of
from transferbench.suite import TUNING, Suite

__all__ = ["is_tuned", "rate_flags", "rates_text"]

LISTED = 5
"""Doubtful rates that a warning names."""


def is_tuned(suite: Suite) -> bool:
    """Whether the run chooses a learning rate of an arm that the board compares."""
    return any(
        suite.recipes[suite.initializations[arm].recipe_on(target)].tune
        for arm in compared_arms(suite)
        for target in suite.scoring.chance
    )


def _choices(candidate: Candidate) -> dict[tuple[str, str], Choice]:
    """By arm and scoring target, from what the tuning recorded."""
    return choices_of(
        ((row.initialization, row.target), float(row.coordinates[RATE]), row.value)
        for row in candidate.bundle.records
        if row.diagnostic == TUNING
        and row.metric == BEST_METRIC
        and row.target in candidate.suite.scoring.chance
    )


def rates_text(candidate: Candidate, arms: Sequence[str]) -> str | None:
    """The chosen rate of each of ``arms``, with the targets where it differs; None without one."""
    choices = _choices(candidate)
    texts = []
    for arm in arms:
        targets_of: dict[float, list[str]] = {}
        for (label, target), choice in choices.items():
            if label == arm:
                targets_of.setdefault(choice.best.learning_rate, []).append(target)
        rates = [
            f"{rate:g}" if len(targets_of) == 1 else f"{rate:g} ({', '.join(sorted(targets))})"
            for rate, targets in sorted(targets_of.items())
        ]
        if rates:
            texts.append(" ".join([*([arm] if len(arms) > 1 else []), ", ".join(rates)]))
    return "; ".join(texts) or None


def rate_flags(competition: Competition) -> Iterator[str]:
    """Warnings about rates at the edge of their grids, and trainings that had no metric."""
    if not is_tuned(competition.suite):
        return
    arms = compared_arms(competition.suite)
    choices = [
        (f"{arm} of {candidate.head.entry.label} on {target}", choice)
        for candidate in competition.chosen.values()
        for (arm, target), choice in _choices(candidate).items()
        if arm in arms
    ]
    edges = [f"{name} ({choice.best.learning_rate:g}, the {choice.edge})"
             for name, choice in choices if choice.edge]  # fmt: skip
    if edges:
        yield (
            f"Learning rate at the edge of its grid: {listing(edges, LISTED, '; ')}. A better one "
            "may lie outside."
        )
    lost = [f"{name} ({count} of {choice.trainings})" for name, choice in choices
            if (count := sum(rate.lost for rate in choice.tried))]  # fmt: skip
    if lost:
        yield f"Tuning trainings without a finite metric: {listing(lost, LISTED, '; ')}."
