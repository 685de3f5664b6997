"""Figures as data: grids of panels with lines and points, and of heat maps.

``drawing`` draws them; nothing here imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from transferbench.report.styles import LineStyle
from transferbench.report.summaries import Summary

__all__ = [
    "Figure",
    "Heat",
    "HeatFigure",
    "Panel",
    "PanelFigure",
    "PanelOptions",
    "Scale",
    "Series",
    "in_rows",
    "mosaic",
]

STEEP = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """One line: a mean ``y`` at each ``x``, None where there is none; ``x`` may be a mean too.

    ``label``: in the legend, "" for none. ``runs``: the single replicates, drawn thin, NaN where
    one has no value. Shapes: runs (R, len(x)).
    """

    label: str
    x: Sequence[float | Summary]
    y: Sequence[Summary | None]
    style: LineStyle
    runs: NDArray[np.float64] | None = None

    @property
    def means(self) -> list[float]:
        """The means, missing ones left out."""
        return [summary.mean for summary in self.y if summary]


Scale: TypeAlias = Literal["", "percent", "points"]
Log: TypeAlias = Literal["", "x", "y", "steep", "symmetric"]


class PanelOptions(TypedDict, total=False):
    """The fields of ``Panel`` that a function may pass on as keyword arguments."""

    x_label: str
    y_label: str
    scale: Scale
    log: Log
    marks: Sequence[float]
    levels: Sequence[float]
    chance: float | None


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    ``ticks`` name the positions 0, 1, ... of an axis without a scale; ``across``: they name rows,
    from the top, and values run to the right.
    ``bars``: intervals as bars at points, else as a band along the line. ``scale``: "percent" and
    "points" write fractions, and differences of fractions, as percent. ``log``: which axis is
    logarithmic, "steep": y, where means are positive and far apart, "symmetric": y, with room for
    0. ``marks`` and ``levels``: dotted lines at positions of the x axis and of the y axis;
    ``chance``: one with its name in the legend.
    ``remark``: written where nothing was measured.
    """

    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""
    scale: Scale = ""
    bars: bool = False
    ticks: Sequence[str] = ()
    across: bool = False
    log: Log = ""
    marks: Sequence[float] = ()
    levels: Sequence[float] = ()
    chance: float | None = None
    remark: str = ""

    @property
    def steep(self) -> bool:
        """Whether a logarithm shows the means better."""
        means = [mean for series in self.series for mean in series.means]
        return bool(means) and min(means) > 0 and max(means) > STEEP * min(means)


@dataclass(frozen=True)
class PanelFigure:
    """Panels in rows, one legend above them; ``description`` is the text alternative.

    Units: ``height`` of a panel in inches of a page about ten inches wide.
    """

    description: str
    rows: Sequence[Sequence[Panel | None]]
    height: float = 1.6


@dataclass(frozen=True)
class Heat:
    """A map of means, NaN where there is none.

    ``x_positions``, ``y_positions``: the cells that the ticks name; else each cell has a tick.
    Shapes: values (Y, X), rows from the bottom.
    """

    title: str
    values: NDArray[np.float64]
    x_ticks: Sequence[str]
    y_ticks: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    x_positions: Sequence[float] = ()
    y_positions: Sequence[float] = ()


@dataclass(frozen=True)
class HeatFigure:
    """Maps in rows on one scale of colours, which ``label`` names.

    ``numbers``: write each mean into its cell, where there are few. ``percent``: of fractions.
    Units: ``height`` as in ``PanelFigure``.
    """

    description: str
    rows: Sequence[Sequence[Heat | None]]
    label: str
    percent: bool = False
    numbers: bool = False
    height: float = 1.7


Figure: TypeAlias = PanelFigure | HeatFigure


def in_rows(panels: Sequence[T], columns: int) -> list[Sequence[T]]:
    """Panels in rows of at most ``columns``."""
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def mosaic(rows: Mapping[str, Mapping[str, Heat | None]], title: str) -> Heat:
    """Many small maps as one, a gap between them; the first row on top, named by the keys.

    A map with fewer columns than the widest is stretched to its width.
    """
    heats = [heat for row in rows.values() for heat in row.values() if heat is not None]
    height, width = np.max([heat.values.shape for heat in heats], axis=0)
    names = list(next(iter(rows.values())))
    values = np.full((len(rows) * (height + 1) - 1, len(names) * (width + 1) - 1), np.nan)
    from_below = list(rows)[::-1]
    for y, below in enumerate(from_below):
        for x, name in enumerate(names):
            heat = rows[below].get(name)
            if heat is None:
                continue
            columns = np.arange(width) * heat.values.shape[1] // width
            bottom, left = y * (height + 1), x * (width + 1)
            block = values[bottom : bottom + len(heat.values), left : left + width]
            block[:] = heat.values[:, columns]
    return Heat(
        title=title,
        values=values,
        x_ticks=names,
        y_ticks=from_below,
        x_positions=[x * (width + 1) + (width - 1) / 2 for x in range(len(names))],
        y_positions=[y * (height + 1) + (height - 1) / 2 for y in range(len(rows))],
    )
