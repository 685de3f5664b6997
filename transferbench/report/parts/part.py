"""What a part of a report is made of, and what the parts have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd
from markupsafe import Markup

from transferbench.report.aggregates import Aggregate, View, flag_notes, views_of
from transferbench.report.drawing import ArmStyle, arm_styles
from transferbench.report.formats import ABSENT, interval_text, number, significant
from transferbench.report.published import Published
from transferbench.report.summaries import Measured, Summary
from transferbench.report.tables import Cell, Table
from transferbench.suite import SOURCE, Suite

__all__ = [
    "OVER_NETWORKS",
    "OVER_PAIRS",
    "Block",
    "Builder",
    "Drawing",
    "Listing",
    "Part",
    "Scope",
    "absent_notes",
    "counted",
    "exact_cell",
    "missing_part",
    "paper",
    "percent_cell",
    "title_of",
    "view_notes",
]

OVER_NETWORKS = "95% Student-t interval over replicates"
OVER_PAIRS = "95% jackknife interval over replicates, since pairs share networks"
COMPARE = "Scale and data differ from this run's: compare the order of the numbers, not their size."
LONG_FLAG = 60


@dataclass(frozen=True)
class Drawing:
    """A figure and what it says."""

    figure: Markup
    caption: str
    table: None = None


@dataclass(frozen=True)
class Listing:
    """A table under its caption; ``published`` where the numbers are the paper's."""

    caption: str
    table: Table
    published: bool = False
    figure: None = None


Block: TypeAlias = Drawing | Listing


@dataclass(frozen=True)
class Part:
    """A section of an entry: figures and tables in order, then what is to know about them."""

    title: str
    slug: str
    blocks: Sequence[Block]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Scope:
    """The entry that a part is about; ``anchor`` begins the id of everything drawn for it."""

    suite: Suite
    entry: str
    anchor: str
    measured: Measured

    @property
    def pair(self) -> tuple[str, str]:
        """The arm that is scored and its baseline."""
        return self.suite.scoring.initialization, self.suite.scoring.baseline

    def has(self, *plugins: str) -> bool:
        """Whether the suite asks for one of these diagnostics."""
        return any(use.name in plugins for use in self.suite.diagnostics.values())

    def views(self, plugin: str, *coordinates: str) -> list[View]:
        """What was measured by one diagnostic, a view for each set of its parameters."""
        return views_of(self.suite, self.measured.frame, plugin, coordinates)

    def styles(self) -> dict[str, ArmStyle]:
        """The style of every arm; the source itself looks as the arm that starts from it."""
        styles = arm_styles(self.suite)
        return {SOURCE: styles[self.pair[0]], **styles}


Builder: TypeAlias = Callable[[Scope], Part | None]


# --- words ------------------------------------------------------------------------------------


def title_of(view: View, views: Sequence[View]) -> str:
    """How a caption begins where one diagnostic was measured in several ways: by what differs."""
    if len(views) < 2:
        return ""
    differing = [
        f"{name} {_written(value)}"
        for name, value in view.params.items()
        if any(other.params.get(name) != value for other in views)
    ]
    differing = [text for text in differing if len(text) <= LONG_FLAG]
    told = f" ({', '.join(differing)})" if differing else ""
    return f"{', '.join(view.labels)}{told}: "


def _written(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def absent_notes(views: Iterable[View]) -> list[str]:
    """What the suite asks for and nobody measured."""
    return [
        f"{', '.join(view.labels)}: not measured for {', '.join(view.absent)}; see the jobs"
        for view in views
        if view.absent
    ]


def view_notes(views: Sequence[View]) -> list[str]:
    """What is absent, and what measurements were flagged with."""
    return [
        *absent_notes(views),
        *(f"Flagged: {note}" for view in views for note in flag_notes(view.rows)),
    ]


def missing_part(title: str, slug: str, views: Sequence[View]) -> Part:
    """A section that says what is missing, where the suite asks for it."""
    names = ", ".join(label for view in views for label in view.labels)
    return Part(title, slug, (), [f"{names}: this run holds no measurement of it; see the jobs"])


def counted(rows: pd.DataFrame, what: str = "test images") -> str:
    """How many replicates, and how many items each of their numbers is from."""
    known = rows[rows["value"].notna()]
    replicates = set(known["replicate"].dropna()) | set(known["other_replicate"].dropna())
    text = f"n: {len(replicates)} replicates"
    if "n" not in known or known.empty or not what:
        return text
    low, high = int(known["n"].min()), int(known["n"].max())
    items = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text}, {items} {what} each"


def paper(one: Published) -> Listing:
    """The paper's numbers as a table."""
    rows = tuple(
        (
            Cell(row[0]),
            *(Cell(text, kind="number" if text[:1] not in "PR" else "label") for text in row[1:]),
        )
        for row in one.rows
    )
    return Listing(one.caption, Table(one.head, rows, COMPARE), published=True)


# --- cells ------------------------------------------------------------------------------------


def percent_cell(found: Aggregate | None, digits: int = 1) -> Cell:
    """A fraction in percent, or a difference of fractions in points."""
    return _cell(
        found, lambda one: (number(100 * one.mean, digits), interval_text(one, 100, digits))
    )


def exact_cell(found: Aggregate | None) -> Cell:
    """Three significant digits of a number of unknown size."""
    return _cell(found, lambda one: (significant(one.mean), _bounds(one)))


def _bounds(one: Summary) -> str:
    if one.low is None or one.high is None:
        return f"no interval, n\N{NO-BREAK SPACE}{one.n}"
    return f"[{significant(one.low)}, {significant(one.high)}] n\N{NO-BREAK SPACE}{one.n}"


def _cell(found: Aggregate | None, write: Callable[[Summary], tuple[str, str]]) -> Cell:
    if found is None:
        return Cell(ABSENT, "not measured", kind="number")
    if found.summary is None:
        return Cell(ABSENT, _short(found.flags), kind="number")
    text, detail = write(found.summary)
    if found.missing:
        detail += f"; {found.missing} missing: {_short(found.flags)}"
    elif found.flags:
        text += "*"
    return Cell(text, detail, kind="number")


def _short(flags: Sequence[str]) -> str:
    first = flags[0] if flags else "no value"
    return (
        first
        if len(first) <= LONG_FLAG
        else first[: LONG_FLAG - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    )
