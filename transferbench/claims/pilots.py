"""Pilots: what a run says about the variance of a claim, and the power that a plan has by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from transferbench.claims.cases import Case, Draws, cases_of, draws_of, effect_of
from transferbench.claims.families import family_of
from transferbench.claims.terms import Sample, planned_replicates
from transferbench.identity import derive_seed
from transferbench.measurements import Measurements, MetricRanges, range_of_metric
from transferbench.registry import Registry
from transferbench.statistics import (
    MOST,
    Levels,
    PlannedArm,
    Range,
    deviation,
    expected_half_width,
    jackknifed,
    needed,
    order_power,
    pair_signs,
    power_above,
    power_within,
    quantile_factor,
    range_of_sum,
    simulated_bounds,
)
from transferbench.suite import SOURCE, Claim, Pilot, Suite, Term
from transferbench.suite.published import pilot_arms
from transferbench.suite.ranges import metric_ranges
from transferbench.suite.starts import networks_behind

__all__ = ["PlannedClaim", "claim_power", "pilot_of", "planned_claims", "replicates_needed"]

FEWEST = 3
NO_DRAW = "-"
"""Stands for the draw of suites without one, where bundled pilots are listed."""
MOST_OF_ORDER = 100
"""Replicates beyond which no order is planned, since its power is simulated."""


class PlannedClaim(NamedTuple):
    """What a plan may expect of a claim.

    ``n``: replicates, or source networks. ``half_width``: expected, of the 95% interval; None of
    an order. ``needed``: the fewest n with a power of 90%; None where none is enough.
    Without a pilot all three are None. ``without_arms``: they are those of Student-t, since the
    pilot does not say how near the end of its range a quantity is. ``of_weakest``: they are those
    of one value of ``each``, the least certain; that the claim holds at all is at most as likely.
    """

    claim: str
    family: str
    control: bool
    n: int
    half_width: float | None = None
    power: float | None = None
    needed: int | None = None
    has_pilot: bool = False
    without_arms: bool = False
    of_weakest: bool = False


# --- power ------------------------------------------------------------------------------------


def planned_claims(suite: Suite, registry: Registry) -> list[PlannedClaim]:
    """The expected half-width and power of every claim that has a pilot, at its planned n.

    Claims on arms that the suite was reduced by (``--initialization``) are left out.
    """
    ranges = metric_ranges(suite, registry.diagnostics)
    arms = {*suite.initializations, SOURCE, None}
    return [_planned(suite, label, registry, ranges)
            for label, claim in suite.claims.items() if _arms_in(claim) <= arms]  # fmt: skip


def _planned(suite: Suite, label: str, registry: Registry, ranges: MetricRanges) -> PlannedClaim:
    claim = suite.claims[label]
    family = "" if claim.control else family_of(label, claim.family, claim.source)
    plain = PlannedClaim(label, family, claim.control, _units(suite, claim, registry))
    if claim.pilot is None:
        return plain
    pilot = _with_arms(suite, label, claim, claim.pilot)
    width = None if pilot.levels or plain.n < FEWEST else _half_width(claim, pilot, plain.n, ranges)
    return plain._replace(
        half_width=width,
        power=claim_power(claim, pilot, plain.n, ranges),
        needed=replicates_needed(claim, pilot, ranges),
        has_pilot=True,
        without_arms=bool(_arms(claim, pilot, ranges) is None and _ranges_of(claim, ranges)),
        of_weakest=claim.each is not None,
    )


def _with_arms(suite: Suite, label: str, claim: Claim, pilot: Pilot) -> Pilot:
    """With the arms of one term, which has its effect, or of a registered suite."""
    if pilot.arms:
        return pilot
    means, deviations = pilot_arms().get((suite.board, label, pilot.draw or NO_DRAW), ((), ()))
    if len(means) != len(claim.terms):
        return pilot
    return pilot.model_copy(update={"arms": means, "arm_deviations": deviations})


def claim_power(claim: Claim, pilot: Pilot, n: int, ranges: MetricRanges) -> float:
    """The probability that ``n`` replicates reproduce the claim, if the pilot told the truth.

    A control is taken for true: its effect is 0. Of a share the divisor counts as known. Where
    quantities have ``ranges`` samples of the arms are simulated, and judged as the claim is.
    """
    if n < FEWEST:
        return 0.0
    if pilot.levels:
        return _power_of_order(claim, pilot, n, ranges)
    if arms := _arms(claim, pilot, ranges):
        return float(np.mean(_holds(claim)(*_bounds(claim, pilot, arms, n))))
    factor = _factor(claim, n, ranges)
    if claim.relation == "within":
        effect = _planned_effect(claim, pilot)
        return power_within(effect, claim.threshold, pilot.deviation, n, factor=factor)
    sign = 1.0 if claim.relation == "above" else -1.0
    margin = sign * (pilot.effect - claim.threshold)
    return power_above(margin, pilot.deviation, n, factor=factor)


def _half_width(claim: Claim, pilot: Pilot, n: int, ranges: MetricRanges) -> float:
    if arms := _arms(claim, pilot, ranges):
        low_D, high_D = _bounds(claim, pilot, arms, n)
        return float(np.mean(high_D - low_D)) / 2
    return expected_half_width(pilot.deviation, n, factor=_factor(claim, n, ranges))


def _planned_effect(claim: Claim, pilot: Pilot) -> float:
    return 0.0 if claim.control and claim.relation == "within" else pilot.effect


def _bounds(
    claim: Claim, pilot: Pilot, arms: Sequence[PlannedArm], n: int
) -> tuple[np.ndarray, np.ndarray]:
    seed = derive_seed("power", {"arms": repr(arms), "n": n})
    return simulated_bounds(arms, _planned_effect(claim, pilot), pilot.deviation, n, seed)


def _arms(claim: Claim, pilot: Pilot, ranges: MetricRanges) -> list[PlannedArm] | None:
    """The arms of a sum of which a quantity has a range; None where their means are not known."""
    if claim.relative_to or not (ends := _ranges_of(claim, ranges)):
        return None
    weights = [term.weight for term in claim.terms]
    means, deviations = pilot.arms, pilot.arm_deviations
    if len(weights) == 1 and not means:
        means, deviations = (pilot.effect / weights[0],), (pilot.deviation / abs(weights[0]),)
    rows = zip(weights, ends, means, deviations, strict=True) if means else ()
    return [PlannedArm(*row) for row in rows if row[0]] or None


def _ranges_of(claim: Claim, ranges: MetricRanges) -> list[Range | None]:
    """The range of each term's quantity; empty where none has one."""
    ends = _ends_of(claim.terms, ranges)
    return ends if any(ends) else []


