"""The verdicts on a suite's claims, from its measurements.

An effect is an average of averages: over the coordinates of a measurement, over the cells
(target, perturbation) of a term, then a weighted sum. Its interval is Student-t over the
replicates, by the jackknife, which is right for pairs that share networks, too; it is wider where
one arm varies most, where no range is known, and next to the end of one. Where arms start from
several source networks, all replicates of one are left out at once, so that the interval covers
what another pre-training would change. That of a share (``relative_to``) is Fieller's, from the
same jackknife; that of a rank correlation (``order``, ``along``) follows from the pairs of levels
in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from transferbench.claims.bounds import bracketed
from transferbench.claims.cases import Case, Draws, cases_of, draws_of, effect_of
from transferbench.claims.equal import EQUAL_PREDICTIONS, EqualTrials, equality_of
from transferbench.claims.terms import Sample
from transferbench.errors import listing
from transferbench.measurements import Measurements
from transferbench.statistics import (
    Estimator,
    Interval,
    Summand,
    concordance_at,
    covered,
    jackknife,
    jackknife_ratio,
    least_error,
    mean_of_replicates,
    range_of,
    weighted_ratio,
    weighted_sum,
)
from transferbench.suite import SOURCE, Claim, Suite

__all__ = ["Decision", "Verdict", "judge", "judge_by_jackknife"]

NAMED = 3
"""Missing measurements, and flags, that a reason names; the rest are counted."""

LEVEL = 0.95

PLACES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Where lost replicates are tried, between the least effect that they could have and the most."""

FEWEST = 3
"""Replicates, or source networks, that a verdict needs: two equal differences are no evidence."""

Decision: TypeAlias = Literal["reproduced", "contradicted", "undecided"]


class Verdict(BaseModel):
    """A claim's effect with its 95% interval, from ``n`` replicates, and the decision.

    ``n`` counts source networks where the interval ``covers`` several; ``covers`` is empty in
    verdicts of earlier versions, which had one. ``reason`` says why a claim is undecided, and what
    is remarkable about its measurements.
    ``p_reproduced`` and ``p_contradicted`` are the smallest errors (1 - level, two-sided) at which
    an interval would decide so; None where none could, and in verdicts of earlier versions.
    ``flags``: what stands beside the effect wherever it is shown.
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
    verdict: Decision
    reason: str
    family: str = ""
    p_reproduced: float | None = None
    p_contradicted: float | None = None
    covers: str = ""
    flags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The claim on one line; the fields hold the rest."""
        effect = " ".join(filter(None, (self.effect_text, self.bounds_text)))
        return f"<{self.claim}: {self.verdict}{f', {effect}, n {self.n}' if effect else ''}>"

    @property
    def lacks_p(self) -> bool:
        """Whether an earlier version decided it, which gave no p-values."""
        return self.verdict != "undecided" and self.p_reproduced is None

    @property
    def lacks_all_p(self) -> bool:
        """Whether it has neither p-values nor what it covers, as those of earlier versions."""
        return self.p_reproduced is self.p_contradicted is None and not self.covers

    @property
    def effect_text(self) -> str:
        """The effect with its sign, to three decimals; empty without one."""
        return "" if self.effect is None else f"{self.effect:+.3f}"

    @property
    def covers_text(self) -> str:
        """What is behind the interval: ``over 5 replicates, given P``; of earlier versions n."""
        if not self.covers:
            return f"n {self.n}"
        return f"over {self.covers if 'networks' in self.interval else f'{self.n} {self.covers}'}"

    @property
    def bounds_text(self) -> str:
        """The interval in brackets; empty without one."""
        if self.low is None or self.high is None:
            return ""
        return bracketed(self.low, self.high, lambda bound, digits: f"{bound:+.{digits}f}")


def judge(
    suite: Suite,
    measurements: Measurements,
    entry: str,
    left_out: Mapping[str, str] | None = None,
    single_source: Collection[str] = (),
    equal: EqualTrials | None = None,
    unmeasured: Mapping[str, str] | None = None,
) -> list[Verdict]:
    """A verdict on each claim of ``suite``, in its order, for one entry.

    ``left_out``: arms that the entry's external weights cannot start, and why; a claim on one
    says so. ``single_source``: arms that start from one network, which a claim's interval does not
    cover. ``equal``: trials that predict the same as another one. ``unmeasured``: diagnoses of P
    that its external weights do not allow, and why. Only replicates with a value in
    every cell of every term count, so that terms differ in nothing but the contrast of the claim.

    A claim on ``each`` value of a coordinate is reproduced where every value's interval says so,
    and contradicted where one does at a level corrected for their number (Bonferroni); the
    effect is that of the value which is furthest from holding, of those that decide the verdict.

    Undecided, whatever the interval: a claim of fewer than ``FEWEST`` replicates (or source
    networks, where its arms start from several), one whose
    replicates have no spread, and one with replicates lost (a trial that diverged), unless it is
    decided alike whatever values these would have had. So is a claim on two settings whose
    networks predict the same.
    """
    facts = _Facts(left_out or {}, single_source, equal or {}, unmeasured or {})
    return _judge_all(weighted_sum, weighted_ratio, suite, measurements, entry, facts)


