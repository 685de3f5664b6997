"""The verdicts: what a suite claims, judged by what was measured.

An effect is an average of averages: over the coordinates of a measurement, over the places
(target, perturbation) of a term, then a weighted sum. Its interval is the jackknife over
replicates: the paired Student-t where every value belongs to one network, and still right for
pairs that share networks. That of a share (``relative_to``) is Fieller's, from the same jackknife.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from transferbench.claims.terms import Sample, Table, matching, sample_of
from transferbench.errors import listing
from transferbench.statistics import Estimator, Interval, jackknife, jackknife_ratio
from transferbench.suite import Axis, Claim, Suite, Term

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Verdict", "judge"]

# So many missing measurements, and flags, are named in a reason; the rest are counted.
NAMED = 3

LEVEL = 0.95


class Verdict(BaseModel):
    """What became of a claim: its effect between two bounds, from ``n`` replicates.

    ``reason`` says why a claim is undecided and what is to know about its measurements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    statement: str
    source: str
    control: bool
    effect: float | None
    unit: str
    low: float | None
    high: float | None
    n: int
    interval: str
    threshold: float
    relation: Literal["above", "below", "within"]
    verdict: Literal["reproduced", "contradicted", "undecided"]
    reason: str


def judge(
    suite: Suite, frame: pd.DataFrame, entry: str, left_out: Mapping[str, str] | None = None
) -> list[Verdict]:
    """A verdict on each claim of ``suite``, in its order, for one entry.

    ``frame`` holds ``Record.row()`` of one run, a column for each coordinate. ``left_out``: arms
    that the entry's external weights cannot start, and why; a claim on one says it. Only replicates
    with a value at every place of every term count, so that nothing but the claim's own contrast
    tells its terms apart. A rank correlation that every replicate left out keeps at 1 has an
    interval of no width: it says that the order is stable, not that it is certain.

    A claim on ``each`` value of a coordinate is reproduced where every value's interval says so,
    and contradicted where one does at a level corrected for their number (Bonferroni); the
    effect is that of the value which is furthest from holding.
    """
    own = frame[frame["entry"] == entry].reset_index(drop=True) if len(frame) else frame
    table = Table(own)
    without = left_out or {}
    return [_judge(suite, label, claim, table, without) for label, claim in suite.claims.items()]


def _judge(
    suite: Suite, label: str, claim: Claim, table: Table, left_out: Mapping[str, str]
) -> Verdict:
    cases = [_sampled(suite, case, table) for case in _cases(claim, table)]
    samples = [sample for case in cases for sample in case.samples]
    replicates = sorted(set.intersection(*(sample.complete() for sample in samples)))
    found = [_judged(claim, case, replicates, len(cases)) for case in cases]
    worst = min(found, key=lambda one: one.margin(claim))
    failed = next((one for one in found if one.decision == "contradicted"), None)
    shown = failed or worst
    interval = shown.interval
    return Verdict(
        claim=label,
        statement=claim.statement,
        source=claim.source,
        control=claim.control,
        effect=interval.value,
        unit="rank correlation" if claim.order or claim.along else claim.unit,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        interval=interval.method,
        threshold=claim.threshold,
        relation=claim.relation,
        verdict=shown.decision,
        reason="; ".join(
            [
                *shown.why,
                *_left_out(claim, left_out),
                *_worst_of(claim, shown, len(cases)),
                *_notes(suite, samples, table.frame, len(replicates)),
            ]
        ),
    )


# --- the cases of a claim ---------------------------------------------------------------------

Sums: TypeAlias = Sequence[Sequence["Sample"]]


class _Asked(NamedTuple):
    """A claim at one value of its ``each`` coordinate, or whole (``at`` is None)."""

    at: str | None
    sums: Sequence[Sequence[Term]]
    against: Sequence[Sequence[Term]] = ()


class _Case(NamedTuple):
    """The same with its measurements."""

    at: str | None
    sums: Sums
    against: Sums

    @property
    def samples(self) -> list[Sample]:
        return [sample for summands in (*self.sums, *self.against) for sample in summands]


