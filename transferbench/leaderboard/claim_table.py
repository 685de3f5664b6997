"""The claims of a suite, judged on every entry of its board: one row a claim, by families."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from transferbench.claims import (
    Family,
    Verdict,
    bracketed,
    control_word,
    controls_of,
    counts_of,
    families_of,
    family_of,
)
from transferbench.leaderboard.table import EN_DASH, csv_text, markdown_table, signed

__all__ = ["Verdicts", "claims_as_csv", "claims_as_markdown", "predicate"]

Verdicts = Mapping[str, Sequence[Verdict]]
"""By entry, those of the board in its order."""

FIELDS = ("claim", "statement", "source", "control", "verdict", "effect", "low", "high", "n",
          "interval", "covers", "unit", "relation", "threshold", "p_reproduced", "p_contradicted",
          "flags", "reason")  # fmt: skip
MEMBER = "\N{MIDDLE DOT}"
"""Before a claim that stands beneath its family."""
OF_FAMILY = ("family_verdict", "family_p", "family_adjusted_p", "family_adjusted_verdict")

HOW = (
    "An effect stands with its 95% interval: Student-t over replicates (of pairs of networks by "
    "the jackknife), with a wider quantile where one arm varies most or no range is known, and "
    "further from the near end of a range; for a share Fieller's, from these; for a rank "
    "correlation (Kendall's tau) that of the pairs of levels in order. Where arms start from "
    "several source networks, all replicates of one are left out at once: the interval covers "
    "what another pre-training would change. *Given P*: it does not, since the replicates start "
    "from one source network, as they do in older submissions, which do not say it in each cell. "
    "No interval covers other test images than the suite's. *Reproduced*: the whole interval lies "
    "where the claim says; *contradicted*: the whole of it lies elsewhere; *undecided*: neither. "
    "A claim of the paper is a family of claims: reproduced where all of them are, contradicted "
    "where one is. Its p-value is that of all of them (the largest), or of one of them failing "
    "(the smallest times their number); *adjusted* by Holm's correction over the families of an "
    "entry. Older submissions have no p-values, and give shares and rank correlations "
    "(Spearman's) the jackknife's interval: one without width says that no replicate left out "
    "changes the value, not that it is certain. A control is judged in the same way, *within* a "
    "margin by two one-sided tests at 2.5%; it *passed*, *failed*, or was *underpowered* where it "
    "is undecided. Reasons, units and methods: `claims.csv`."
)


def claims_as_markdown(
    board: str, verdicts: Verdicts, escape: Callable[[str], str], scope: Sequence[str] = ()
) -> str:
    """The claims as a GitHub page; ``escape`` makes text safe in it, ``scope`` is its statement."""
    families = {entry: families_of(of_entry) for entry, of_entry in verdicts.items()}
    counts = markdown_table(
        [
            [escape(entry), *_counts(families[entry], of_entry)]
            for entry, of_entry in verdicts.items()
        ],
        ["entry", "families: reproduced/contradicted/undecided", "after Holm's correction",
         "controls: passed/failed/underpowered"],
    )  # fmt: skip
    rows = [[cell.written(escape) for cell in row] for row in _rows(verdicts, families)]
    heads = ["claim", "what it says", *map(escape, verdicts)]
    claims = markdown_table(rows, heads)
    stated = "\n".join(f"- {escape(line)}" for line in scope)
    return "\n\n".join(filter(None, (f"# Claims of {board}", stated, HOW, counts, claims))) + "\n"


def claims_as_csv(verdicts: Verdicts) -> str:
    """The claims at full precision, one row for each claim of each entry, with its family's."""
    rows: list[Sequence[object]] = []
    for entry, of_entry in verdicts.items():
        by_name = {family.name: family for family in families_of(of_entry)}
        for verdict in of_entry:
            name = _family_name(verdict)
            family = by_name.get(name)
            facts = (family.verdict, family.p, family.adjusted_p, family.adjusted) if family else ()
            fields = verdict.model_dump() | {"flags": ", ".join(verdict.flags)}
            rows.append([entry, name, *(fields[field] for field in FIELDS),
                         *(facts or [None] * len(OF_FAMILY))])  # fmt: skip
    return csv_text([["entry", "family", *FIELDS, *OF_FAMILY], *rows])