def _ends_of(terms: Sequence[Term], ranges: MetricRanges) -> list[Range | None]:
    """The range of each term's quantity, None where it is not declared."""
    return [range_of_metric((term.diagnostic, term.metric), ranges) for term in terms]


def _factor(claim: Claim, n: int, ranges: MetricRanges) -> float:
    """Of Student-t's quantile; the arms of a difference count as equally variable."""
    terms = (*claim.terms, *claim.relative_to)
    wide = None in _ends_of(terms, ranges)
    return float(quantile_factor(wide, n, np.array(1 / len(terms))))


def replicates_needed(claim: Claim, pilot: Pilot, ranges: MetricRanges) -> int | None:
    """The fewest n with a power of 90%; None where 1,000 (of an order: 100) do not have it."""
    most = MOST_OF_ORDER if pilot.levels else MOST
    return needed(lambda n: claim_power(claim, pilot, n, ranges), most=most)


def _holds(claim: Claim) -> Callable[[Any, Any], Any]:
    """Whether a claim is reproduced by bounds, of which there may be arrays."""
    threshold = claim.threshold
    return {
        "above": lambda low, _: low > threshold,
        "below": lambda _, high: high < threshold,
        "within": lambda low, high: (-threshold < low) & (high < threshold),
    }[claim.relation]


def _power_of_order(claim: Claim, pilot: Pilot, n: int, ranges: MetricRanges) -> float:
    effects = claim.order or [claim.terms] * len(pilot.levels)
    levels = Levels(pilot.levels, pilot.deviation, [_range_of(e, ranges) for e in effects])
    against, other = None, pilot.against_deviation
    if other is not None:
        against = Levels(pilot.against, other, [_range_of(e, ranges) for e in claim.against])
    seed = derive_seed("power", {"levels": list(pilot.levels), "n": n})
    return order_power(levels, against, _holds(claim), n, seed)


def _range_of(terms: Sequence[Term], ranges: MetricRanges) -> Range | None:
    """The range of an effect; None where that of a quantity is not declared."""
    ends = _ends_of(terms, ranges)
    return None if None in ends else range_of_sum([term.weight for term in terms], ends)


def _arms_in(claim: Claim) -> set[str | None]:
    """The arms that a claim compares."""
    return {arm for term in claim.all_terms
            for arm in (term.initialization, term.other_initialization)}  # fmt: skip


