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
from transferbench.suite import Scoring, Suite

__all__ = ["Profile", "Series", "Standing", "missing_scores", "most_severe", "profile_of", "stand"]

Series = Mapping[int, float]
"""Replicate -> value."""

SPEED = "speed"
"""The metric of the diagnostic that says how fast a trial learned: its mean training metric."""


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
        self._found: dict[tuple[str, str, str], dict[str, dict[int, float]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for row in records:
            single = row.other_initialization is None and not row.coordinates
            if single and row.value is not None:
                place = (row.metric, row.initialization, row.perturbation)
                self._found[place][row.target][row.replicate] = row.value

    def series(
        self,
        place: tuple[str, str, str],
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
        if (row.metric, row.initialization, row.perturbation) == _place(scoring)
        and row.value is not None
        and not row.coordinates
    }
    wanted = [(target, k) for target in scoring.chance for k in range(suite.replicates)]
    return [f"{target}, replicate {k}" for target, k in wanted if (target, k) not in found]


def stand(suite: Suite, bundle: Bundle) -> Standing:
    """The numbers of a submission that lacks none of the scores of ``suite``."""
    scoring = suite.scoring
    values = _Values(bundle.records, tuple(scoring.chance))
    severe = most_severe(suite, bundle.submission.severities)
    clean = scoring.perturbation
    score = values.series(_place(scoring), lambda target, v: _normalised(scoring, target, v))
    return Standing(
        score=score,
        pretrained=student_t(list(values.series(_place(scoring)).values())),
        baseline=_mean(values.series((scoring.metric, scoring.baseline, clean))),
        gain=_gain(values, scoring, scoring.metric, clean),
        speed_gain=_gain(values, scoring, SPEED, clean),
        severe_gain=_gain(values, scoring, scoring.metric, severe),
        severe_speed_gain=_gain(values, scoring, SPEED, severe),
        claims=_claims(bundle),
        profile=profile_of(suite, bundle, values),
    )


def _place(scoring: Scoring) -> tuple[str, str, str]:
    return scoring.metric, scoring.initialization, scoring.perturbation


def _normalised(scoring: Scoring, target: str, value: float) -> float:
    chance, reference = scoring.chance[target], scoring.reference[target]
    return (value - chance) / (reference - chance)


def _mean(series: Series) -> Interval | None:
    return student_t(list(series.values())) if series else None


def _gain(
    values: _Values, scoring: Scoring, metric: str, perturbation: str | None
) -> Interval | None:
    """The scored arm minus the baseline, replicate by replicate."""
    if perturbation is None:
        return None
    first = values.series((metric, scoring.initialization, perturbation))
    second = values.series((metric, scoring.baseline, perturbation))
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    return paired_difference([first[k] for k in shared], [second[k] for k in shared])


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


def profile_of(suite: Suite, bundle: Bundle, values: _Values) -> Profile | None:
    """Both arms along the main family, where at least two perturbations have both."""
    scoring = suite.scoring
    points = []
    for label in _family(suite, bundle.submission.severities):
        arms = [
            values.series((scoring.metric, arm, label))
            for arm in (scoring.initialization, scoring.baseline)
        ]
        if all(arms):
            points.append((label, *(fmean(series.values()) for series in arms)))
    return Profile(*zip(*points, strict=True)) if len(points) > 1 else None
