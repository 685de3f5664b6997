"""What is compared, as lines of a panel or columns of a table: arms, pairs of arms, metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from transferbench.measurements import LabelValue, Measurements
from transferbench.report.figures import Panel, PanelOptions, Series
from transferbench.report.styles import INK, PALETTE, LineStyle, arm_styles
from transferbench.report.summaries import (
    Aggregate,
    Summary,
    aggregate,
    as_summary,
    summary_of,
)
from transferbench.report.tables import Cell, Table, WriteCell, exact_cell
from transferbench.statistics import replicate_difference
from transferbench.suite import SOURCE, Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ITSELF",
    "OF_SHARES",
    "OVER_NETWORKS",
    "OVER_PAIRS",
    "PAIRED",
    "STUDENT",
    "Compared",
    "TableLine",
    "arms_in",
    "by_metric",
    "comparison",
    "difference",
    "error_of",
    "grid_means",
    "name_selves",
    "pairs_in",
    "profile",
]

ARM, OTHER = "initialization", "other_initialization"
ITSELF = "itself"
"""The other arm where a network is compared with itself."""

PLAIN = LineStyle()

TableLine: TypeAlias = tuple[Sequence[str], Measurements]
"""The first cells of a row, and the measurements of the others."""

STUDENT = (
    "Student-t, with a wider quantile where one arm varies most or no range is known, and further "
    "from the near end of a range"
)
"""How every interval over replicates is made."""
OVER_NETWORKS = f"95% interval over replicates ({STUDENT})"
OVER_PAIRS = (
    f"95% interval over replicates by the jackknife, since pairs share networks ({STUDENT})"
)
OVER_SOURCES = "; where several source networks were trained, over these"
OF_SHARES = "of shares Fieller's, from these"
PAIRED = "paired by replicate; the mean of an arm is over all replicates of its own"
"""Of differences: an arm of which more replicates were planned has them all in its own mean."""


@dataclass(frozen=True)
class Compared:
    """The measurements with some labels, as a line of a panel or a column of a table.

    ``minus``: the labels of those to subtract, paired by replicate.
    """

    name: str
    labels: Mapping[str, LabelValue]
    style: LineStyle = PLAIN
    minus: Mapping[str, LabelValue] = field(default_factory=dict)

    def of(self, rows: Measurements) -> Aggregate | None:
        """The mean over replicates; None where nothing was measured."""
        own = rows.select(**self.labels)
        if not self.minus:
            return aggregate(own)
        other = rows.select(**self.minus)
        first, second = own.by_replicate(), other.by_replicate()
        ends = own.bounds if own.bounds == other.bounds else None
        networks = max(own.networks, other.networks)
        summary = as_summary(replicate_difference(first, second, networks, ends=ends))
        if summary is None:
            return None
        trained = {*own.labels("replicate")} & {*other.labels("replicate")}
        missing = len(trained - (first.keys() & second.keys()))
        flags = (own | other).distinct("flag") if missing else ()
        return Aggregate(summary, tuple(flags), missing)

    def along(self, rows: Measurements, column: str, values: Iterable[Any]) -> list[Summary | None]:
        """The mean at each value of a column."""
        if self.minus:
            points = [self.of(rows.select(**{column: value})) for value in values]
            return [point.summary if point else None for point in points]
        own = rows.select(**self.labels)
        groups, networks, ends = own.by_group(column), own.networks, own.bounds
        return [
            summary_of(groups[value,], networks, ends) if (value,) in groups else None
            for value in values
        ]

    def runs(self, rows: Measurements, column: str, values: Sequence[Any]) -> NDArray[np.float64]:
        """The single replicates at each value of a column, NaN where one has none.

        Shapes: returns (R, len(values)).
        """
        groups = rows.select(**self.labels).by_group(column)
        points = [groups.get((value,), {}) for value in values]
        pairs = sorted({pair for point in points for pair in point})
        return np.array([[point.get(pair, np.nan) for point in points] for pair in pairs])


def name_selves(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` where the other arm of a network compared with itself is ``ITSELF``.

    It is no pair of two networks of its arm.
    """
    if not {OTHER, "other_replicate"} <= set(frame.columns):
        return frame
    same = (frame[ARM] == frame[OTHER]) & (frame["replicate"] == frame["other_replicate"])
    return frame.assign(**{OTHER: frame[OTHER].mask(same, ITSELF)})


def difference(arms: tuple[str, str], **labels: LabelValue) -> Compared:
    """The first arm minus the second, of the measurements with these labels."""
    first, second = ({ARM: arm, **labels} for arm in arms)
    return Compared(" \N{MINUS SIGN} ".join(arms), first, minus=second)


