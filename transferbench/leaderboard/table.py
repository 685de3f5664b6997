"""The one table behind every format of a board: columns, rows and the notes that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from transferbench.claims import Verdict
from transferbench.leaderboard.entry_scores import Profile, Standing
from transferbench.statistics import Interval, Rank
from transferbench.submission import Bundle
from transferbench.suite import Suite

__all__ = [
    "BoardTable",
    "Cell",
    "Column",
    "Kind",
    "Ranked",
    "Row",
    "Unranked",
    "as_json",
    "bounds",
    "columns_of",
    "field_names",
    "row_of",
    "text",
    "without_empty",
]

Kind = Literal["text", "count", "interval", "rank", "claims"]
Scalar: TypeAlias = str | int | float | None
Cell: TypeAlias = tuple[Scalar, ...]
"""As many values as the column's kind has fields; a first value of None: not measured."""

FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "text": ("",),
    "count": ("",),
    "interval": ("", "_low", "_high"),
    "rank": ("", "_low", "_high"),
    "claims": ("_reproduced", "_contradicted", "_undecided"),
}
"""What is appended to a column's key for each value of a cell."""

EN_DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

SHORT_ID = 10
"""How much of a submission's id a table shows."""


@dataclass(frozen=True)
class Column:
    """``help`` says what the column holds, in one sentence with its unit."""

    key: str
    title: str
    kind: Kind
    help: str


@dataclass(frozen=True)
class Row:
    """A ranked entry, or initialization; ``folder``: its submission, below that of submissions."""

    cells: Mapping[str, Cell]
    folder: str
    profile: Profile | None


@dataclass(frozen=True)
class Unranked:
    """A submission that is not ranked, and why."""

    entry: str
    submission: str
    status: Literal["incomplete", "refused", "superseded"]
    why: str


