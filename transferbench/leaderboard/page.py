"""A board as one HTML page: readable without JavaScript, and without external files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined

from transferbench.leaderboard.profile import Profile
from transferbench.leaderboard.table import BoardTable, Row, cell_text

__all__ = ["page"]

HEADING = {"entries": "entry", "initializations": "initialization"}
"""The column that names a row."""

# Pixels of the drawings in a row.
WIDTH, HEIGHT, PAD = 120, 34, 6


def page(table: BoardTable, submissions: str) -> str:
    """The page; ``submissions`` is the relative path from it to the folder of submissions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = resources.files(__package__).joinpath("board.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        table=table,
        submissions=submissions,
        heading=HEADING[table.ranks],
        profiles=any(row.profile for row in table.rows),
        cell_text=cell_text,
        pixels=_score_axis(table.rows),
        points=_points,
        profile_title=_profile_title,
        width=WIDTH,
        height=HEIGHT,
        middle=HEIGHT / 2,
    )


def _score_axis(rows: Sequence[Row]) -> Callable[[float], float]:
    """Scores to pixels, from the lowest bound of any row to the highest."""
    ends = [v for row in rows for v in row.cells["score"] if isinstance(v, float)]
    low, high = min([0.0, *ends]), max([1.0, *ends])
    return lambda score: round(PAD + (score - low) / (high - low) * (WIDTH - 2 * PAD), 1)


def _profile_title(profile: Profile, arms: tuple[str, str]) -> str:
    return "; ".join(
        f"{label}: {arms[0]} {first:.3f}, {arms[1]} {second:.3f}"
        for label, first, second in zip(*profile, strict=True)
    )


def _points(values: Sequence[float]) -> str:
    """The points of an SVG polyline."""
    step = (WIDTH - 2 * PAD) / (len(values) - 1)
    # Fractions, from 0 at the bottom to 1 at the top.
    heights = [HEIGHT - PAD - value * (HEIGHT - 2 * PAD) for value in values]
    return " ".join(f"{PAD + k * step:.1f},{y:.1f}" for k, y in enumerate(heights))
