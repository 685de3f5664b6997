"""What of a row was computed again from the submission, and what is the submitter's word."""

from __future__ import annotations

from transferbench.leaderboard.scores import Candidate
from transferbench.submission.origins import Origin
from transferbench.suite import TRIAL, Claim
from transferbench.suite.columns import columns_of

__all__ = ["claim_origins", "origin_text"]

FACTS = ("parameters", "pre-training")
"""Titles of columns of an entry's own facts."""


def origin_text(candidate: Candidate) -> str | None:
    """The columns and the number of claims that do not follow from the predictions alone.

    ``derived: speed gain, 2 claims; reported: parameters, 1 claim``. None where nothing is known.
    """
    origins = candidate.origins
    if origins is None:
        return None
    scoring = candidate.suite.scoring
    quantities = [("score", TRIAL, scoring.metric)]
    quantities += [(column.title, column.diagnostic, column.metric)
              for column in columns_of(candidate.suite)]  # fmt: skip
    claims = claim_origins(candidate)
    parts = []
    for origin in ("derived", "reported"):
        titles = [title for title, *quantity in quantities if origins.of(*quantity) == origin]
        own = [label for label, of_claim in claims.items() if of_claim == origin]
        if origin == "reported" and scoring.ranks == "entries":
            titles += FACTS
        if scoring.ranks == "entries" and own:
            titles.append(f"{len(own)} claim{'s' if len(own) > 1 else ''}")
        if titles:
            parts.append(f"{origin}: {', '.join(dict.fromkeys(titles))}")
    return "; ".join(parts) or None


def claim_origins(candidate: Candidate) -> dict[str, Origin]:
    """The origin of the verdict on each claim, controls too; empty where nothing is known."""
    suite, origins = candidate.bundle.plan.suite, candidate.origins
    if origins is None:
        return {}
    former = {verdict.claim for verdict in candidate.bundle.verdicts if verdict.lacks_all_p}
    return {
        label: "reported" if label in former and _has_former_bounds(claim)
        else origins.of_claim(claim)
        for label, claim in suite.claims.items()
    }  # fmt: skip


def _has_former_bounds(claim: Claim) -> bool:
    """Whether an earlier version had another interval for it, which is not computed again."""
    return bool(claim.order or claim.along or claim.relative_to)