def _cases(claim: Claim, table: Table) -> list[_Asked]:
    """One for each measured value of ``each``; without, the claim as a whole."""
    if claim.order:
        return [_Asked(None, claim.order, claim.against)]
    if claim.along and (values := _values(claim.terms, claim.along, table)):
        return [_Asked(None, [_placed(claim.terms, claim.along, value) for value in values])]
    both = claim.terms, claim.relative_to
    if claim.each and (values := _values(claim.terms, claim.each, table)):
        return [
            _Asked(str(value), [_placed(terms, claim.each, value) for terms in both])
            for value in values
        ]
    return [_Asked(None, both)]


def _values(terms: Sequence[Term], axis: Axis, table: Table) -> list[Any]:
    """The values of ``axis`` where the first term was measured, in that order."""
    rows = matching(terms[0], table)
    first, *others = axis.coordinates
    if any(name not in rows for name in axis.coordinates):
        return []
    for other in others:
        rows = rows[rows[other] == rows[first]]
    return [value for value in rows[first].dropna().unique() if value not in axis.without]


def _placed(terms: Sequence[Term], axis: Axis, value: Any) -> list[Term]:
    place = dict.fromkeys(axis.coordinates, value)
    return [term.model_copy(update={"coordinates": term.coordinates | place}) for term in terms]


def _sampled(suite: Suite, asked: _Asked, table: Table) -> _Case:
    sums, against = (
        [[sample_of(suite, term, table) for term in terms] for terms in side]
        for side in (asked.sums, asked.against)
    )
    return _Case(asked.at, sums, against)


def _left_out(claim: Claim, left_out: Mapping[str, str]) -> list[str]:
    """Why the arms of a claim that the entry goes without were not trained."""
    sums = (claim.terms, claim.relative_to, *claim.order, *claim.against)
    terms = [term for summands in sums for term in summands]
    arms = {arm for term in terms for arm in (term.initialization, term.other_initialization)}
    return [
        f"{arm} {why}, which external weights cannot give"
        for arm, why in left_out.items()
        if arm in arms
    ]


class _Judged(NamedTuple):
    """One case: the effect's interval, and what it says."""

    at: str | None
    interval: Interval
    decision: Literal["reproduced", "contradicted", "undecided"]
    why: list[str]

    def margin(self, claim: Claim) -> float:
        """By how much the interval clears the threshold; negative where it does not."""
        low, high = self.interval.low, self.interval.high
        if low is None or high is None:
            return -np.inf
        return {
            "above": low - claim.threshold,
            "below": claim.threshold - high,
            "within": claim.threshold - max(-low, high),
        }[claim.relation]


def _judged(claim: Claim, case: _Case, replicates: Sequence[int], cases: int) -> _Judged:
    interval = _interval(claim, case, replicates, LEVEL)
    decision, why = _decide(claim, interval)
    if decision == "contradicted" and cases > 1:
        corrected = _interval(claim, case, replicates, 1 - (1 - LEVEL) / cases)
        if _decide(claim, corrected)[0] != "contradicted":
            why = [f"contradicted at {case.at} alone, but not with {cases} of them in view"]
            decision = "undecided"
    return _Judged(case.at, interval, decision, why)


def _worst_of(claim: Claim, shown: _Judged, cases: int) -> list[str]:
    if claim.each is None or shown.at is None:
        return []
    return [f"the furthest from holding of {cases} is {claim.each.coordinates[0]} {shown.at}"]


# --- the effect -------------------------------------------------------------------------------


