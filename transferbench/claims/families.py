"""Verdicts counted per claim of the paper: its claims in a suite are one family.

A family is reproduced where all its claims are, and contradicted where one is. Its p-value is that
of the direction which is more certain: the largest of its claims' for all of them (an
intersection-union test, which needs no correction), or the smallest times their number for one of
them (Bonferroni). Holm's correction then holds over the families of a suite.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from transferbench.claims.verdicts import Decision, Verdict
from transferbench.statistics import holm

__all__ = [
    "Counts",
    "Family",
    "control_word",
    "controls_of",
    "counts_of",
    "failed_controls",
    "families_of",
    "family_of",
    "p_text",
    "tally",
]

ERROR = 0.05
"""The probability that any family of a suite is decided falsely, after Holm's correction."""
CONTROL_WORDS: Mapping[str, str] = {
    "reproduced": "passed", "contradicted": "failed", "undecided": "underpowered",
}  # fmt: skip
"""What the verdict on a control is called: an undecided one had too little power to fail."""
OF_THE_PAPER = re.compile(r"\bC\d+$")


class Family(NamedTuple):
    """The verdicts of a claim of the paper, and the verdict that follows from them.

    ``p``: of ``verdict``, or of the more certain direction where it is undecided. ``adjusted_p``
    and ``adjusted``: after Holm's correction over all families; None where an earlier version gave
    no p-values.
    """

    name: str
    verdicts: tuple[Verdict, ...]
    verdict: Decision
    p: float | None = None
    adjusted_p: float | None = None
    adjusted: Decision | None = None

    @property
    def is_one_claim(self) -> bool:
        """Whether it has no other claim beneath it."""
        return len(self.verdicts) == 1

    @property
    def p_words(self) -> str:
        """Its p-value before and after the correction; empty where there is none."""
        if self.p is None or self.adjusted_p is None or not any(map(_has_p, self.verdicts)):
            return ""
        return f"{p_text(self.p)}, adjusted {p_text(self.adjusted_p).removeprefix('p ')}"


class Counts(NamedTuple):
    """How many families, or controls, ended in each verdict.

    Of controls: ``reproduced`` are passed, ``contradicted`` failed, ``undecided`` underpowered.
    """

    reproduced: int
    contradicted: int
    undecided: int

    @property
    def words(self) -> str:
        """Of families: ``3 reproduced, 1 undecided``."""
        return _listed(self, self._fields)

    @property
    def control_facts(self) -> dict[str, int]:
        """Of controls: how many passed, failed and were underpowered."""
        return dict(zip(CONTROL_WORDS.values(), self, strict=True))

    @property
    def control_words(self) -> str:
        """Of controls: ``1 passed, 1 underpowered``."""
        return _listed(self, tuple(CONTROL_WORDS.values()))


def _listed(counts: Counts, words: Sequence[str]) -> str:
    return ", ".join(f"{n} {word}" for n, word in zip(counts, words, strict=True) if n) or "none"


def family_of(label: str, family: str, source: str) -> str:
    """The family of a claim: by name, by the claim of the paper at the end of its source, or alone.

    Of claim ``C24-grows`` with source ``Raghu et al. 2019; C24`` it is ``C24``.
    """
    numbered = OF_THE_PAPER.search(source)
    return family or (numbered[0] if numbered else label)


def families_of(verdicts: Iterable[Verdict]) -> list[Family]:
    """The families of an entry's verdicts, without controls, in the order of their first claims."""
    members: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if not verdict.control:
            name = family_of(verdict.claim, verdict.family, verdict.source)
            members.setdefault(name, []).append(verdict)
    families = [Family(name, tuple(own), _decision(own)) for name, own in members.items()]
    judged = [verdict for family in families for verdict in family.verdicts]
    if any(verdict.lacks_p for verdict in judged) or not any(map(_has_p, judged)):
        return families
    tests = [_test(family.verdicts) for family in families]
    adjusted = holm([p for p, _ in tests])
    return [
        family._replace(p=p, adjusted_p=p_all, adjusted=side if p_all <= ERROR else "undecided")
        for family, (p, side), p_all in zip(families, tests, adjusted, strict=True)
    ]


def _decision(verdicts: Sequence[Verdict]) -> Decision:
    decisions = {verdict.verdict for verdict in verdicts}
    if "contradicted" in decisions:
        return "contradicted"
    return "reproduced" if decisions == {"reproduced"} else "undecided"


def _test(verdicts: Sequence[Verdict]) -> tuple[float, Decision]:
    """The p-value of a family, and the direction that it is of."""
    every = max(_certainty(verdict.p_reproduced) for verdict in verdicts)
    some = min(_certainty(verdict.p_contradicted) for verdict in verdicts) * len(verdicts)
    return (every, "reproduced") if every <= some else (min(some, 1.0), "contradicted")


def _has_p(verdict: Verdict) -> bool:
    return verdict.p_reproduced is not None


def _certainty(p: float | None) -> float:
    """What has no p-value is not established."""
    return 1.0 if p is None else p


def counts_of(decisions: Iterable[Decision]) -> Counts:
    """How often each occurs."""
    counts = Counter(decisions)
    return Counts(counts["reproduced"], counts["contradicted"], counts["undecided"])


def controls_of(verdicts: Iterable[Verdict]) -> Counts:
    """How many controls passed, failed, and had too little power to do either."""
    return counts_of(verdict.verdict for verdict in verdicts if verdict.control)


def control_word(verdict: str) -> str:
    """``passed``, ``failed`` or ``underpowered``; what is no verdict stays."""
    return CONTROL_WORDS.get(verdict, verdict)


def failed_controls(verdicts: Iterable[Verdict]) -> list[str]:
    """The labels of the controls that failed."""
    return [v.claim for v in verdicts if v.control and v.verdict == "contradicted"]


def tally(verdicts: Sequence[Verdict]) -> str:
    """The counts of an entry in a line: families, after Holm's correction, and controls."""
    families = families_of(verdicts)
    parts = []
    if families:
        parts.append(f"families: {counts_of(family.verdict for family in families).words}")
        adjusted = [family.adjusted for family in families if family.adjusted is not None]
        if adjusted:
            parts.append(f"after Holm's correction: {counts_of(adjusted).words}")
    if any(verdict.control for verdict in verdicts):
        parts.append(f"controls: {controls_of(verdicts).control_words}")
    return "; ".join(parts)


def p_text(p: float) -> str:
    """``p < 0.001``, or with three decimals."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"
