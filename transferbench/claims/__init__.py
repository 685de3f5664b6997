"""Claims of a suite, judged by what was measured."""

from __future__ import annotations

from transferbench.claims.bounds import bracketed
from transferbench.claims.equal import EQUAL_PREDICTIONS, EqualTrials, TrialKey, equal_trials
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
from transferbench.claims.pilots import (
    PlannedClaim,
    claim_power,
    pilot_of,
    planned_claims,
    replicates_needed,
)
from transferbench.claims.scope import image_counts, scope_of
from transferbench.claims.verdicts import Decision, Verdict, judge, judge_by_jackknife

__all__ = [
    "EQUAL_PREDICTIONS",
    "Counts",
    "Decision",
    "EqualTrials",
    "Family",
    "PlannedClaim",
    "TrialKey",
    "Verdict",
    "bracketed",
    "claim_power",
    "control_word",
    "controls_of",
    "counts_of",
    "equal_trials",
    "failed_controls",
    "families_of",
    "family_of",
    "image_counts",
    "judge",
    "judge_by_jackknife",
    "p_text",
    "pilot_of",
    "planned_claims",
    "replicates_needed",
    "scope_of",
    "tally",
]