def _interval(claim: Claim, case: _Case, replicates: Sequence[int], level: float) -> Interval:
    missing = dict.fromkeys(place for sample in case.samples for place in sample.missing)
    if missing:
        return _undetermined(claim, f"no measurement: {listing(list(missing), NAMED, '; ')}")
    if not replicates:
        return _undetermined(claim, "no replicate has a value at every place")
    if claim.order or claim.along:
        return _bounded(jackknife(_correlation(case), replicates, level), 1.0)
    effect, divisor = case.sums
    if not divisor:
        return jackknife(_sum(effect), replicates, level)
    return jackknife_ratio(_sum(effect), _sum(divisor), replicates, level)


def _undetermined(claim: Claim, reason: str) -> Interval:
    method = "fieller-95" if claim.relative_to else "jackknife-95"
    return Interval(None, None, None, 0, method, reason)


def _sum(samples: Sequence[Sample]) -> Estimator:
    def estimate(replicates: Sequence[int]) -> float | None:
        total = 0.0
        for sample in samples:
            mean = sample.mean(replicates)
            if mean is None:
                return None
            total += sample.weight * mean
        return total

    return estimate


def _correlation(case: _Case) -> Estimator:
    """Spearman's rank correlation of the effects with their position, or with those ``against``.

    None where all of one side are equal.
    """
    sides = [[_sum(samples) for samples in side] for side in (case.sums, case.against)]

    def estimate(replicates: Sequence[int]) -> float | None:
        effects, others = (_found(side, replicates) for side in sides)
        if effects is None or others is None:
            return None
        others = others or [float(place) for place in range(len(effects))]
        if min(len(set(effects)), len(set(others))) < 2:
            return None
        return float(np.corrcoef(_ranks(effects), _ranks(others))[0, 1])

    return estimate


def _found(estimators: Sequence[Estimator], replicates: Sequence[int]) -> list[float] | None:
    values = [value for one in estimators if (value := one(replicates)) is not None]
    return values if len(values) == len(estimators) else None


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks, equal values sharing their mean rank. Shapes: (M,)."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    mean_rank: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    ranks: np.ndarray = mean_rank[place]
    return ranks


def _bounded(interval: Interval, limit: float) -> Interval:
    if interval.low is None or interval.high is None:
        return interval
    return interval._replace(low=max(interval.low, -limit), high=min(interval.high, limit))


# --- the verdict ------------------------------------------------------------------------------


def _decide(
    claim: Claim, interval: Interval
) -> tuple[Literal["reproduced", "contradicted", "undecided"], list[str]]:
    low, high, threshold = interval.low, interval.high, claim.threshold
    if low is None or high is None:
        return "undecided", [interval.reason or ""]
    holds, fails = {
        "above": (low > threshold, high < threshold),
        "below": (high < threshold, low > threshold),
        "within": (
            -threshold < low and high < threshold,
            low > threshold or high < -threshold,
        ),
    }[claim.relation]
    if holds:
        return "reproduced", []
    if fails:
        return "contradicted", []
    limit = f"-{threshold:g} or {threshold:g}" if claim.relation == "within" else f"{threshold:g}"
    return "undecided", [f"the interval includes {limit}"]


def _notes(
    suite: Suite, samples: Sequence[Sample], frame: pd.DataFrame, complete: int
) -> list[str]:
    """What is to know about the measurements of a claim, decided or not."""
    rows = frame.loc[sorted(frozenset().union(*(sample.rows for sample in samples)))]
    notes = []
    if complete < suite.replicates:
        notes.append(f"{complete} of {suite.replicates} replicates are complete")
    if rows.empty:
        return notes
    if without := int(rows["value"].isna().sum()):
        notes.append(f"{without} of {len(rows)} measurements have no value and were left out")
    return [*notes, *_flags(rows)]


def _flags(rows: pd.DataFrame) -> list[str]:
    """The most frequent flags, and how many measurements have another."""
    counts = sorted(rows["flag"].dropna().value_counts().items(), key=lambda one: (-one[1], one[0]))
    named = [
        f"{count} of {len(rows)} measurements are flagged: {flag}" for flag, count in counts[:NAMED]
    ]
    others = sum(count for _, count in counts[NAMED:])
    return [*named, f"{others} more have other flags"] if others else named
