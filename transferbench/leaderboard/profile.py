"""The main family of perturbations of a suite, and the scored metric along it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

from transferbench.leaderboard.scores import Candidate
from transferbench.suite import TRIAL, Suite

__all__ = ["Profile", "main_family", "most_severe", "profile_of"]

Severities = Mapping[str, float]
"""By the label of the perturbation."""


class Profile(NamedTuple):
    """The metric of both arms along one family of perturbations, mildest first."""

    perturbations: tuple[str, ...]
    pretrained: tuple[float, ...]
    baseline: tuple[float, ...]


def profile_of(candidate: Candidate) -> Profile | None:
    """Both arms along the main family, where at least two perturbations have both."""
    scoring = candidate.suite.scoring
    arms = (scoring.initialization, scoring.baseline)
    points = []
    for label in main_family(candidate.suite, candidate.head.severities):
        series = [candidate.series(TRIAL, scoring.metric, arm, label) for arm in arms]
        if all(series):
            points.append((label, *(fmean(one_arm.values()) for one_arm in series)))
    return Profile(*zip(*points, strict=True)) if len(points) > 1 else None


def most_severe(suite: Suite, severities: Severities) -> str | None:
    """The strongest perturbation of the suite's main family; None where nothing is perturbed."""
    family = main_family(suite, severities)
    return family[-1] if family and severities.get(family[-1], 0.0) > 0 else None


def main_family(suite: Suite, severities: Severities) -> list[str]:
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
