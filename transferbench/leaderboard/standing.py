"""The numbers that one submission stands on a board with, one series over replicates each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from transferbench.records import Record
from transferbench.statistics import Interval, paired_difference, student_t
from transferbench.submission import Bundle
from transferbench.suite import TRIAL, Scoring, Suite

__all__ = ["Profile", "Series", "Standing", "missing_scores", "most_severe", "stand"]

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


class _Values:
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


def missing_scores(suite: Suite, records: Iterable[Record]) -> list[str]:
    """What an entry lacks to be scored by ``suite``: its target and replicate."""
    scoring = suite.scoring
    found = {
        (row.target, row.replicate)
        for row in records
        if _place_of(row) == _scored(scoring) and row.value is not None and not row.coordinates
    }
    wanted = [(target, k) for target in scoring.chance for k in range(suite.replicates)]
    return [f"{target}, replicate {k}" for target, k in wanted if (target, k) not in found]


def stand(suite: Suite, bundle: Bundle) -> Standing:
    """The numbers of a submission that lacks none of the scores of ``suite``."""
    scoring = suite.scoring
    values = _Values(bundle.records, tuple(scoring.chance))
    scored = _scored(scoring)
    baseline = scored._replace(initialization=scoring.baseline)
    speed = _speed_label(suite)
    speeds = [place._replace(diagnostic=speed, metric=SPEED) for place in (scored, baseline)]
    severe = most_severe(suite, bundle.submission.severities)
    return Standing(
        score=values.series(scored, lambda target, value: _normalised(scoring, target, value)),
        pretrained=student_t(list(values.series(scored).values())),
        baseline=_mean(values.series(baseline)),
        gain=_gain(values, scored, baseline),
        speed_gain=_gain(values, *speeds),
        severe_gain=_gain(values, *_under(severe, scored, baseline)),
        severe_speed_gain=_gain(values, *_under(severe, *speeds)),
        claims=_claims(bundle),
        profile=_profile(suite, bundle, values),
    )


def _place_of(row: Record) -> Place:
    return Place(row.diagnostic, row.metric, row.initialization, row.perturbation)


def _scored(scoring: Scoring) -> Place:
    return Place(TRIAL, scoring.metric, scoring.initialization, scoring.perturbation)


def _speed_label(suite: Suite) -> str:
    """The label of the suite's speed diagnostic; one that no record has where there is none."""
    return next((label for label, use in suite.diagnostics.items() if use.name == SPEED), "")


def _under(perturbation: str | None, *places: Place) -> list[Place]:
    return [place._replace(perturbation=perturbation or "") for place in places]


def _normalised(scoring: Scoring, target: str, value: float) -> float:
    chance, reference = scoring.chance[target], scoring.reference[target]
    return (value - chance) / (reference - chance)


def _mean(series: Series) -> Interval | None:
    return student_t(list(series.values())) if series else None


def _gain(values: _Values, first: Place, second: Place) -> Interval | None:
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


def _profile(suite: Suite, bundle: Bundle, values: _Values) -> Profile | None:
    """Both arms along the main family, where at least two perturbations have both."""
    scored = _scored(suite.scoring)
    baseline = scored._replace(initialization=suite.scoring.baseline)
    points = []
    for label in _family(suite, bundle.submission.severities):
        arms = [values.series(place) for place in _under(label, scored, baseline)]
        if all(arms):
            points.append((label, *(fmean(series.values()) for series in arms)))
    return Profile(*zip(*points, strict=True)) if len(points) > 1 else None
