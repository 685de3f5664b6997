"""A board in every format: markdown, CSV, JSON, LaTeX, HTML, and the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from transferbench.files import json_text, write_text
from transferbench.leaderboard.claim_table import claims_as_csv, claims_as_markdown
from transferbench.leaderboard.page import page
from transferbench.leaderboard.table import (
    EN_DASH,
    MINUS,
    BoardTable,
    Column,
    as_json,
    cell_text,
    csv_text,
    field_names,
    flat_row,
    markdown_table,
)
from transferbench.streams import printable

__all__ = ["as_csv", "as_latex", "as_markdown", "show", "write_board", "write_index"]

UNRANKED = ("entry", "submission", "status", "why")
LINKED = {"html": "index.html", "csv": "board.csv", "json": "board.json", "tex": "board.tex"}
FOOTER = """\
Each suite's MAJOR version has its own board; numbers of two boards do not compare.
Written by `transferbench leaderboard build`; change the submissions, not these files."""


def write_board(table: BoardTable, submissions: Path, folder: Path) -> list[Path]:
    """Write every format of one board into ``folder``; returns the files."""
    root = Path(os.path.relpath(submissions, folder)).as_posix()
    contents = {
        "board.md": as_markdown(table),
        "board.csv": as_csv(table),
        "board.json": json_text(as_json(table)),
        "board.tex": as_latex(table),
        "index.html": page(table, root),
    }
    if table.verdicts:
        contents["claims.md"] = claims_as_markdown(
            table.board, table.verdicts, _markdown, table.scope
        )
        contents["claims.csv"] = claims_as_csv(table.verdicts)
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def write_index(
    tables: Sequence[BoardTable], left_out: Sequence[str], out: Path, *, site: bool = False
) -> Path:
    """Write the page that links every board; ``left_out``: a sentence on each other folder.

    ``site``: link the site, too.
    """
    rows = [
        [
            f"[{table.board}]({table.board}/board.md)",
            _markdown(table.summary),
            len({row.folder for row in table.rows}),
            " · ".join(f"[{kind}]({table.board}/{name})" for kind, name in LINKED.items()),
        ]
        for table in tables
    ]
    heads = ["board", "suite", "entries", "formats"]
    listed = markdown_table(rows, heads) if rows else "There is no submission yet."
    parts = [
        "# Leaderboards",
        *(["As pages to read: open [site/index.html](site/index.html)."] if site else []),
        listed,
        *(f"Not read: {_markdown(why)}." for why in left_out),
        FOOTER,
    ]
    path = out / "README.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def as_markdown(table: BoardTable) -> str:
    """The board as a GitHub page."""
    parts = [f"# {table.board}", _markdown(table.summary)]
    parts += [f"**{_markdown(flag)}**" for flag in table.flags]
    if table.rows:
        parts.append(_tabulated(table, table.columns, "pipe", _markdown))
    else:
        parts.append("No entry is ranked yet.")
    if table.verdicts:
        parts.append("[Every claim on every entry](claims.md)")
    if table.unranked:
        rows = [[_markdown(getattr(row, key)) for key in UNRANKED] for row in table.unranked]
        parts += ["## Not ranked", markdown_table(rows, UNRANKED)]
    if table.scope:
        parts += ["## Scope", "\n".join(f"- {_markdown(line)}" for line in table.scope)]
    parts += ["## How to read it", "\n".join(f"- {_markdown(note)}" for note in table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(table: BoardTable) -> str:
    """The ranked rows at full precision, an interval as three columns."""
    heads = [name for column in table.columns for name in field_names(column)]
    return csv_text([heads, *(flat_row(table, row).values() for row in table.rows)])


def as_latex(table: BoardTable) -> str:
    """The ranked rows as a LaTeX table; its preamble needs the booktabs package."""
    body = _tabulated(table, table.columns, "latex_booktabs", _one_line)
    # tabulate escapes the rest; these characters are beyond what plain LaTeX reads.
    for character, command in ((MINUS, "$-$"), (EN_DASH, "--")):
        body = body.replace(character, command)
    notes = "\n".join(f"% {_one_line(note)}" for note in (*table.flags, *table.scope, *table.notes))
    return f"% {table.board}\n{body}\n{notes}\n"


def show(board: BoardTable) -> str:
    """The board for a terminal: the columns that fit, and what is not ranked."""
    columns = [column for column in board.columns if column.terminal]
    parts = [f"{board.board}  {board.summary}".rstrip(), *board.flags]
    parts.append(
        _tabulated(board, columns, "simple", _one_line) if board.rows else "No entry is ranked yet."
    )
    parts += [f"{row.status}: {row.entry} {row.submission}: {row.why}" for row in board.unranked]
    return "\n\n".join(parts)


def _tabulated(
    table: BoardTable, columns: Sequence[Column], style: str, escape: Callable[[str], str]
) -> str:
    rows = [
        [escape(cell_text(column, row.cells[column.key])) for column in columns]
        for row in table.rows
    ]
    align = ["right" if column.kind in {"count", "rank"} else "left" for column in columns]
    heads = [escape(column.title) for column in columns]
    return tabulate(rows, heads, tablefmt=style, colalign=align, disable_numparse=True)


def _one_line(value: str) -> str:
    return printable(" ".join(value.split()))


def _markdown(value: str) -> str:
    """Text with the special characters of markdown escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", _one_line(value))
