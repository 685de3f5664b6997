"""A board as one HTML page: a real table that reads without JavaScript and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from transferbench.leaderboard.profile import Profile
from transferbench.leaderboard.table import BoardTable, Column, Row, cell_text

__all__ = ["page"]

HEADING = {"entries": "entry", "initializations": "initialization"}
"""The column that names a row."""

# Pixels of the drawings in a row.
WIDTH, HEIGHT, PAD = 120, 34, 6


class ScoreBar(NamedTuple):
    """A score between its bounds, on the axis that all rows share; lengths in pixels."""

    low: float | None
    high: float | None
    value: float
    chance: float | None
    reference: float | None


class ProfileLines(NamedTuple):
    """Both arms of a profile as points of SVG polylines."""

    pretrained: str
    baseline: str
    title: str


class PageCell(NamedTuple):
    """A cell as the page shows it; ``sort`` orders a column by number or by text."""

    column: Column
    text: str
    value: str
    bounds: str
    sort: str


class PageRow(NamedTuple):
    """A row as the page shows it."""

    cells: Sequence[PageCell]
    folder: str
    bar: ScoreBar
    lines: ProfileLines | None


def page(table: BoardTable, submissions: str) -> str:
    """The page; ``submissions`` is the relative path from it to the folder of submissions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = resources.files(__package__).joinpath("board.html.j2").read_text(encoding="utf-8")
    scale = _ScoreScale(table.rows)
    rows = [_page_row(table, row, scale) for row in table.rows]
    return environment.from_string(source).render(
        table=table,
        rows=rows,
        submissions=submissions,
        heading=HEADING[table.ranks],
        profiles=any(row.lines for row in rows),
        width=WIDTH,
        height=HEIGHT,
        middle=HEIGHT / 2,
    )


class _ScoreScale:
    """Scores to pixels, from the lowest bound of any row to the highest."""

    def __init__(self, rows: Sequence[Row]) -> None:
        ends = [v for row in rows for v in row.cells["score"] if isinstance(v, float)]
        self.low, self.high = min([0.0, *ends]), max([1.0, *ends])

    def __call__(self, value: object) -> float | None:
        if not isinstance(value, float):
            return None
        share = (value - self.low) / (self.high - self.low)
        return round(PAD + share * (WIDTH - 2 * PAD), 1)


def _page_row(table: BoardTable, row: Row, scale: _ScoreScale) -> PageRow:
    value, low, high = row.cells["score"]
    bar = ScoreBar(scale(low), scale(high), scale(value) or 0.0, scale(0.0), scale(1.0))
    return PageRow(
        cells=[_page_cell(column, row) for column in table.columns],
        folder=row.folder,
        bar=bar,
        lines=row.profile and _lines(row.profile, table.arms),
    )


def _page_cell(column: Column, row: Row) -> PageCell:
    cell = row.cells[column.key]
    text = cell_text(column, cell)
    value, _, bounds = (
        text.partition(" ") if column.kind in {"interval", "rank"} else (text, "", "")
    )
    sort = "" if cell[0] is None else str(cell[0])
    return PageCell(column, text, value, bounds, sort)


def _lines(profile: Profile, arms: tuple[str, str]) -> ProfileLines:
    title = "; ".join(
        f"{label}: {arms[0]} {first:.3f}, {arms[1]} {second:.3f}"
        for label, first, second in zip(*profile, strict=True)
    )
    return ProfileLines(_points(profile.pretrained), _points(profile.baseline), title)


def _points(values: Sequence[float]) -> str:
    step = (WIDTH - 2 * PAD) / (len(values) - 1)
    # Fractions, from 0 at the bottom to 1 at the top.
    heights = [HEIGHT - PAD - value * (HEIGHT - 2 * PAD) for value in values]
    return " ".join(f"{PAD + k * step:.1f},{y:.1f}" for k, y in enumerate(heights))
