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
SIGNS = {"above": "> ", "below": "< ", "within": "within \N{PLUS-MINUS SIGN}"}


@dataclass(frozen=True)
class IntervalPlot:
    """Horizontal positions, in SVG units, of an interval, its threshold and zero."""

    width: float
    low: float
    high: float
    effect: float
    zero: float
    thresholds: tuple[float, ...]
    description: str


@dataclass(frozen=True)
class ClaimRow:
    """One line of the table of claims; by default one that was not judged."""

    label: str
    claim: Claim
    rule: str
    verdict: str = "not judged"
    effect: str = ""
    interval: str = ""
    method: str = ""
    reason: str = "this run holds no verdict for it"
    plot: IntervalPlot | None = None


def claim_rows(suite: Suite, verdicts: Sequence[Verdict]) -> list[ClaimRow]:
    """Every claim of the suite, in its order, with its verdict where it was judged."""
    by_claim = {verdict.claim: verdict for verdict in verdicts}
    return [_row(label, claim, by_claim.get(label)) for label, claim in suite.claims.items()]


def _row(label: str, claim: Claim, verdict: Verdict | None) -> ClaimRow:
    rule = f"{SIGNS[claim.relation]}{claim.threshold:g} {claim.unit}"
    if verdict is None:
        return ClaimRow(label, claim, rule)
    effect = verdict.effect
    return ClaimRow(
        label,
        claim,
        rule,
        verdict=verdict.verdict,
        effect="" if effect is None else f"{significant(effect)} {verdict.unit}",
        interval=_interval_text(verdict),
        method=verdict.interval,
        reason=verdict.reason,
        plot=_interval_plot(verdict),
    )


def _interval_text(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        return f"no interval, n {verdict.n}"
    return f"[{significant(verdict.low)}, {significant(verdict.high)}] n {verdict.n}"


def _interval_plot(verdict: Verdict) -> IntervalPlot | None:
    """The plot of a judged claim, on a scale of its own that shows zero and the threshold."""
    if verdict.effect is None or verdict.low is None or verdict.high is None:
        return None
    thresholds = [verdict.threshold]
    if verdict.relation == "within":
        thresholds.insert(0, -verdict.threshold)
    points = [0.0, verdict.low, verdict.high, verdict.effect, *thresholds]
    span = max(points) - min(points) or 1.0
    start, unit = min(points) - MARGIN * span, PLOT_WIDTH / (span * (1 + 2 * MARGIN))

    def position(value: float) -> float:
        return round((value - start) * unit, 2)

    return IntervalPlot(
        width=PLOT_WIDTH,
        low=position(verdict.low),
        high=position(verdict.high),
        effect=position(verdict.effect),
        zero=position(0.0),
        thresholds=tuple(map(position, thresholds)),
        description=f"{verdict.claim}: {_interval_text(verdict)}, threshold {verdict.threshold:g}",
    )
