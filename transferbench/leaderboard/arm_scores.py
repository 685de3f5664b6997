"""The initializations of one entry: the numbers of each, and where it stands among the others."""

from __future__ import annotations

from typing import NamedTuple

from transferbench.leaderboard.entry_scores import most_severe
from transferbench.leaderboard.scores import (
    Place,
    Series,
    Values,
    as_speed,
    compared_arms,
    missing_scores,
    place_of_score,
    score_series,
    values_of,
)
from transferbench.statistics import (
    Interval,
    Rank,
    rank_intervals,
    share_of_gain,
    student_t,
)
from transferbench.submission import Bundle
from transferbench.suite import Suite

__all__ = ["Arm", "Outcome", "ranked_arms"]


class Outcome(NamedTuple):
    """What an arm came to under one perturbation; None where it was not measured.

    ``share``: of the speed that the suite's scored arm gains over its baseline.
    Units: fractions. Error: Student-t over replicates; Fieller's interval for the share.
    """

    final: Interval | None
    speed: Interval | None
    share: Interval | None


class Arm(NamedTuple):
    """One initialization of an entry; its ranks are among those of the same entry.

    ``score``: replicate -> mean over the scoring targets of
    (value - chance) / (reference - chance).
    """

    label: str
    score: Series
    rank: Rank
    speed_rank: Rank | None
    clean: Outcome
    severe: Outcome


def ranked_arms(suite: Suite, bundle: Bundle) -> list[Arm]:
    """Every compared arm of ``bundle`` that lacks no score, the best first."""
    values = values_of(suite, bundle.records)
    complete = [a for a in compared_arms(suite) if not missing_scores(suite, bundle.records, a)]
    scores = {arm: score_series(suite.scoring, values, arm) for arm in complete}
    speeds = {arm: values.series(_speed_place(suite, arm)) for arm in complete}
    speed_ranks = rank_intervals({arm: series for arm, series in speeds.items() if series})
    severe = most_severe(suite, bundle.submission.severities)
    return [
        Arm(
            label=arm,
            score=scores[arm],
            rank=rank,
            speed_rank=speed_ranks.get(arm),
            clean=_outcome(suite, values, arm, suite.scoring.perturbation),
            severe=_outcome(suite, values, arm, severe),
        )
        for arm, rank in rank_intervals(scores).items()
    ]


def _speed_place(suite: Suite, arm: str) -> Place:
    return as_speed(suite, place_of_score(suite.scoring, arm))


def _outcome(suite: Suite, values: Values, arm: str, perturbation: str | None) -> Outcome:
    def under(place: Place) -> Series:
        return values.series(place._replace(perturbation=perturbation or ""))

    scoring = suite.scoring
    speeds = [
        under(_speed_place(suite, label))
        for label in (arm, scoring.initialization, scoring.baseline)
    ]
    return Outcome(
        final=_mean(under(place_of_score(scoring, arm))),
        speed=_mean(speeds[0]),
        share=share_of_gain(*speeds),
    )


def _mean(series: Series) -> Interval | None:
    return student_t(list(series.values())) if series else None
