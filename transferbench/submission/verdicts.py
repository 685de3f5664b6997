"""The check that the submitted verdicts are those of the suite's claims, judged again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeAlias

from transferbench.claims import (
    EQUAL_PREDICTIONS,
    Verdict,
    equal_trials,
    judge,
    judge_by_jackknife,
)
from transferbench.errors import TransferbenchError
from transferbench.measurements import Measurements, MetricRanges
from transferbench.plan import Plan
from transferbench.registry import Registry
from transferbench.submission.bundle import CLAIMS, Bundle, Problem, is_visible
from transferbench.submission.integrity import planned_again, scored_rows
from transferbench.suite.ranges import metric_ranges

__all__ = ["FORMER_BOARDS", "check_verdicts_follow_from_records"]

RELATIVE = {"p_reproduced": 1e-3, "p_contradicted": 1e-3}
"""Tolerances: p-values far below 1 multiply differences of last bits; of other numbers 1e-6."""

FORMER_INTERVALS = {
    "ranged-fieller-95": "jackknife-95",
    "wide-fieller-95": "jackknife-95",
    "pairs-95": "jackknife-95",
}
"""Method of an interval -> the method of an earlier version, whose verdicts name it."""

FORMER_BOARDS = frozenset(
    {"characters@1", "characters@2", "initializations@1", "null-pair@1", "quickstart@1"}
)
"""Boards that have verdicts of earlier versions: by other intervals, and without p-values."""

BY_JACKKNIFE = FORMER_BOARDS | {"quickstart@2"}
"""Boards with verdicts that stand as the jackknife gave them, from before quantities had ranges."""

BY_METHOD = frozenset({"effect", "low", "high", "interval", "verdict", "reason", "flags", "n"})
"""What another method of the interval changes."""
LATER = {"family": "", "p_reproduced": None, "p_contradicted": None, "covers": ""}
"""Fields that earlier versions did not write, and what stands for them."""

FROM_PLAN = frozenset({"reason", "covers"})
"""Fields that say what a plan knows of the arms."""
MAX_CASES = 1000
"""Values of a coordinate that a claim is judged at, such as modules."""
LONGEST_REASON = 10_000
"""Characters of what is said of a claim."""
Decisions: TypeAlias = Mapping[tuple[str, str], str]
"""The claim and the method of its interval -> the verdict."""


def check_verdicts_follow_from_records(
    bundle: Bundle, registry: Registry, planned: Callable[[], Plan] | None = None
) -> Iterator[Problem]:
    """Each claim of the suite, judged again, has the submitted verdict in every field.

    ``planned`` returns the suite planned again for this entry, where that is at hand.

    Of the former boards, a verdict that differs because an earlier version used another method for
    intervals, or did not look for equal predictions, is a warning. One by the method of its day is
    judged again by it, where the board has such; that today's interval decides otherwise is a
    warning.
    """
    if name := _crowded(bundle):
        yield Problem(f"records have more than {MAX_CASES} values of {name}, of which a claim is")
        return
    plan = _plan(planned or partial(planned_again, bundle, registry))
    ranges = metric_ranges(bundle.plan.suite, registry.diagnostics)
    judged = {verdict.claim: verdict for verdict in _judged(bundle, plan, ranges)}
    unaware = cache(partial(_unaware, bundle, plan, ranges))
    if bundle.submission.board in BY_JACKKNIFE:
        before = _judged(bundle, plan, {}, judge_by_jackknife)
        yield from _judged_as_before(bundle, judged, {verdict.claim: verdict for verdict in before})
    submitted = {verdict.claim: verdict for verdict in bundle.verdicts}
    if len(submitted) < len(bundle.verdicts):
        yield Problem(f"{CLAIMS} has a claim twice")
    for text in (text for verdict in bundle.verdicts for text in (verdict.reason, *verdict.flags)):
        if not is_visible(text, LONGEST_REASON):
            yield Problem(f"{CLAIMS} says {text[:80]!a}, which is no line of visible characters")
    for claim in sorted(judged.keys() | submitted.keys()):
        if claim not in submitted or claim not in judged:
            source = "the suite" if claim in judged else CLAIMS
            yield Problem(f"claim {claim!r} is only in {source}")
            continue
        is_former = bundle.submission.board in FORMER_BOARDS and submitted[claim].lacks_all_p
        differing = _differing(submitted[claim], judged[claim], is_former=is_former)
        if plan is None:
            differing -= FROM_PLAN
        former = unaware if is_former else None
        yield from _problems(submitted[claim], judged[claim], differing, former)


def _crowded(bundle: Bundle) -> str:
    """A coordinate at each value of which a claim would be judged for hours; "" without one."""
    axes = [axis for claim in bundle.plan.suite.claims.values()
            for axis in (claim.each, claim.along) if axis]  # fmt: skip
    for name in {name for axis in axes for name in axis.coordinates}:
        if len({row.coordinates.get(name) for row in bundle.records}) > MAX_CASES:
            return name
    return ""


def _plan(planned: Callable[[], Plan]) -> Plan | None:
    """The plan of the submission; None where a plugin is missing, which another check says."""
    try:
        return planned()
    except TransferbenchError:
        return None


def _judged_as_before(
    bundle: Bundle, judged: dict[str, Verdict], former: Mapping[str, Verdict]
) -> Iterator[Problem]:
    """Put verdicts of a former method in the place of today's, where the submission has those."""
    for submitted in bundle.verdicts:
        claim, before = submitted.claim, former.get(submitted.claim)
        if before is None or not submitted.interval == before.interval != judged[claim].interval:
            continue
        if before.verdict != judged[claim].verdict:
            yield Problem(
                f"claim {claim!r} was judged {before.verdict} by {before.interval}; by "
                f"{judged[claim].interval} it is {judged[claim].verdict}",
                warning=True,
            )
        judged[claim] = before