def judge_by_jackknife(
    suite: Suite, measurements: Measurements, entry: str, *facts: Any
) -> list[Verdict]:
    """The verdicts by the intervals of an earlier version, else as ``judge``, with its arguments.

    Published verdicts of that time are checked by it: Student-t of the jackknife, before intervals
    reached further near the end of a range, and Fieller's interval of jackknifes for shares.
    """
    return _judge_all(_jackknife_sum, _jackknife_ratio, suite, measurements, entry, _Facts(*facts))


def _jackknife_sum(
    summands: Sequence[Summand], replicates: Sequence[int], networks: int, level: float
) -> Interval:
    ends = range_of(summands)
    return jackknife(_estimate(summands), replicates, level, networks).within(*ends)


def _jackknife_ratio(
    over: Sequence[Summand],
    under: Sequence[Summand],
    replicates: Sequence[int],
    networks: int,
    level: float,
) -> Interval:
    return jackknife_ratio(_estimate(over), _estimate(under), replicates, level, networks)


def _estimate(summands: Sequence[Summand]) -> Estimator:
    def estimate(replicates: Sequence[int]) -> float | None:
        values = [part.estimate(replicates) for part in summands]
        if None in values:
            return None
        return sum(
            part.weight * (value or 0.0) for part, value in zip(summands, values, strict=True)
        )

    return estimate


class _Facts(NamedTuple):
    """What is known of an entry besides its measurements, as in ``judge``."""

    left_out: Mapping[str, str] = MappingProxyType({})
    single_source: Collection[str] = ()
    equal: EqualTrials = MappingProxyType({})
    unmeasured: Mapping[str, str] = MappingProxyType({})


class _Intervals(NamedTuple):
    """How the interval of a sum is made, and that of a ratio."""

    of_sum: Callable[..., Interval]
    of_ratio: Callable[..., Interval]


def _judge_all(
    of_sum: Callable[..., Interval],
    of_ratio: Callable[..., Interval],
    suite: Suite,
    measurements: Measurements,
    entry: str,
    facts: _Facts,
) -> list[Verdict]:
    own, make = measurements.select(entry=entry), _Intervals(of_sum, of_ratio)
    return [_judge(suite, label, own, facts, make) for label in suite.claims]


def _judge(suite: Suite, label: str, own: Measurements, facts: _Facts, make: _Intervals) -> Verdict:
    claim = suite.claims[label]
    cases = cases_of(suite, claim, own)
    samples = [sample for case in cases for sample in case.samples]
    draws = draws_of(samples)
    same, alike = equality_of(samples, draws.replicates, facts.equal)
    judged = [_judged(claim, case, draws, make, len(cases)) for case in cases]
    decisive = _decisive(claim, judged)
    interval = decisive.interval
    p_reproduced, p_contradicted = (None, None) if same else _p_values(judged)
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
        family=claim.family,
        p_reproduced=p_reproduced,
        p_contradicted=p_contradicted,
        covers=_covered(claim, draws, facts.single_source),
        flags=(*([EQUAL_PREDICTIONS] if same else []), *_lost_flags(draws)),
        verdict="undecided" if same else decisive.decision,
        reason="; ".join(
            [
                *same,
                *decisive.reasons,
                *alike,
                *_left_out(claim, facts.left_out),
                *_unmeasured(claim, facts.unmeasured),
                *_worst_of(claim, decisive, len(cases)),
                *_notes(samples, len(draws.replicates), draws.planned),
            ]
        ),
    )


def _decisive(claim: Claim, judged: Sequence[_Judged]) -> _Judged:
    """Of the cases that fail, else of those not decided, else of all the furthest from holding."""
    order: tuple[Decision, ...] = ("contradicted", "undecided", "reproduced")
    return min(
        judged,
        key=lambda case: (order.index(case.decision), _margins(claim, case.interval)[0]),
    )


def _lost_flags(draws: Draws) -> list[str]:
    """Replicates that were trained and gave no value: the effect is that of the others."""
    if not draws.lost or not draws.replicates:
        return []
    return [f"{len(draws.lost)} of {len(draws.lost) + len(draws.replicates)} replicates lost"]


# --- what the verdict is on ---------------------------------------------------------------------


def _left_out(claim: Claim, left_out: Mapping[str, str]) -> list[str]:
    """Why arms of the claim were not trained for this entry."""
    arms = _arms(claim)
    return [
        f"{arm} {why}, which external weights cannot give"
        for arm, why in left_out.items()
        if arm in arms
    ]


