"""The tables of a report: each cell a mean, its interval and the n behind both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

from transferbench.report.formats import (
    ABSENT,
    grouped,
    number,
    percent,
    signed_percent,
    significant,
)
from transferbench.report.summaries import Aggregate, Summary

__all__ = [
    "Cell",
    "Table",
    "WriteCell",
    "bounds_text",
    "count_cell",
    "decimal_cell",
    "exact_cell",
    "fraction_cell",
    "percent_cell",
    "points_cell",
]

LONG_FLAG = 60
SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Cell:
    """One field of a table: its text, and in smaller type the interval or a remark."""

    text: str
    detail: str = ""
    kind: Literal["label", "number", "flag", "text"] = "label"


@dataclass(frozen=True)
class Table:
    """Rows under heads; ``note`` says how the numbers were made."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


WriteCell: TypeAlias = Callable[[Aggregate | None], Cell]


def bounds_text(summary: Summary, write: Callable[[float], str]) -> str:
    """The interval in brackets and the number of replicates, or source networks, behind it."""
    counted = f"n{SPACE}{summary.n}{f'{SPACE}networks' if summary.over_networks else ''}"
    if summary.low is None or summary.high is None:
        return f"no interval, {counted}"
    return f"[{write(summary.low)}, {write(summary.high)}] {counted}"


def _cell(
    value: Aggregate | None,
    write: Callable[[float], str],
    write_bound: Callable[[float], str] | None = None,
) -> Cell:
    if value is None:
        return Cell(ABSENT, "not measured", kind="number")
    if value.summary is None:
        return Cell(ABSENT, _short(value.flags), kind="number")
    text, detail = write(value.summary.mean), bounds_text(value.summary, write_bound or write)
    if value.missing:
        detail += f"; {value.missing} missing: {_short(value.flags)}"
    elif value.flags:
        text += "*"
    return Cell(text, detail, kind="number")


def _short(flags: Sequence[str]) -> str:
    first = flags[0] if flags else "no value"
    if len(first) <= LONG_FLAG:
        return first
    return first[: LONG_FLAG - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


percent_cell = partial(_cell, write=percent)
"""A fraction in percent."""


def fraction_cell(value: Aggregate | None) -> Cell:
    """A fraction that lies between 0 and 1, in percent; its interval is cut there.

    The truth is not beyond, so that what is cut off takes no coverage away.
    """
    summary = value.summary if value else None
    if value is not None and summary is not None and summary.low is not None:
        low, high = max(summary.low, 0.0), min(summary.bounds[1], 1.0)
        value = value._replace(summary=replace(summary, low=low, high=high))
    return percent_cell(value)


points_cell = partial(_cell, write=signed_percent, write_bound=percent)
"""A difference of fractions in percentage points, with its sign."""

exact_cell = partial(_cell, write=significant)
"""Three significant digits of a number of unknown size."""


def decimal_cell(value: Aggregate | None, digits: int = 3) -> Cell:
    """A fixed number of decimals."""
    return _cell(value, partial(number, digits=digits))


def count_cell(value: Aggregate | None) -> Cell:
    """A count; one that all replicates agree on needs no interval."""
    summary = value.summary if value else None
    if summary is not None and summary.bounds == (summary.mean, summary.mean):
        return Cell(grouped(summary.mean), f"n{SPACE}{summary.n}", kind="number")
    return decimal_cell(value, 1)
