"""The one table behind every format of a board: columns, rows and the notes that explain them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tabulate import tabulate

from transferbench.claims import Verdict
from transferbench.leaderboard.profile import Profile

__all__ = [
    "BoardCell",
    "BoardTable",
    "CellKind",
    "Column",
    "Row",
    "Unranked",
    "UnrankedStatus",
    "as_json",
    "cell_text",
    "csv_text",
    "field_names",
    "flat_row",
    "markdown_table",
    "signed",
]

CellKind = Literal["text", "count", "interval", "rank", "claims", "controls"]
UnrankedStatus = Literal["incomplete", "refused", "superseded", "withdrawn"]
Scalar: TypeAlias = str | int | float | None
BoardCell: TypeAlias = tuple[Scalar, ...]
"""As many values as the column's kind has fields; a first value of None: not measured."""

FIELDS: Mapping[CellKind, tuple[str, ...]] = {
    "text": ("",),
    "count": ("",),
    "interval": ("", "_low", "_high"),
    "rank": ("", "_low", "_high"),
    "claims": ("_reproduced", "_contradicted", "_undecided"),
    "controls": ("_passed", "_failed", "_underpowered"),
}
"""Suffixes of a column's key, one for each value of a cell."""

FORMULA = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
           "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
"""How a formula begins in spreadsheets."""

EN_DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

SHORT_ID = 10
"""Characters of a submission's id that a table shows."""


@dataclass(frozen=True)
class Column:
    """``help`` says what the column holds, in one sentence with its unit.

    ``terminal``: whether a terminal shows it, which has room for few columns.
    """

    key: str
    title: str
    kind: CellKind
    help: str
    terminal: bool = False


@dataclass(frozen=True)
class Row:
    """A ranked entry, or initialization; ``folder``: its submission, below that of submissions."""

    cells: Mapping[str, BoardCell]
    folder: str
    profile: Profile | None


@dataclass(frozen=True)
class Unranked:
    """A submission that is not ranked, and why."""

    entry: str
    submission: str
    status: UnrankedStatus
    why: str


@dataclass(frozen=True)
class BoardTable:
    """A suite's board: every format is written from this and nothing else.

    ``flags``: warnings. ``notes``: how to read the numbers. ``ranks``: what a row is.
    ``verdicts``: on the suite's claims, by entry, best first. ``scope``: what all of it holds for.
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
    scope: tuple[str, ...] = ()


def field_names(column: Column) -> list[str]:
    """The names of a cell's values in flat formats: ``score``, ``score_low``, ``score_high``."""
    return [column.key + suffix for suffix in FIELDS[column.kind]]


def flat_row(table: BoardTable, row: Row) -> dict[str, Scalar]:
    """The values of a row by their names in flat formats."""
    return {
        name: value
        for column in table.columns
        for name, value in zip(field_names(column), row.cells[column.key], strict=True)
    }


def cell_text(column: Column, cell: BoardCell) -> str:
    """A cell as text with three decimals; a dash for a missing value."""
    first = cell[0]
    if first is None:
        return EN_DASH
    if column.kind == "interval":
        return f"{_decimal(first)} [{_decimal(cell[1])}, {_decimal(cell[2])}]"
    if column.kind == "rank":
        return f"{first} ({cell[1]}{EN_DASH}{cell[2]})" if cell[1] != cell[2] else str(first)
    if column.kind in {"claims", "controls"}:
        return "/".join(map(str, cell))
    return f"{first:,}" if isinstance(first, int) else str(first)


def _decimal(value: Scalar) -> str:
    # A minus sign, not a hyphen, so that columns line up and nothing reads as a range.
    return "?" if value is None else f"{value:.3f}".replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A value with its sign and three decimals, or so many."""
    return f"{value:+,.{digits}f}".replace("-", MINUS)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file, of which no cell is a formula to a spreadsheet."""
    buffer = io.StringIO()
    inert = ([_inert(value) for value in row] for row in rows)
    csv.writer(buffer, lineterminator="\n").writerows(inert)
    return buffer.getvalue()


def _inert(value: object) -> object:
    """A value that no spreadsheet runs; text that it would is marked as text by an apostrophe."""
    if not isinstance(value, str):
        return value
    is_formula = value.startswith(("\t", "\r", "\n")) or value.lstrip().startswith(FORMULA)
    return f"'{value}" if is_formula else value


def markdown_table(rows: Iterable[Sequence[object]], heads: Sequence[str]) -> str:
    """Rows of escaped text as a table of a GitHub page."""
    return tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)


def as_json(table: BoardTable) -> dict[str, Any]:
    """The table in JSON's types, full precision."""
    return {
        "board": table.board,
        "suite": table.suite,
        "summary": table.summary,
        "columns": [
            {"key": column.key, "title": column.title, "kind": column.kind, "help": column.help,
             "fields": field_names(column)}
            for column in table.columns
        ],
        "rows": [
            flat_row(table, row)
            | {"folder": row.folder, "profile": row.profile and row.profile._asdict()}
            for row in table.rows
        ],
        "unranked": [vars(row) for row in table.unranked],
        "flags": list(table.flags),
        "scope": list(table.scope),
        "notes": list(table.notes),
    }  # fmt: skip