def _units(suite: Suite, claim: Claim, registry: Registry) -> int:
    """The replicates that a claim plans for, or the source networks that its arms start from."""
    terms, arms = claim.all_terms, _arms_in(claim)
    uses = [suite.initializations[arm] for arm in arms if arm not in {None, SOURCE}]
    networks = [networks_behind(suite, use, registry.initialization(use.name)) for use in uses]
    if SOURCE in arms:
        networks.append(suite.networks)
    most = max(networks)
    return most if most > 1 else min(planned_replicates(suite, term) for term in terms)


# --- from a run -------------------------------------------------------------------------------


def pilot_of(suite: Suite, claim: Claim, measurements: Measurements, entry: str) -> Pilot | str:
    """What the run of ``suite`` measured of a claim on one entry, or why it tells nothing."""
    cases = cases_of(suite, claim, measurements.select(entry=entry))
    samples = [sample for case in cases for sample in case.samples]
    draws = draws_of(samples)
    if any(sample.missing for sample in samples) or len(draws.replicates) < FEWEST:
        return f"fewer than {FEWEST} replicates have a value in every cell"
    if claim.order or claim.along:
        return _pilot_of_order(suite, cases[0], draws)
    pilots = [_pilot_of_case(suite, claim, case, draws) for case in cases]
    measured = [pilot for pilot in pilots if pilot is not None]
    if len(measured) < len(pilots):
        return "its replicates have no spread, or the divisor of a share is not above 0"
    ranges = {
        (term.diagnostic, term.metric): ends
        for term, sample in zip(claim.terms, cases[0].sums[0], strict=True)
        if (ends := sample.rows.bounds)
    }
    return min(
        measured, key=lambda pilot: (claim_power(claim, pilot, pilot.n, ranges), -pilot.deviation)
    )


def _pilot_of_case(suite: Suite, claim: Claim, case: Case, draws: Draws) -> Pilot | None:
    effect, divisor = (
        jackknifed(effect_of(side), draws.replicates, draws.networks) for side in case.sums
    )
    value, pseudo_R = effect.value, effect.pseudo
    if value is None or len(pseudo_R) < FEWEST:
        return None
    if claim.relative_to:
        if divisor.value is None or divisor.value <= 0:
            return None
        value /= divisor.value
        pseudo_R = (effect.pseudo - value * divisor.pseudo) / divisor.value
    spread = deviation(pseudo_R)
    if spread <= 0:
        return None
    arms = [
        jackknifed(effect_of([sample._replace(weight=1.0)]), draws.replicates, draws.networks)
        for sample in case.sums[0]
    ]
    return Pilot(
        draw=suite.draw,
        n=len(pseudo_R),
        effect=value,
        deviation=spread,
        arms=tuple(float(arm.value or 0.0) for arm in arms),
        arm_deviations=tuple(deviation(arm.pseudo) for arm in arms),
    )


def _pilot_of_order(suite: Suite, case: Case, draws: Draws) -> Pilot | str:
    sides = [_levels(side, draws) for side in (case.sums, case.against) if side]
    measured = [side for side in sides if side is not None]
    if len(measured) < len(sides):
        return "its levels have no spread"
    (levels, spread, n), *others = measured
    signs = [pair_signs(means) for means, _, _ in measured]
    against, other, _ = others[0] if others else ((), None, n)
    return Pilot(
        draw=suite.draw,
        n=n,
        effect=float(np.mean(np.prod(signs, axis=0))),
        deviation=spread,
        levels=tuple(levels),
        against=tuple(against),
        against_deviation=other,
    )


def _levels(
    side: Sequence[Sequence[Sample]], draws: Draws
) -> tuple[list[float], float, int] | None:
    """The effects at K levels, their deviation from the mean of each replicate, and n."""
    effects = [jackknifed(effect_of(s), draws.replicates, draws.networks) for s in side]
    pseudo_KR = np.array([effect.pseudo for effect in effects])
    levels, n = pseudo_KR.shape
    if n < FEWEST:
        return None
    # What all levels of a replicate share moves no order.
    rest_KR = pseudo_KR - pseudo_KR.mean(axis=0) - pseudo_KR.mean(axis=1, keepdims=True)
    rest_KR += pseudo_KR.mean()
    variance = float((rest_KR**2).sum()) / ((levels - 1) * (n - 1))
    means = [float(effect.value or 0.0) for effect in effects]
    return (means, variance**0.5, n) if variance > 0 else None