def _counts(families: Sequence[Family], verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "/".join(map(str, counts_of(family.verdict for family in families)))
    adjusted = [family.adjusted for family in families if family.adjusted is not None]
    yield "/".join(map(str, counts_of(adjusted))) if adjusted else EN_DASH
    yield "/".join(map(str, controls_of(verdicts)))


def _family_name(verdict: Verdict) -> str:
    """Of a control: its own, since controls are in no family."""
    if verdict.control:
        return "control"
    return family_of(verdict.claim, verdict.family, verdict.source)


# --- the rows of the page ---------------------------------------------------------------------


class _Cell(NamedTuple):
    """Text of which the first part is strong."""

    strong: str
    plain: str = ""

    def written(self, escape: Callable[[str], str]) -> str:
        parts = (f"**{escape(self.strong)}**" if self.strong else "", escape(self.plain))
        return " ".join(filter(None, parts))


def _rows(verdicts: Verdicts, families: Mapping[str, Sequence[Family]]) -> Iterator[list[_Cell]]:
    """Label, text and a cell for each entry: a family, its claims beneath; controls at the end."""
    by_claim = [{v.claim: v for v in of_entry} for of_entry in verdicts.values()]
    by_name = [{family.name: family for family in own} for own in families.values()]
    members: dict[str, list[Verdict]] = {}
    for example in sorted(_claims(verdicts.values()).values(), key=lambda v: v.control):
        members.setdefault(_family_name(example), []).append(example)
    for name, own in members.items():
        of_entries = [of_entry.get(name) for of_entry in by_name]
        is_head = len(own) > 1 and not own[0].control
        if is_head:
            yield [_Cell(name), _Cell("", f"{len(own)} claims, all of which must hold"),
                   *map(_family_cell, of_entries)]  # fmt: skip
        for example in own:
            cells = [_cell(of_entry.get(example.claim)) for of_entry in by_claim]
            if not is_head:
                cells = list(map(_with_p, cells, of_entries))
            text = f"{example.statement}: {predicate(example)}"
            yield [_Cell("", _label(example, name, is_member=is_head)), _Cell("", text), *cells]


def _label(verdict: Verdict, family: str, *, is_member: bool) -> str:
    """The label of a claim, beneath its family or with it."""
    if is_member:
        return f"{MEMBER} {verdict.claim}"
    return verdict.claim if family == verdict.claim else f"{verdict.claim} ({family})"


def _claims(verdicts: Iterable[Sequence[Verdict]]) -> dict[str, Verdict]:
    """A verdict on each claim, in the order of the entry with most claims, then of the others."""
    by_claim: dict[str, Verdict] = {}
    for of_entry in sorted(verdicts, key=len, reverse=True):
        for verdict in of_entry:
            by_claim.setdefault(verdict.claim, verdict)
    return by_claim


def predicate(verdict: Verdict) -> str:
    """Where the effect of a claim must lie: ``> 0 fraction``."""
    sign = {"above": "> ", "below": "< ", "within": "within \N{PLUS-MINUS SIGN}"}[verdict.relation]
    return f"{sign}{verdict.threshold:g} {verdict.unit}"


def _family_cell(family: Family | None) -> _Cell:
    return _with_p(_Cell(family.verdict), family) if family else _Cell("", EN_DASH)


def _with_p(cell: _Cell, family: Family | None) -> _Cell:
    words = family.p_words if family else ""
    return cell._replace(plain="; ".join(filter(None, (cell.plain, words))))


def _cell(verdict: Verdict | None) -> _Cell:
    if verdict is None:
        return _Cell("", EN_DASH)
    word = control_word(verdict.verdict) if verdict.control else verdict.verdict
    flags = f" ({', '.join(verdict.flags)})" if verdict.flags else ""
    if verdict.effect is None or verdict.low is None or verdict.high is None:
        return _Cell("", word + flags)
    bounds = bracketed(verdict.low, verdict.high, signed)
    covers = f" {verdict.covers_text}" if verdict.covers else ""
    return _Cell(word, f"{signed(verdict.effect)} {bounds}{covers}{flags}")