def _judged(
    bundle: Bundle,
    plan: Plan | None,
    ranges: MetricRanges,
    judged_by: Callable[..., list[Verdict]] = judge,
    *,
    sees_equal: bool = True,
) -> list[Verdict]:
    """The verdicts of today, or by a former method; ``sees_equal``: equal predictions."""
    entry, suite = bundle.submission.entry.name, bundle.plan.suite
    equal = equal_trials(
        {
            (row.target, row.perturbation, row.initialization, row.replicate): outputs
            for row in scored_rows(bundle.records)
            if (outputs := bundle.submission.outputs.get(row.job)) and row.value is not None
            if sees_equal
        }
    )
    measurements = Measurements.of_records(bundle.records, ranges)
    facts: tuple[Any, ...] = ({}, (), equal, {})
    if plan is not None:
        facts = plan.left_out[entry], plan.single_source[entry], equal, plan.unmeasured[entry]
    return judged_by(suite, measurements, entry, *facts)


def _differing(submitted: Verdict, judged: Verdict, *, is_former: bool) -> set[str]:
    """The fields in which two verdicts differ; those that a former one lacks do not."""
    pairs = {
        field: (getattr(submitted, field), getattr(judged, field))
        for field in type(judged).model_fields
    }
    return {
        field
        for field, (value, expected) in pairs.items()
        if not _equal(field, value, expected)
        and not (is_former and field in LATER and value == LATER[field])
    }


def _unaware(bundle: Bundle, plan: Plan | None, ranges: MetricRanges) -> Decisions:
    """The decisions of versions that did not look for equal predictions."""
    today = _judged(bundle, plan, ranges, sees_equal=False)
    before = _judged(bundle, plan, {}, judge_by_jackknife, sees_equal=False)
    return {(each.claim, each.interval): each.verdict for each in (*today, *before)}


def _problems(
    submitted: Verdict,
    judged: Verdict,
    differing: set[str],
    former: Callable[[], Decisions] | None,
) -> Iterator[Problem]:
    """``former``: of a verdict of an earlier version, what ``_unaware`` returns."""
    claim = submitted.claim
    by_method = bool(differing) and differing <= BY_METHOD
    if former and by_method and (why := _by_former_version(submitted, judged, differing, former)):
        yield Problem(why, warning=True)
        return
    if "verdict" in differing:
        yield Problem(f"claim {claim!r} is {judged.verdict}, not {submitted.verdict}")
    for field in (name for name in type(judged).model_fields if name in differing - {"verdict"}):
        value, expected = getattr(submitted, field), getattr(judged, field)
        yield Problem(f"claim {claim!r} has {field} {value}, and its records give {expected}")


def _equal(field: str, value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        relative = RELATIVE.get(field, 1e-6)
        return math.isclose(value, expected, rel_tol=relative, abs_tol=1e-9)
    return bool(value == expected)


def _by_former_version(
    submitted: Verdict, judged: Verdict, differing: set[str], unaware: Callable[[], Decisions]
) -> str:
    """Why an earlier version judged otherwise; "" where none would have."""
    claim = submitted.claim
    saw_equal = EQUAL_PREDICTIONS in judged.flags and differing <= {"verdict", "reason", "flags"}
    if saw_equal and submitted.verdict == unaware().get((claim, judged.interval)):
        return f"claim {claim!r} was judged {submitted.verdict}; it is undecided: {judged.reason}"
    if submitted.interval == FORMER_INTERVALS.get(judged.interval):
        return (
            f"claim {claim!r} was judged {submitted.verdict} by {submitted.interval}, whose "
            f"numbers are only reported; by {judged.interval} it is {judged.verdict}"
        )
    return ""
