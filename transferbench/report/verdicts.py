"""Claims with their verdicts, by families, and the small interval plot beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transferbench.claims import (
    Verdict,
    bracketed,
    control_word,
    controls_of,
    families_of,
    family_of,
    p_text,
)
from transferbench.report.formats import significant
from transferbench.suite import Claim, Suite

__all__ = ["ClaimGroup", "ClaimRow", "IntervalPlot", "claim_groups"]

FLAGGED = "*"
"""Behind a number whose measurements are flagged, as in every table."""
NOT_JUDGED = "not judged"
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
    verdict: str = NOT_JUDGED
    effect: str = ""
    interval: str = ""
    method: str = ""
    flags: tuple[str, ...] = ()
    reason: str = "this run holds no verdict for it"
    plot: IntervalPlot | None = None

    @property
    def word(self) -> str:
        """The verdict in words; that on a control is another one."""
        return control_word(self.verdict) if self.claim.control else self.verdict


@dataclass(frozen=True)
class ClaimGroup:
    """A family, or the controls, with the claims beneath; ``detail``: p-values, or counts."""

    name: str
    verdict: str
    detail: str
    rows: Sequence[ClaimRow]


def claim_groups(suite: Suite, verdicts: Sequence[Verdict]) -> list[ClaimGroup]:
    """Every claim of the suite by family, in its order, with its verdict; controls last."""
    by_claim = {verdict.claim: verdict for verdict in verdicts}
    families = {family.name: family for family in families_of(verdicts)}
    members: dict[str, list[ClaimRow]] = {}
    controls: list[ClaimRow] = []
    for label, claim in suite.claims.items():
        own = controls
        if not claim.control:
            own = members.setdefault(family_of(label, claim.family, claim.source), [])
        own.append(_row(label, claim, by_claim.get(label)))
    groups = [
        ClaimGroup(name, family.verdict, family.p_words, rows)
        if (family := families.get(name)) is not None and len(family.verdicts) == len(rows)
        else ClaimGroup(name, NOT_JUDGED, "", rows)
        for name, rows in members.items()
    ]
    if controls:
        counts = controls_of(verdicts)
        words = counts.control_words if any(counts) else NOT_JUDGED
        groups.append(ClaimGroup("controls", "", words, controls))
    return groups


def _row(label: str, claim: Claim, verdict: Verdict | None) -> ClaimRow:
    rule = f"{SIGNS[claim.relation]}{claim.threshold:g} {claim.unit}"
    if verdict is None:
        return ClaimRow(label, claim, rule)
    effect, mark = verdict.effect, FLAGGED if verdict.flags else ""
    return ClaimRow(
        label,
        claim,
        rule,
        verdict=verdict.verdict,
        effect="" if effect is None else f"{significant(effect)}{mark} {verdict.unit}",
        interval=_interval_text(verdict),
        flags=verdict.flags,
        method=", ".join(filter(None, (verdict.interval, _p_text(verdict)))),
        reason=verdict.reason,
        plot=_interval_plot(verdict),
    )


def _p_text(verdict: Verdict) -> str:
    """The p-value of the verdict, or of the more certain direction of an undecided one."""
    p = [p for p in (verdict.p_reproduced, verdict.p_contradicted) if p is not None]
    return p_text(min(p)) if p else ""


def _interval_text(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        return f"no interval, n {verdict.n}"
    return f"{bracketed(verdict.low, verdict.high, significant)} {verdict.covers_text}"


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