def _unmeasured(claim: Claim, unmeasured: Mapping[str, str]) -> list[str]:
    """Why diagnoses of the source network were not measured for this entry."""
    labels = {
        term.diagnostic
        for term in claim.all_terms
        if SOURCE in {term.initialization, term.other_initialization}
    }
    return [f"{label} {why}" for label, why in unmeasured.items() if label in labels]


def _arms(claim: Claim) -> set[str]:
    terms = claim.all_terms
    second = {term.other_initialization for term in terms if term.other_initialization}
    return {term.initialization for term in terms} | second


def _covered(claim: Claim, draws: Draws, single_source: Collection[str]) -> str:
    """What the interval of a claim covers: replicates alone, or other source networks too."""
    if not draws.replicates:
        return ""
    arms = sorted(_arms(claim).intersection(single_source))
    if draws.networks == 1:
        return "replicates, given P" if arms else "replicates"
    one_network = f", given the one network of {listing(arms, NAMED)}" if arms else ""
    return covered(draws.replicates, draws.networks) + one_network


class _Judged(NamedTuple):
    """One case: the effect's interval, and the decision by it.

    ``errors``: the smallest at which intervals say reproduced, and contradicted; None where no
    interval of these replicates may decide.
    """

    at: str | None
    interval: Interval
    decision: Decision
    reasons: list[str]
    errors: tuple[float, float] | None


def _judged(claim: Claim, case: Case, draws: Draws, make: _Intervals, cases: int) -> _Judged:
    interval_at, lost = _intervals(claim, case, draws, make), draws.lost
    filled_at = _filled(claim, case, draws, make) if lost else lambda _: []
    interval = interval_at(LEVEL)
    decision, reasons = _decide(claim, interval)
    errors = None
    if _unfit(interval) is None and filled_at is not None:
        errors = _errors(claim, lambda level: [interval_at(level), *filled_at(level)])
    others = [] if filled_at is None else filled_at(LEVEL)
    if decision != "undecided" and lost and {_decide(claim, i)[0] for i in others} != {decision}:
        names = listing([f"replicate {k}" for k in lost], NAMED)
        reasons = [f"{names} gave no value, and the verdict depends on what it would have been"]
        decision = "undecided"
    if decision == "contradicted" and cases > 1:
        level = 1 - (1 - LEVEL) / cases
        corrected = [interval_at(level), *(filled_at(level) if filled_at else [])]
        if {_decide(claim, i)[0] for i in corrected} != {"contradicted"}:
            reasons = [f"contradicted at {case.at} alone, but not with {cases} of them in view"]
            decision = "undecided"
    return _Judged(case.at, interval, decision, reasons, errors)


def _errors(
    claim: Claim, intervals_at: Callable[[float], Sequence[Interval]]
) -> tuple[float, float]:
    """The smallest errors at which all intervals say reproduced, and contradicted."""

    def error(side: int) -> float:
        return least_error(
            lambda level: all(_margins(claim, i)[side] > 0 for i in intervals_at(level))
        )

    return error(0), error(1)


def _p_values(judged: Sequence[_Judged]) -> tuple[float | None, float | None]:
    """Of all cases holding, and of one of them failing (Bonferroni)."""
    if not any(case.errors for case in judged):
        return None, None
    reproduced, contradicted = zip(*(case.errors or (1.0, 1.0) for case in judged), strict=True)
    return max(reproduced), min(1.0, len(judged) * min(contradicted))


def _worst_of(claim: Claim, decisive: _Judged, cases: int) -> list[str]:
    if claim.each is None or decisive.at is None:
        return []
    return [f"the furthest from holding of {cases} is {claim.each.coordinates[0]} {decisive.at}"]


def _filled(
    claim: Claim, case: Case, draws: Draws, make: _Intervals
) -> Callable[[float], list[Interval]] | None:
    """The intervals at a level for what the lost replicates could be, as in ``_fills``.

    Only a sum of bounded quantities of single networks has a least and a most; orders, effects of
    pairs and ratios do not (None).
    """
    effect, divisor = case.sums if not (claim.order or claim.along) else ((), ())
    terms = [_filled_term(sample, draws) for sample in effect]
    if divisor or not terms or None in terms:
        return None
    replicates = sorted({*draws.replicates, *draws.lost})
    filled = [[fill(shares) for fill in terms if fill] for shares in _fills(len(draws.lost))]
    return lambda level: [make.of_sum(term, replicates, draws.networks, level) for term in filled]


def _fills(lost: int) -> Iterator[tuple[float, ...]]:
    """Where each lost replicate may lie between the least effect (0) and the most (1).

    All at one place, or some at each end, which has the largest spread: next to the end of a range
    a bound is furthest out for a value inside.
    """
    for share in PLACES:
        yield (share,) * lost
    for low in range(1, lost):
        yield (0.0,) * low + (1.0,) * (lost - low)


