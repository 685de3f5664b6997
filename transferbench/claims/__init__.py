"""Claims of a suite, judged by what was measured."""

from __future__ import annotations

from transferbench.claims.families import (
    Counts,
    Family,
    control_word,
    controls_of,
    counts_of,
    failed_controls,
    families_of,
    family_of,
    p_text,
    tally,
)
from transferbench.claims.verdicts import Decision, Verdict, judge

__all__ = [
    "Counts",
    "Decision",
    "Family",
    "Verdict",
    "control_word",
    "controls_of",
    "counts_of",
    "failed_controls",
    "families_of",
    "family_of",
    "judge",
    "p_text",
    "tally",
]
