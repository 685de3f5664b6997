"""Claims of a suite, judged by what was measured."""

from __future__ import annotations

from transferbench.claims.families import (
    Counts,
    Family,
    controls_of,
    counts_of,
    families_of,
    family_of,
)
from transferbench.claims.verdicts import Decision, Verdict, judge

__all__ = [
    "Counts",
    "Decision",
    "Family",
    "Verdict",
    "controls_of",
    "counts_of",
    "families_of",
    "family_of",
    "judge",
]
