"""The first sentence of a report on a suite that asks: is it features, or statistics?

On images whose features are taken and whose statistics are left, such as shuffled blocks, what
remains of the gain is one of statistics; what is lost is one of features.

Source: Neyshabur, Sedghi, Zhang 2020, arXiv 2008.11687, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from transferbench.measurements import ReplicateValues, mean_of
from transferbench.report.formats import signed_percent
from transferbench.report.parts import Scope
from transferbench.report.quantities import TEST, TRAIN, trained_above
from transferbench.report.summaries import Summary, as_summary
from transferbench.statistics import Summand, mean_of_replicates, weighted_sum

__all__ = ["compared_targets", "question"]

Arm: TypeAlias = tuple[float, ReplicateValues]
"""Its sign in the gain, and its values."""

OF_TEST = (0.0, 1.0)
"""The range of a test metric."""


def question(scope: Scope) -> str:
    """What pre-training brings, with its interval, and whether it is features or statistics.

    Error: ``weighted_sum`` over the replicates that every one of these targets has. The part of
    features is the gain on whole images minus the gain under the perturbation, at each replicate.
    """
    scoring, targets = scope.suite.scoring, compared_targets(scope)
    gain, left = (
        _arms(scope, p, targets) for p in (scoring.perturbation, scoring.statistics or "")
    )
    networks = TEST.rows(scope.measurements).select(initialization=scope.pair).networks
    total, statistics, features = (
        _sum(terms, networks) for terms in (gain, left, [*gain, *_negative(left)])
    )
    where = ", ".join(targets)
    if total is None:
        return ""
    brings = _brings(total, where)
    if statistics is None or features is None:
        nothing = f"nothing was measured under {scoring.statistics}"
        return f"{brings}; features or statistics is not known: {nothing}."
    measured = f"under {scoring.statistics} it is {_points(statistics)}"
    if stuck := _untrained(scope, targets):
        untold = "and it cannot be told whether it is features or statistics"
        return f"{brings}, {untold}, since {stuck}: {measured}."
    return f"{brings}{_verdict(total, statistics, features)}: {measured}."


def compared_targets(scope: Scope) -> list[str]:
    """The scored targets that have both arms on whole images and under the perturbation.

    Without any, those that have both on whole images.
    """
    scoring = scope.suite.scoring
    unperturbed, left = (
        [target for target in scoring.chance if _has_both(scope, perturbation, target)]
        for perturbation in (scoring.perturbation, scoring.statistics or "")
    )
    return [target for target in unperturbed if target in left] or unperturbed


def _has_both(scope: Scope, perturbation: str, target: str) -> bool:
    """Whether a replicate of a target has both arms."""
    first, second = _values(scope, perturbation, target)
    return not first.keys().isdisjoint(second)


def _values(
    scope: Scope, perturbation: str, target: str
) -> tuple[ReplicateValues, ReplicateValues]:
    """The test metric of both arms."""
    rows = scope.measurements.select(perturbation=perturbation, target=target)
    return TEST.of_arms(rows, scope.pair)


def _untrained(scope: Scope, targets: Sequence[str]) -> str:
    """Where the baseline did not train in half of the replicates or more; "" where it did.

    The gain over such networks is that of being trainable.
    """
    baseline, scoring = scope.suite.scoring.baseline, scope.suite.scoring
    rows = TRAIN.rows(scope.measurements).select(perturbation=scoring.perturbation)
    for condition, here in scope.conditions(rows):
        values = here.select(initialization=baseline).by_replicate().values()
        if condition.target in targets and condition.chance is not None:
            stuck = sum(value <= trained_above(condition.chance) for value in values)
            if stuck and 2 * stuck >= len(values):
                return f"{baseline} did not train in {stuck} of {len(values)} replicates"
    return ""


def _brings(total: Summary, where: str) -> str:
    if total.low is None:
        return f"On {where} pre-training changes the test metric by {_points(total)}"
    if total.side == 0:
        return (
            f"On {where} it is undecided whether pre-training brings anything: the gain in the "
            f"test metric is {_points(total)}"
        )
    verb = "brings" if total.side > 0 else "costs: the gain is"
    return f"On {where} pre-training {verb} {_points(total)} of the test metric"


def _verdict(total: Summary, statistics: Summary, features: Summary) -> str:
    """What the gain is made of, where the intervals say so."""
    if total.side == 0:
        return "; nor is it decided what it would be made of"
    if total.side < 0:
        return ""
    if features.side > 0:
        if statistics.side > 0:
            return ", part of it features and part of it statistics"
        return ", and it is features"
    if statistics.side > 0:
        apart = "features add nothing that is shown" if features.side == 0 else "features none"
        return f", and it is statistics; {apart}"
    return ", and it is undecided whether it is features or statistics"


def _points(gain: Summary) -> str:
    """A gain with its interval and the number of replicates."""
    size = f"{signed_percent(gain.mean)} points"
    if gain.low is None or gain.high is None:
        return f"{size} (n = {gain.n}: no interval)"
    bounds = f"{signed_percent(gain.low)} to {signed_percent(gain.high)}"
    return f"{size} (95% interval {bounds}, n = {gain.n})"


def _arms(scope: Scope, perturbation: str, targets: Sequence[str]) -> list[Arm]:
    """Both arms of the gain with their signs, averaged over the targets."""
    both = [_values(scope, perturbation, target) for target in targets]
    return [(sign, mean_of([arms[k] for arms in both])) for k, sign in ((0, 1.0), (1, -1.0))]


def _negative(arms: Sequence[Arm]) -> list[Arm]:
    return [(-sign, values) for sign, values in arms]


def _sum(arms: Sequence[Arm], networks: int) -> Summary | None:
    """The sum of the arms over the replicates that all have; None without one."""
    shared = sorted(set.intersection(*({*values} for _, values in arms)))
    summands = [Summand(sign, mean_of_replicates(values), OF_TEST) for sign, values in arms]
    return as_summary(weighted_sum(summands, shared, networks)) if shared else None
