"""Claims with their verdicts, and the small interval plot beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transferbench.claims import Verdict
from transferbench.report.formats import significant
from transferbench.suite import Claim, Suite

__all__ = ["ClaimRow", "IntervalPlot", "claim_rows"]

PLOT_WIDTH = 190.0
MARGIN = 0.08
SIGNS = {"above": ">", "below": "<", "within": "within \N{PLUS-MINUS SIGN}"}


@dataclass(frozen=True)
class IntervalPlot:
    """Horizontal places, in SVG units, of an interval against its threshold and zero."""

    width: float
    low: float
    high: float
    effect: float
    zero: float
    thresholds: tuple[float, ...]
    description: str


@dataclass(frozen=True)
class ClaimRow:
    """One line of the table of claims."""

    label: str
    statement: str
    source: str
    control: bool
    verdict: str
    effect: str
    interval: str
    rule: str
    method: str
    reason: str
    plot: IntervalPlot | None


def interval_plot(judged: Verdict) -> IntervalPlot | None:
    """The plot of a judged claim, on a scale of its own that shows zero and the threshold."""
    if judged.effect is None or judged.low is None or judged.high is None:
        return None
    bounds = [judged.threshold]
    if judged.relation == "within":
        bounds.insert(0, -judged.threshold)
    points = [0.0, judged.low, judged.high, judged.effect, *bounds]
    span = max(points) - min(points) or 1.0
    start, unit = min(points) - MARGIN * span, PLOT_WIDTH / (span * (1 + 2 * MARGIN))

    def place(value: float) -> float:
        return round((value - start) * unit, 2)

    return IntervalPlot(
        width=PLOT_WIDTH,
        low=place(judged.low),
        high=place(judged.high),
        effect=place(judged.effect),
        zero=place(0.0),
        thresholds=tuple(map(place, bounds)),
        description=f"{judged.claim}: {interval_of(judged)}, threshold {judged.threshold:g}",
    )


def interval_of(judged: Verdict) -> str:
    """The bounds and the n behind them."""
    if judged.low is None or judged.high is None:
        return f"no interval, n {judged.n}"
    return f"[{significant(judged.low)}, {significant(judged.high)}] n {judged.n}"


def rule_of(claim: Claim) -> str:
    """What the whole interval has to do."""
    sign = SIGNS[claim.relation]
    space = "" if claim.relation == "within" else " "
    return f"{sign}{space}{claim.threshold:g} {claim.unit}"


def judged_row(claim: Claim, judged: Verdict) -> ClaimRow:
    """A claim with its verdict."""
    effect = "" if judged.effect is None else f"{significant(judged.effect)} {judged.unit}"
    return ClaimRow(
        label=judged.claim,
        statement=judged.statement,
        source=judged.source,
        control=judged.control,
        verdict=judged.verdict,
        effect=effect,
        interval=interval_of(judged),
        rule=rule_of(claim),
        method=judged.interval,
        reason=judged.reason,
        plot=interval_plot(judged),
    )


def open_row(label: str, claim: Claim) -> ClaimRow:
    """A claim that nobody judged."""
    return ClaimRow(
        label=label,
        statement=claim.statement,
        source=claim.source,
        control=claim.control,
        verdict="not judged",
        effect="",
        interval="",
        rule=rule_of(claim),
        method="",
        reason="this run holds no verdict for it",
        plot=None,
    )


def claim_rows(suite: Suite, verdicts: Sequence[Verdict]) -> list[ClaimRow]:
    """Every claim of the suite, in its order: judged ones with their verdict."""
    found = {judged.claim: judged for judged in verdicts}
    return [
        judged_row(claim, found[label]) if label in found else open_row(label, claim)
        for label, claim in suite.claims.items()
    ]
