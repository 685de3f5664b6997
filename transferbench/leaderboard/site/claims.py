"""The claims of a board for its pages: each with the verdict on every entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from transferbench.claims import Verdict, bracketed, control_word, family_of, p_text
from transferbench.leaderboard.claim_table import predicate
from transferbench.leaderboard.origin_text import claim_origins
from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.table import signed
from transferbench.submission.bundle import slug
from transferbench.suite import Claim, Suite, Term

__all__ = ["BoardClaim", "Judged", "claims_of", "judged_of", "terms_of"]

WIDTH, PAD = 200.0, 8.0
"""Pixels of the plot of an interval."""
CONTROL = "control"


class Scale(NamedTuple):
    """Where values are on the plot of a claim, the same for all its entries."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The pixel of a value; at the border where it is beyond."""
        share = (value - self.low) / (self.high - self.low)
        return round(PAD + min(max(share, 0.0), 1.0) * (WIDTH - 2 * PAD), 1)


class Judged(NamedTuple):
    """A verdict on an entry, where its effect comes from, and the scale of its plot."""

    candidate: Candidate
    verdict: Verdict
    origin: str
    scale: Scale

    @property
    def word(self) -> str:
        """The verdict; that on a control has other words."""
        verdict = self.verdict
        return control_word(verdict.verdict) if verdict.control else verdict.verdict

    @property
    def effect(self) -> str:
        """The effect with its sign, and its unit; empty without one."""
        effect, unit = self.verdict.effect, self.verdict.unit
        return "" if effect is None else f"{signed(effect)}{'' if unit == '1' else f' {unit}'}"

    @property
    def bounds(self) -> str:
        """The interval, and what it covers."""
        verdict = self.verdict
        if verdict.low is None or verdict.high is None:
            return ""
        return f"{bracketed(verdict.low, verdict.high, signed)} {verdict.covers_text}"

    @property
    def p(self) -> str:
        """The p-value of the verdict, or of the more certain direction of an undecided one."""
        values = (self.verdict.p_reproduced, self.verdict.p_contradicted)
        p = [value for value in values if value is not None]
        return p_text(min(p)).removeprefix("p ") if p else ""

    @property
    def predicate(self) -> str:
        """Where the effect must lie: ``> 0 fraction``."""
        return predicate(self.verdict)

    @property
    def thresholds(self) -> list[float]:
        """The pixels of the threshold, or of both margins."""
        verdict = self.verdict
        ends = [verdict.threshold]
        if verdict.relation == "within":
            ends.insert(0, -verdict.threshold)
        return [self.scale.at(end) for end in ends]

    @property
    def region(self) -> tuple[float, float]:
        """The pixels from where to where the claim holds."""
        ends = self.thresholds
        if self.verdict.relation == "within":
            return ends[0], ends[-1]
        return (ends[0], WIDTH) if self.verdict.relation == "above" else (0.0, ends[0])


class BoardClaim(NamedTuple):
    """A claim of a board, its family, and the verdicts in the order of the board.

    ``claim``: as the suite of the board says it; None where an earlier MINOR had it alone.
    """

    label: str
    family: str
    claim: Claim | None
    judged: tuple[Judged, ...]

    @property
    def example(self) -> Judged:
        """A verdict, of which all say the same but the result."""
        return self.judged[0]

    @property
    def href(self) -> str:
        """Its page, below the folder of the board."""
        return f"claims/{slug(self.label)}.html"


def claims_of(suite: Suite, candidates: Sequence[Candidate]) -> list[BoardClaim]:
    """The claims that some entry of a board was judged by: by families, controls last."""
    by_label: dict[str, list[tuple[Candidate, Verdict]]] = {}
    for candidate in candidates:
        for verdict in candidate.bundle.verdicts:
            by_label.setdefault(verdict.claim, []).append((candidate, verdict))
    origins = {c.folder: claim_origins(c) for c in candidates}
    members: dict[str, list[BoardClaim]] = {}
    for label, own in by_label.items():
        scale = _scale(verdict for _, verdict in own)
        judged = tuple(
            Judged(candidate, verdict, origins[candidate.folder].get(label, ""), scale)
            for candidate, verdict in own
        )
        family = _family(own[0][1])
        members.setdefault(family, []).append(
            BoardClaim(label, family, suite.claims.get(label), judged)
        )
    controls = members.pop(CONTROL, [])
    return [claim for own in members.values() for claim in own] + controls


def judged_of(claims: Iterable[BoardClaim], candidate: Candidate) -> Iterator[Judged]:
    """The verdicts on one entry, each on the scale of all entries."""
    for claim in claims:
        yield from (each for each in claim.judged if each.candidate is candidate)


def terms_of(claim: Claim) -> Iterator[str]:
    """The summands of a claim's effect, in words."""
    sums = {"": (claim.terms,), "divided by": (claim.relative_to,),
            "in order": claim.order, "against": claim.against}  # fmt: skip
    for role, of_role in sums.items():
        for terms in of_role:
            if terms:
                yield f"{role} {' '.join(map(_term, terms))}".strip()
    for word, axis in (("at each", claim.each), ("along", claim.along)):
        if axis:
            left_out = f", without {', '.join(map(str, axis.without))}" if axis.without else ""
            yield f"{word} {', '.join(axis.coordinates)}{left_out}"


def _term(term: Term) -> str:
    arms = " and ".join(filter(None, (term.initialization, term.other_initialization)))
    under = f"perturbation {term.perturbation}" if term.perturbation else "all perturbations"
    conditions = [term.target or "all targets", under]
    conditions += [f"{name} {value}" for name, value in term.coordinates.items()]
    # As "+" or "-" where the weight is one.
    sign = {1.0: "+", -1.0: "\N{MINUS SIGN}"}.get(term.weight, f"{signed(term.weight)} x")
    return f"{sign} {term.metric} ({term.diagnostic}) of {arms} on {', '.join(conditions)}"


def _family(verdict: Verdict) -> str:
    if verdict.control:
        return CONTROL
    return family_of(verdict.claim, verdict.family, verdict.source)


def _scale(verdicts: Iterable[Verdict]) -> Scale:
    points = [0.0]
    for verdict in verdicts:
        own = (verdict.effect, verdict.low, verdict.high, verdict.threshold)
        points += [value for value in own if value is not None]
        points += [-verdict.threshold] * (verdict.relation == "within")
    low, high = min(points), max(points)
    return Scale(low, high if high > low else low + 1)
