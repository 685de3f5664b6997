"""The numbers that one submission stands on a board with, one series over replicates each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from transferbench.leaderboard.scores import (
    Place,
    Series,
    Values,
    as_speed,
    place_of_score,
    score_series,
    values_of,
)
from transferbench.statistics import Interval, paired_difference, student_t
from transferbench.submission import Bundle
from transferbench.suite import Suite

__all__ = ["Profile", "Standing", "most_severe", "stand"]


class Profile(NamedTuple):
    """The metric of both arms along one family of perturbations, mildest first."""

    perturbations: tuple[str, ...]
    pretrained: tuple[float, ...]
    baseline: tuple[float, ...]


@dataclass(frozen=True)
class Standing:
    """What a board shows of one submission; None where its suite does not measure it.

    ``score``: replicate -> mean over the scoring targets of
    (value - chance) / (reference - chance).
    Units: ``score`` is 0 at chance and 1 at the reference; the others are fractions.
    Error: Student-t over replicates, paired by replicate for the gains.
    """

    score: Series
    pretrained: Interval
    baseline: Interval | None
    gain: Interval | None
    speed_gain: Interval | None
    severe_gain: Interval | None
    severe_speed_gain: Interval | None
    claims: tuple[int, int, int] | None
    profile: Profile | None

    @property
    def interval(self) -> Interval:
        """The mean score."""
        return student_t(list(self.score.values()))


def stand(suite: Suite, bundle: Bundle) -> Standing:
    """The numbers of a submission that lacks none of the scores of ``suite``."""
    scoring = suite.scoring
    values = values_of(suite, bundle.records)
    scored = place_of_score(scoring, scoring.initialization)
    baseline = place_of_score(scoring, scoring.baseline)
    speeds = [as_speed(suite, place) for place in (scored, baseline)]
    severe = most_severe(suite, bundle.submission.severities)
    return Standing(
        score=score_series(scoring, values, scoring.initialization),
        pretrained=student_t(list(values.series(scored).values())),
        baseline=_mean(values.series(baseline)),
        gain=_gain(values, scored, baseline),
        speed_gain=_gain(values, *speeds),
        severe_gain=_gain(values, *_under(severe, scored, baseline)),
        severe_speed_gain=_gain(values, *_under(severe, *speeds)),
        claims=_claims(bundle),
        profile=_profile(suite, bundle, values),
    )


def _under(perturbation: str | None, *places: Place) -> list[Place]:
    return [place._replace(perturbation=perturbation or "") for place in places]


def _mean(series: Series) -> Interval | None:
    return student_t(list(series.values())) if series else None


def _gain(values: Values, first: Place, second: Place) -> Interval | None:
    """The first place's values minus the second's, replicate by replicate."""
    a, b = values.series(first), values.series(second)
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    return paired_difference([a[k] for k in shared], [b[k] for k in shared])


def _claims(bundle: Bundle) -> tuple[int, int, int] | None:
    """How many claims were reproduced, contradicted and left undecided; controls are no claims."""
    counts = Counter(row.verdict for row in bundle.verdicts if not row.control)
    if not counts:
        return None
    return counts["reproduced"], counts["contradicted"], counts["undecided"]


def _family(suite: Suite, severities: Mapping[str, float]) -> list[str]:
    """The suite's main family of perturbations by severity, the identity first.

    Severities of different plugins have different scales, so one family is followed: that with
    the most members, the first of equals.
    """
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    identities = []
    for label, use in suite.perturbations.items():
        if severities.get(label, 0.0) > 0:
            families[use.name, use.apply].append(label)
        else:
            identities.append(label)
    largest = max(families.values(), key=len, default=[])
    clean = suite.scoring.perturbation
    return [
        *([clean] if clean in identities else []),
        *sorted(largest, key=lambda label: severities[label]),
    ]


def most_severe(suite: Suite, severities: Mapping[str, float]) -> str | None:
    """The strongest perturbation of the suite's main family; None where nothing is perturbed."""
    family = _family(suite, severities)
    return family[-1] if family and severities.get(family[-1], 0.0) > 0 else None


def _profile(suite: Suite, bundle: Bundle, values: Values) -> Profile | None:
    """Both arms along the main family, where at least two perturbations have both."""
    arms = (suite.scoring.initialization, suite.scoring.baseline)
    places = [place_of_score(suite.scoring, arm) for arm in arms]
    points = []
    for label in _family(suite, bundle.submission.severities):
        found = [values.series(place) for place in _under(label, *places)]
        if all(found):
            points.append((label, *(fmean(series.values()) for series in found)))
    return Profile(*zip(*points, strict=True)) if len(points) > 1 else None