@dataclass(frozen=True)
class BoardTable:
    """A suite's board: every format is written from this and nothing else.

    ``flags`` are what must not be overlooked, ``notes`` what explains the numbers.
    ``ranks``: what a row is. ``verdicts``: on the suite's claims, by entry, best first.
    """

    board: str
    suite: str
    summary: str
    arms: tuple[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    unranked: tuple[Unranked, ...]
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    ranks: Literal["entries", "initializations"] = "entries"
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranked:
    """A submission with everything its row is made from."""

    bundle: Bundle
    standing: Standing
    rank: Rank
    trust: str
    folder: str


def field_names(column: Column) -> list[str]:
    """The names of a cell's values in flat formats: ``score``, ``score_low``, ``score_high``."""
    return [column.key + suffix for suffix in FIELDS[column.kind]]


def text(column: Column, cell: Cell) -> str:
    """A cell as a reader sees it, three digits; a dash where nothing was measured."""
    first = cell[0]
    if first is None:
        return EN_DASH
    if column.kind == "interval":
        return f"{_decimal(first)} [{_decimal(cell[1])}, {_decimal(cell[2])}]"
    if column.kind == "rank":
        return f"{first} ({cell[1]}{EN_DASH}{cell[2]})" if cell[1] != cell[2] else str(first)
    if column.kind == "claims":
        return "/".join(map(str, cell))
    return f"{first:,}" if isinstance(first, int) else str(first)


def _decimal(value: Scalar) -> str:
    # A minus sign, not a hyphen, so that columns line up and nothing reads as a range.
    return "?" if value is None else f"{value:.3f}".replace("-", MINUS)


def columns_of(suite: Suite, severe: str | None) -> tuple[Column, ...]:
    """The columns of a suite's board; what no entry measured is dropped later."""
    arm, baseline = suite.scoring.initialization, suite.scoring.baseline
    metric = suite.scoring.metric.replace("_", " ")
    return (
        Column("rank", "rank", "rank", "place by score, with its 95% interval"),
        Column("ties", "tie group", "text", "entries that share a letter are not separated"),
        Column("entry", "entry", "text", "the backbone"),
        Column("score", "score", "interval",
               "mean over the scoring targets; 0 is chance, 1 the frozen reference"),
        Column("replicates", "n", "count", "replicates behind every interval of the row"),
        Column("pretrained", arm, "interval", f"{metric} of {arm}, a fraction"),
        Column("baseline", baseline, "interval", f"{metric} of {baseline}, a fraction"),
        Column("gain", "gain", "interval", f"{metric} of {arm} minus {baseline}, paired"),
        Column("speed_gain", "speed gain", "interval",
               f"optimisation speed of {arm} minus {baseline}, paired, a fraction"),
        Column("severe_gain", f"gain, {severe}", "interval", f"gain under {severe}"),
        Column("severe_speed_gain", f"speed gain, {severe}", "interval",
               f"speed gain under {severe}"),
        Column("claims", "claims", "claims", "reproduced/contradicted/undecided"),
        Column("parameters", "parameters", "count", "of the network that is scored"),
        Column("pretraining", "pre-training", "text", "the suite's source, or external weights"),
        Column("overlap", "overlap", "text",
               "whether the targets' images were in the pre-training"),
        Column("trust", "trust", "text", "reported, recomputed or reproduced"),
        Column("submission", "submission", "text", "its id"),
    )  # fmt: skip


def row_of(ranked: Ranked) -> Row:
    """The row of one ranked submission."""
    bundle, standing, rank = ranked.bundle, ranked.standing, ranked.rank
    entry = bundle.submission.entry
    cells: dict[str, Cell] = {
        "rank": (rank.rank, rank.rank_low, rank.rank_high),
        "ties": (rank.tie_group,),
        "entry": (entry.name,),
        "score": bounds(standing.interval),
        "replicates": (len(standing.score),),
        "pretrained": bounds(standing.pretrained),
        "baseline": bounds(standing.baseline),
        "gain": bounds(standing.gain),
        "speed_gain": bounds(standing.speed_gain),
        "severe_gain": bounds(standing.severe_gain),
        "severe_speed_gain": bounds(standing.severe_speed_gain),
        "claims": standing.claims or (None, None, None),
        "parameters": (entry.parameters,),
        "pretraining": (_pretraining(bundle),),
        "overlap": (_overlap(bundle),),
        "trust": (ranked.trust,),
        "submission": (bundle.submission.id[:SHORT_ID],),
    }
    return Row(cells, ranked.folder, standing.profile)


def bounds(interval: Interval | None) -> Cell:
    """An interval as a cell."""
    if interval is None:
        return None, None, None
    return interval.value, interval.low, interval.high


def _pretraining(bundle: Bundle) -> str:
    weights = bundle.submission.entry.weights
    if weights is not None:
        return f"{weights.tag} ({weights.pretrained_on})"
    suite = bundle.plan.suite
    used = suite.initializations[suite.scoring.initialization].source
    return f"suite: {suite.sources[used].dataset.name}"


def _overlap(bundle: Bundle) -> str:
    """The declared overlap with the scoring targets: one word, or the targets of each."""
    declared = bundle.submission.declaration.overlap
    by_word: dict[str, list[str]] = {}
    for target in bundle.plan.suite.scoring.chance:
        by_word.setdefault(declared.get(target, "unknown"), []).append(target)
    if len(by_word) == 1:
        return next(iter(by_word))
    return "; ".join(f"{word}: {', '.join(targets)}" for word, targets in sorted(by_word.items()))


def without_empty(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns that at least one row has something in."""
    return tuple(
        column
        for column in columns
        if not rows or any(row.cells[column.key][0] is not None for row in rows)
    )


def as_json(table: BoardTable) -> dict[str, Any]:
    """The table in JSON's types, full precision."""
    return {
        "board": table.board,
        "suite": table.suite,
        "summary": table.summary,
        "columns": [vars(column) | {"fields": field_names(column)} for column in table.columns],
        "rows": [_json_row(table, row) for row in table.rows],
        "unranked": [vars(row) for row in table.unranked],
        "flags": list(table.flags),
        "notes": list(table.notes),
    }


def _json_row(table: BoardTable, row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for column in table.columns:
        flat |= zip(field_names(column), row.cells[column.key], strict=True)
    return flat | {"folder": row.folder, "profile": row.profile and row.profile._asdict()}