def _filled_term(sample: Sample, draws: Draws) -> Callable[[tuple[float, ...]], Summand] | None:
    """A summand whose lost replicates have values between those of the least and the most effect.

    Given the share of the way from one to the other, for each.
    """
    ends = sample.rows.bounds
    values = {k: v for k in draws.replicates if (v := sample.mean([k])) is not None}
    if ends is None or not np.isfinite(ends).all() or len(values) < len(draws.replicates):
        return None

    least, most = ends if sample.weight > 0 else ends[::-1]

    def filled(shares: tuple[float, ...]) -> Summand:
        placed = (least + share * (most - least) for share in shares)
        complete = values | dict(zip(draws.lost, placed, strict=True))
        return Summand(sample.weight, mean_of_replicates(complete), ends)

    return filled


# --- the effect -------------------------------------------------------------------------------


def _intervals(
    claim: Claim, case: Case, draws: Draws, make: _Intervals
) -> Callable[[float], Interval]:
    """The interval of the effect at a level."""
    replicates, networks = draws.replicates, draws.networks
    missing = dict.fromkeys(cell for sample in case.samples for cell in sample.missing)
    reason = f"no measurement: {listing(list(missing), NAMED, '; ')}" if missing else ""
    if not missing and not replicates:
        reason = "no replicate has a value at every place"
    if reason:
        return lambda _: _undetermined(claim, reason)
    if claim.order or claim.along:
        levels, against = (
            [[_summand(sample) for sample in effect] for effect in side]
            for side in (case.sums, case.against)
        )
        return concordance_at(levels, against, replicates, networks)
    effect, divisor = ([_summand(sample) for sample in side] for side in case.sums)
    if divisor:
        return lambda level: make.of_ratio(effect, divisor, replicates, networks, level)
    return lambda level: make.of_sum(effect, replicates, networks, level)


def _summand(sample: Sample) -> Summand:
    return Summand(sample.weight, effect_of([sample._replace(weight=1.0)]), sample.rows.bounds)


def _undetermined(claim: Claim, reason: str) -> Interval:
    order = claim.order or claim.along
    method = "pairs-95" if order else "fieller-95" if claim.relative_to else "jackknife-95"
    return Interval(None, None, None, 0, method, reason)


# --- the verdict ------------------------------------------------------------------------------


def _margins(claim: Claim, interval: Interval) -> tuple[float, float]:
    """By how much the interval clears the condition, and by how much it misses it, or negative."""
    low, high, threshold = interval.low, interval.high, claim.threshold
    if low is None or high is None:
        return -np.inf, -np.inf
    if claim.relation == "within":
        return threshold - max(-low, high), max(low, -high) - threshold
    above = low - threshold, threshold - high
    return above if claim.relation == "above" else above[::-1]


def _decide(claim: Claim, interval: Interval) -> tuple[Decision, list[str]]:
    if unfit := _unfit(interval):
        return "undecided", [unfit]
    holds, fails = _margins(claim, interval)
    if holds > 0:
        return "reproduced", []
    if fails > 0:
        return "contradicted", []
    threshold = claim.threshold
    limit = f"-{threshold:g} or {threshold:g}" if claim.relation == "within" else f"{threshold:g}"
    return "undecided", [f"the interval includes {limit}"]


def _unfit(interval: Interval) -> str | None:
    """Why an interval decides nothing, whatever its bounds; None where it may."""
    if interval.low is None or interval.high is None:
        return interval.reason or "no interval"
    if interval.n < FEWEST:
        counted = "source networks" if interval.over_networks else "replicates"
        return f"a verdict needs {FEWEST} {counted}, found {interval.n}"
    return None


def _notes(samples: Sequence[Sample], complete: int, planned: int) -> list[str]:
    """Remarks on the measurements of a claim, decided or not."""
    rows = reduce(or_, (sample.rows for sample in samples))
    notes = []
    if complete < planned:
        notes.append(f"{complete} of {planned} replicates are complete")
    if without := len(rows) - len(rows.valued()):
        notes.append(f"{without} of {len(rows)} measurements have no value and were left out")
    return [*notes, *_flags(rows)]


def _flags(rows: Measurements) -> list[str]:
    """The most frequent flags, and how many measurements have another."""
    flags = Counter(flag for flag in rows.labels("flag") if flag is not None)
    counts = sorted(flags.items(), key=lambda item: (-item[1], item[0]))
    named = [
        f"{count} of {len(rows)} measurements are flagged: {flag}" for flag, count in counts[:NAMED]
    ]
    rest = sum(count for _, count in counts[NAMED:])
    return [*named, f"{rest} more have other flags"] if rest else named