def arms_in(rows: Measurements, suite: Suite) -> list[Compared]:
    """The arms that were measured: the scored pair first, the source itself last.

    The source has the style of the arm that starts from it, dashed.
    """
    styles, measured = arm_styles(suite), set(rows.distinct(ARM))
    source = styles[suite.scoring.initialization]._replace(dash="--")
    styles = {arm: style for arm, style in styles.items() if arm != SOURCE} | {SOURCE: source}
    return [Compared(arm, {ARM: arm}, style) for arm, style in styles.items() if arm in measured]


def pairs_in(rows: Measurements, suite: Suite) -> list[Compared]:
    """The pairs that were measured: two of one arm first, then two arms, then with the source.

    Last those of a network with itself, such as its best state with its final one. Two networks of
    one arm have its style; an arm and the source the same, dashed; a network with itself, dotted.
    Two arms have ink or, from the second such pair on, another colour, dotted.
    """
    styles = arm_styles(suite)
    arms = [*styles, SOURCE, ITSELF]
    styles.setdefault(SOURCE, styles[suite.scoring.initialization])
    of_two_arms = cycle([LineStyle(INK, "D"), *(LineStyle(c, "D", ":") for c in PALETTE[2:])])

    def order(pair: tuple[str, str]) -> tuple[bool, bool, bool, int, int]:
        a, b = pair
        return b == ITSELF, SOURCE in pair, a != b, arms.index(a), arms.index(b)

    def style(a: str, b: str) -> LineStyle:
        if b in {a, ITSELF}:
            return styles[a]._replace(dash="-" if a == b else ":")
        if SOURCE in {a, b}:
            return styles[b if a == SOURCE else a]._replace(dash="--")
        return next(of_two_arms)

    measured = [(a, b) for a, b in rows.groups(ARM, OTHER) if a in arms and b in arms]
    return [
        Compared(f"{a} & {b}", {ARM: a, OTHER: b}, style(a, b))
        for a, b in sorted(measured, key=order)
    ]


def error_of(rows: Measurements) -> str:
    """How the intervals of these measurements are made."""
    error = OVER_PAIRS if rows.distinct("other_replicate") else OVER_NETWORKS
    return error + (OVER_SOURCES if rows.networks > 1 else "")


def profile(
    title: str,
    rows: Measurements,
    compared: Iterable[Compared],
    column: str,
    values: Sequence[Any] | None = None,
    **options: Unpack[PanelOptions],
) -> Panel:
    """A panel with the means along a column: by default at every value that occurs.

    Names get a tick each, in order of appearance; numbers a scale. ``options``: other fields of
    the panel.
    """
    points = rows.distinct(column) if values is None else list(values)
    named = any(isinstance(point, str) for point in points)
    if not named and values is None:
        points = sorted(points)
    x = range(len(points)) if named else points
    lines = [Series(c.name, x, c.along(rows, column, points), c.style) for c in compared]
    ticks = list(map(str, points)) if named else ()
    return Panel(title, [line for line in lines if any(line.y)], bars=named, ticks=ticks, **options)


def grid_means(
    rows: Measurements, columns: tuple[str, str], y: Sequence[Any], x: Sequence[Any]
) -> NDArray[np.float64]:
    """The mean at each combination of two columns' labels, NaN where there is none.

    Shapes: returns (len(y), len(x)); ``columns`` are those of y and of x.
    """
    groups = rows.valued().groups(*columns)
    means = {labels: group.to_numpy().mean() for labels, group in groups.items()}
    return np.array([[means.get((up, right), np.nan) for right in x] for up in y])


def by_metric(
    columns: Mapping[str, tuple[str, WriteCell]],
) -> tuple[list[Compared], list[WriteCell]]:
    """The columns of a ``comparison`` of metrics: metric -> its name and how to write it."""
    compared = [Compared(name, {"metric": metric}) for metric, (name, _) in columns.items()]
    return compared, [write for _, write in columns.values()]


def comparison(
    head: Sequence[str],
    lines: Iterable[TableLine],
    compared: Sequence[Compared],
    write: WriteCell | Sequence[WriteCell] = exact_cell,
    note: str = "",
) -> Table | None:
    """A column for each of ``compared``, a row for each line: its labels and its measurements.

    Lines without any measurement are left out; None where all are.
    """
    writers = [write] * len(compared) if callable(write) else list(write)
    table = []
    paired = several = False
    for labels, rows in lines:
        values = [column.of(rows) for column in compared]
        if any(value is not None for value in values):
            cells = [writer(value) for writer, value in zip(writers, values, strict=True)]
            table.append((*map(Cell, labels), *cells))
            paired = paired or bool(rows.distinct("other_replicate"))
            several = several or rows.networks > 1
    if not table:
        return None
    error = f"{OVER_PAIRS}; n counts replicates" if paired else OVER_NETWORKS
    error += OVER_SOURCES if several else ""
    if any(column.minus for column in compared):
        error += f"; differences are {PAIRED}"
    names = (column.name for column in compared)
    return Table((*head, *names), table, f"{note} Brackets: {error}.")
