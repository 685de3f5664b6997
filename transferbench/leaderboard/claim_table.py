"""The claims of a suite, judged on every entry of its board: one row a claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from transferbench.claims import Verdict
from transferbench.leaderboard.table import EN_DASH, MINUS, csv_text, markdown_table

__all__ = ["Verdicts", "claims_as_csv", "claims_as_markdown"]

Verdicts = Mapping[str, Sequence[Verdict]]
"""By entry, those of the board in its order."""

FIELDS = ("claim", "statement", "source", "control", "verdict", "effect", "low", "high", "n",
          "interval", "unit", "relation", "threshold", "reason")  # fmt: skip

HOW = (
    "An effect stands with its 95% interval: the jackknife over replicates, which is the paired "
    "Student-t where every value belongs to one network; for a share Fieller's; for a rank "
    "correlation (Kendall's tau) that of the pairs of levels in order. *Reproduced*: the whole "
    "interval lies where the claim says; *contradicted*: the whole of it lies elsewhere; "
    "*undecided*: neither. Older submissions give shares and rank correlations (Spearman's) the "
    "jackknife's interval: one without width says that no replicate left out changes the value, "
    "not that it is certain. "
    "Controls are judged in the same way. Reasons, units and methods: `claims.csv`."
)


def claims_as_markdown(board: str, verdicts: Verdicts, escape: Callable[[str], str]) -> str:
    """The claims as a GitHub page; ``escape`` makes text safe in it."""
    by_claim = [{v.claim: v for v in of_entry} for of_entry in verdicts.values()]
    rows = [
        [
            escape(claim) + (" (control)" if example.control else ""),
            escape(f"{example.statement}: {_predicate(example)}"),
            *(_cell(of_entry.get(claim), escape) for of_entry in by_claim),
        ]
        for claim, example in _claims(verdicts).items()
    ]
    heads = ["claim", "what it says", *map(escape, verdicts)]
    return f"# Claims of {board}\n\n{HOW}\n\n{markdown_table(rows, heads)}\n"


def claims_as_csv(verdicts: Verdicts) -> str:
    """The claims at full precision, one row for each claim of each entry."""
    rows = [
        [entry, *(getattr(verdict, field) for field in FIELDS)]
        for entry, of_entry in verdicts.items()
        for verdict in of_entry
    ]
    return csv_text([["entry", *FIELDS], *rows])


def _claims(verdicts: Verdicts) -> dict[str, Verdict]:
    """A verdict on each claim, in the order of the entry with most claims, then of the others."""
    by_claim: dict[str, Verdict] = {}
    for of_entry in sorted(verdicts.values(), key=len, reverse=True):
        for verdict in of_entry:
            by_claim.setdefault(verdict.claim, verdict)
    return by_claim


def _predicate(verdict: Verdict) -> str:
    sign = {"above": "> ", "below": "< ", "within": "within \N{PLUS-MINUS SIGN}"}[verdict.relation]
    return f"{sign}{verdict.threshold:g} {verdict.unit}"


def _cell(verdict: Verdict | None, escape: Callable[[str], str]) -> str:
    if verdict is None:
        return EN_DASH
    if verdict.effect is None or verdict.low is None or verdict.high is None:
        return escape(verdict.verdict)
    bounds = f"{_signed(verdict.effect)} [{_signed(verdict.low)}, {_signed(verdict.high)}]"
    return f"**{escape(verdict.verdict)}** {escape(bounds)}"


def _signed(value: float) -> str:
    return f"{value:+,.3f}".replace("-", MINUS)
