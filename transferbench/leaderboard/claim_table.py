"""The claims of a suite, judged on every entry of its board: one row a claim."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from transferbench.claims import Verdict
from transferbench.leaderboard.table import EN_DASH, MINUS

__all__ = ["Verdicts", "claims_as_csv", "claims_as_markdown"]

Verdicts = Mapping[str, Sequence[Verdict]]
"""By entry, those of the board in its order."""

FIELDS = ("claim", "statement", "source", "control", "verdict", "effect", "low", "high", "n",
          "interval", "unit", "relation", "threshold", "reason")  # fmt: skip

HOW = (
    "An effect stands with its 95% interval: the jackknife over replicates, which is the paired "
    "Student-t where every value belongs to one network; for a share Fieller's (in older "
    "submissions the jackknife of the ratio). *Reproduced*: the whole interval lies where the "
    "claim says; *contradicted*: the whole of it lies elsewhere; *undecided*: neither. An interval "
    "without width says that no replicate left out changes the value, not that it is certain. "
    "Controls are judged in the same way. Reasons, units and methods: `claims.csv`."
)


def claims_as_markdown(board: str, verdicts: Verdicts, escape: Callable[[str], str]) -> str:
    """The claims as a GitHub page; ``escape`` makes text safe in it."""
    rows = [
        [
            escape(claim) + (" (control)" if told.control else ""),
            escape(f"{told.statement}: {_asked(told)}"),
            *(_cell(found.get(claim), escape) for found in _by_claim(verdicts).values()),
        ]
        for claim, told in _claims(verdicts).items()
    ]
    heads = ["claim", "what it says", *map(escape, verdicts)]
    listed = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)
    return f"# Claims of {board}\n\n{HOW}\n\n{listed}\n"


def claims_as_csv(verdicts: Verdicts) -> str:
    """The claims at full precision, one row for each claim of each entry."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["entry", *FIELDS])
    for entry, found in verdicts.items():
        for one in found:
            written = one.model_dump()
            writer.writerow([entry, *("" if written[k] is None else written[k] for k in FIELDS)])
    return buffer.getvalue()


def _by_claim(verdicts: Verdicts) -> dict[str, dict[str, Verdict]]:
    return {entry: {one.claim: one for one in found} for entry, found in verdicts.items()}


def _claims(verdicts: Verdicts) -> dict[str, Verdict]:
    """Every claim once, in the order of the entry that has most of them, then others' own."""
    found: dict[str, Verdict] = {}
    for judged in sorted(verdicts.values(), key=len, reverse=True):
        for one in judged:
            found.setdefault(one.claim, one)
    return found


def _asked(told: Verdict) -> str:
    sign = {"above": ">", "below": "<", "within": "within \N{PLUS-MINUS SIGN}"}[told.relation]
    between = "" if told.relation == "within" else " "
    return f"{sign}{between}{told.threshold:g} {told.unit}"


def _cell(found: Verdict | None, escape: Callable[[str], str]) -> str:
    if found is None:
        return EN_DASH
    if found.effect is None or found.low is None or found.high is None:
        return escape(found.verdict)
    bounds = f"{_signed(found.effect)} [{_signed(found.low)}, {_signed(found.high)}]"
    return f"**{escape(found.verdict)}** {escape(bounds)}"


def _signed(value: float) -> str:
    return f"{value:+,.3f}".replace("-", MINUS)
