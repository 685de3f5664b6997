"""What is compared: arms and pairs of arms, in one order and one style in every part."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import pandas as pd

from transferbench.report.aggregates import ITSELF, Aggregate, Aggregates, difference_name
from transferbench.report.drawing import INK
from transferbench.report.panels import Dash, Series, pair_styles
from transferbench.report.parts.part import Scope
from transferbench.report.tables import Cell, Table
from transferbench.suite import SOURCE

__all__ = [
    "ARM",
    "PAIR",
    "Compared",
    "arms_in",
    "comparison",
    "difference_of",
    "pairs_in",
    "series_of",
]

ARM = ("initialization",)
PAIR = ("initialization", "other_initialization")


class Compared(NamedTuple):
    """An arm or a pair of arms; ``key`` begins the key of each of its aggregates."""

    key: tuple[str, ...]
    name: str
    color: str
    marker: str
    dash: Dash = "-"


def arms_in(rows: pd.DataFrame, scope: Scope) -> list[Compared]:
    """The arms that were measured: the scored pair first, the source itself last."""
    seen, styles = set(rows[ARM[0]]), scope.styles()
    known = dict.fromkeys([*scope.pair, *scope.suite.initializations, SOURCE])
    return [
        Compared((arm,), arm, styles[arm].color, styles[arm].marker, "--" if arm == SOURCE else "-")
        for arm in known
        if arm in seen
    ]


def pairs_in(rows: pd.DataFrame, scope: Scope) -> list[Compared]:
    """The pairs that were measured: two of one arm first, then two arms, then with the source.

    Last those of a network with itself, such as its best state with its final one.
    """
    arms = list(dict.fromkeys([*scope.pair, *scope.suite.initializations, SOURCE, ITSELF]))
    seen = set(zip(rows[PAIR[0]], rows[PAIR[1]], strict=True))
    known = [pair for pair in seen if pair[0] in arms and pair[1] in arms]

    def order(pair: tuple[str, str]) -> tuple[bool, bool, bool, int, int]:
        a, b = pair
        return b == ITSELF, SOURCE in pair, a != b, arms.index(a), arms.index(b)

    styles = pair_styles(sorted(known, key=order), scope.styles())
    return [Compared(pair, " & ".join(pair), *style) for pair, style in styles.items()]


def difference_of(scope: Scope) -> Compared:
    """The scored arm minus its baseline, as one more column."""
    name = difference_name(scope.pair)
    return Compared((name,), name, INK, "o")


def series_of(
    compared: Sequence[Compared],
    found: Aggregates,
    places: Sequence[tuple[Hashable, ...]],
    x: Sequence[float] | None = None,
) -> list[Series]:
    """A line for each of ``compared`` through its aggregates at ``places``."""
    series = []
    for one in compared:
        values = [found.get((*one.key, *place)) for place in places]
        summaries = [value.summary if value else None for value in values]
        if any(summaries):
            where = list(range(len(places))) if x is None else list(x)
            series.append(Series(one.name, where, summaries, one.color, one.marker, one.dash))
    return series


def comparison(
    head: Sequence[str],
    lines: Sequence[tuple[Sequence[str], tuple[Hashable, ...], Aggregates]],
    compared: Sequence[Compared],
    write: Callable[[Aggregate | None], Cell],
    note: str,
) -> Table | None:
    """A column for each of ``compared``; each line has labels, a place and where to look it up."""
    rows = []
    for labels, place, found in lines:
        values = [found.get((*one.key, *place)) for one in compared]
        if any(values):
            rows.append((*map(Cell, labels), *map(write, values)))
    names = (one.name for one in compared)
    return Table((*head, *names), tuple(rows), note) if rows else None
