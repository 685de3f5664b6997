"""What every board says about its own numbers."""

from __future__ import annotations

from collections.abc import Iterator

from transferbench.suite import Suite

__all__ = ["REPRODUCED_WITHIN", "flags_of", "notes_of"]

REPRODUCED_WITHIN = 0.01
"""How far the score of another party's run may lie for an entry to count as reproduced."""

INTERVALS = (
    "Intervals: 95%, Student-t over the n replicates; gains are paired by replicate. They cover the"
    " target replicates given P: P is one pre-trained network shared by all replicates of an entry,"
    " so what another pre-training run would change is not in them."
)
RANKS = (
    "Ranks: two entries are separated where their scores, paired by replicate, differ at the 5%"
    " level after Holm's correction over all pairs; entries that share a tie letter are not."
)
CLAIMS = (
    "Claims: reproduced/contradicted/undecided, each judged by a 95% interval; controls are not"
    " counted."
)
TRUST = (
    "Trust: reported (the submitter's word), recomputed (every test metric follows from the"
    " predictions that were handed in), reproduced (another named submitter's run of the entry has"
    f" the same score within {REPRODUCED_WITHIN})."
)
OVERLAP = (
    "Overlap of target images with the pre-training: yes, no or unknown; unknown is not clean."
)
ONCE = (
    "An entry stands once: its submission for the latest suite MINOR, of several the first by id."
    " The others are listed as superseded. An entry that lacks a score is never ranked."
)


def notes_of(suite: Suite, severe: str | None) -> tuple[str, ...]:
    """What a reader must know to read the numbers of a suite's board right."""
    return tuple(_notes(suite, severe))


def _notes(suite: Suite, severe: str | None) -> Iterator[str]:
    scoring = suite.scoring
    yield (
        f"Score: for each replicate the mean over {', '.join(scoring.chance)} of (value - chance) /"
        f" (reference - chance), where value is {scoring.metric} of {scoring.initialization} under"
        f" {scoring.perturbation}. Chance and reference are frozen in the suite."
    )
    yield INTERVALS
    yield RANKS
    if severe is not None:
        yield f"{severe} is the most severe perturbation of the suite's main family."
    if _equal_tuning(suite):
        yield f"Tuning budgets are equal: {_tuning(suite)}."
    yield from (CLAIMS, TRUST, OVERLAP, ONCE)


def flags_of(suite: Suite) -> tuple[str, ...]:
    """What a reader of a suite's board must not overlook."""
    if _equal_tuning(suite):
        return ()
    return (f"Unequal tuning budgets: {_tuning(suite)}. Gains favour the arm that was tuned more.",)


def _equal_tuning(suite: Suite) -> bool:
    scoring = suite.scoring
    return _budgets(suite, scoring.initialization) == _budgets(suite, scoring.baseline)


def _tuning(suite: Suite) -> str:
    arms = (suite.scoring.initialization, suite.scoring.baseline)
    told = " and ".join(f"{arm} best of {_budgets(suite, arm)}" for arm in arms)
    return f"the recipes are of {told} settings"


def _budgets(suite: Suite, arm: str) -> str:
    """How many settings each recipe of an arm was the best of."""
    use = suite.initializations[arm]
    recipes = (use.recipe, *use.recipes.values())
    return " or ".join(str(n) for n in sorted({suite.recipes[r].tuned_over for r in recipes}))
