"""Figures as grids of plain panels: lines with error bands, points with bars, heat maps.

What a panel shows is data; only here is it drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, zip_longest
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from transferbench.report.aggregates import ITSELF
from transferbench.report.drawing import INK, MUTED, SERIES, ArmStyle, render
from transferbench.report.summaries import Summary
from transferbench.suite import SOURCE

__all__ = [
    "WIDTH",
    "Dash",
    "Heat",
    "Layout",
    "Panel",
    "Series",
    "draw_chance",
    "heat_figure",
    "label_width",
    "legend_of",
    "mosaic",
    "pair_styles",
    "panel_figure",
    "steep",
    "write_percent",
]

WIDTH = 10.4
COLORS = "cividis"
"""For readers with any colour vision, and in grey. Source: Nuñez et al. 2018, arXiv 1712.01662."""
TITLE, LEGEND_LINE, LETTER, BOLD_LETTER = 0.24, 0.2, 0.062, 0.075
"""Inches: above a panel, of a line of the legend, of a letter of a tick and of a title."""
STEEP = 30.0
FULL_NUMBERS = 9
MOST_COLUMNS = 6
MOST_TICKS = 6
BAR = 0.75
"""Inches that a scale of colours takes to the right of its maps."""
CHANCE = "chance"

Dash = Literal["-", "--", ":", "-."]


@dataclass(frozen=True)
class Series:
    """One line: a summary at each ``x``, None where nothing was measured."""

    label: str
    x: Sequence[float]
    values: Sequence[Summary | None]
    color: str
    marker: str = ""
    dash: Dash = "-"


@dataclass(frozen=True)
class Panel:
    """One set of axes. ``ticks`` name the places 0, 1, ... of an axis without a scale.

    ``bars``: intervals as bars at points, else as a band along the line. ``percent``: fractions
    written as percent. ``marks``: places on the x axis, and
    ``level`` one on the y axis, to draw a dotted line at.
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str = ""
    percent: bool = False
    bars: bool = False
    ticks: Sequence[str] = ()
    log: Literal["", "x", "y", "symmetric"] = ""
    marks: Sequence[float] = ()
    chance: float | None = None
    level: float | None = None


@dataclass(frozen=True)
class Heat:
    """A map of means, NaN where there is none.

    ``x_places``, ``y_places``: the cells that the ticks name; else there is one for every cell.
    Shapes: values (Y, X), rows from the bottom.
    """

    title: str
    values: NDArray[np.float64]
    x_ticks: Sequence[str]
    y_ticks: Sequence[str]
    x_label: str = ""
    y_label: str = ""
    x_places: Sequence[float] = ()
    y_places: Sequence[float] = ()


def write_percent(axis: Axis) -> None:
    """Ticks of fractions, written in percent or points."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def pair_styles(
    pairs: Iterable[tuple[str, str]], styles: dict[str, ArmStyle]
) -> dict[tuple[str, str], tuple[str, str, Dash]]:
    """Colour, marker and dash of each pair of arms.

    Two networks of one arm have its colour; an arm and the source the same, dashed, and a network
    with itself, dotted; two arms ink or, from the second such pair on, another colour, dotted.
    """
    found: dict[tuple[str, str], tuple[str, str, Dash]] = {}
    others: list[tuple[str, Dash]] = [(color, ":") for color in SERIES[2:]]
    mixed = cycle([(INK, "-"), *others])
    for a, b in pairs:
        if b == ITSELF:
            found[a, b] = (styles[a].color, styles[a].marker, ":")
        elif SOURCE in {a, b} and a != b:
            arm = styles[b if a == SOURCE else a]
            found[a, b] = (arm.color, arm.marker, "--")
        elif a == b and a in styles:
            found[a, b] = (styles[a].color, styles[a].marker, "-")
        else:
            color, dash = next(mixed)
            found[a, b] = (color, "D", dash)
    return found


# --- where panels go --------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The places of a grid of axes. Units: inches, measured on the fonts of ``drawing``.

    ``left`` and ``below``: what each panel leaves for its ticks and labels.
    """

    rows: int
    columns: int
    height: float
    left: float = 0.52
    below: float = 0.42
    legend: float = 0.0
    right: float = 0.1
    title: float = TITLE

    @property
    def size(self) -> tuple[float, float]:
        """Of the whole figure."""
        return WIDTH, self.legend + self.rows * (self.title + self.height + self.below)

    @property
    def each(self) -> float:
        """The width of one panel."""
        return (WIDTH - self.right) / self.columns - self.left

    @property
    def grid(self) -> dict[str, float]:
        """The same in the fractions that matplotlib takes."""
        width, height = self.size
        each = self.each
        return {
            "left": self.left / width,
            "right": 1 - self.right / width,
            "top": 1 - (self.legend + self.title) / height,
            "bottom": self.below / height,
            "wspace": self.left / each,
            "hspace": (self.title + self.below) / self.height,
        }


def label_width(labels: Iterable[str]) -> float:
    """About how wide the longest is. Units: inches."""
    return LETTER * max(map(len, labels), default=0)


def broken(titles: Sequence[str], layout: Layout) -> tuple[Layout, dict[str, str]]:
    """Titles as they are drawn: on two lines, broken behind the place, where one is too wide."""
    if all(len(title) * BOLD_LETTER <= layout.each for title in titles):
        return layout, {title: title for title in titles}
    lines = {title: title.replace(": ", "\n", 1) for title in titles}
    return replace(layout, title=TITLE + 0.14), lines


def leans(ticks: Sequence[str], width: float) -> bool:
    """Whether names side by side would touch. Units: ``width`` of the axis in inches."""
    return bool(ticks) and label_width(ticks) * len(ticks) > 0.9 * width


# --- lines and points -------------------------------------------------------------------------


def panel_figure(
    name: str, description: str, rows: Sequence[Sequence[Panel | None]], height: float = 1.6
) -> Markup:
    """A grid of panels, one legend above them. Units: ``height`` of a panel in inches."""
    every = [panel for row in rows for panel in row if panel is not None]
    columns = max(map(len, rows))
    names = dict.fromkeys(series.label for panel in every for series in panel.series)
    named = any(panel.y_label for panel in every)
    leaning = [p.ticks for p in every if leans(p.ticks, WIDTH / columns - 0.6)]
    labelled = any(panel.x_label for panel in every)
    ticks = 0.25 + 0.72 * max(map(label_width, leaning), default=0.0)
    layout = Layout(
        rows=len(rows),
        columns=columns,
        height=height,
        left=0.68 if named else 0.52,
        below=ticks + 0.18 * labelled,
        legend=LEGEND_LINE * -(-(len(names) + 1) // MOST_COLUMNS) + 0.06,
    )

    layout, titles = broken([panel.title for panel in every], layout)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=layout.grid)
        for line, panels in zip(grid, rows, strict=True):
            for axes, panel in zip_longest(line, panels):
                draw_panel(axes, panel, lean=bool(leaning))
                axes.set_title(titles[panel.title] if panel else "")
        legend_of(figure, list(grid.flat), placed=True)

    return render(name, description, layout.size, draw, placed=True)


def draw_panel(axes: Axes, panel: Panel | None, *, lean: bool) -> None:
    """One panel, or nothing; ``lean``: long names of ticks stand aslant."""
    if panel is None:
        axes.set_axis_off()
        return
    for place, series in enumerate(panel.series):
        shift = 0.14 * (place - (len(panel.series) - 1) / 2) if panel.ticks and panel.bars else 0
        draw_series(axes, series, bars=panel.bars, shift=shift)
    for mark in panel.marks:
        axes.axvline(mark, color=MUTED, linewidth=0.8, linestyle=":")
    draw_chance(axes, panel.chance)
    if panel.level is not None:
        axes.axhline(panel.level, color=MUTED, linewidth=0.9, linestyle=":")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    set_scales(axes, panel, lean=lean)


def set_scales(axes: Axes, panel: Panel, *, lean: bool) -> None:
    """The scales of both axes and how their ticks are written."""
    if panel.log == "x":
        axes.set_xscale("log")
    elif panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), list(panel.ticks))
        axes.set_xlim(-0.6, len(panel.ticks) - 0.4)
        if lean:
            slant(axes)
    else:
        whole = all(float(x).is_integer() for series in panel.series for x in series.x)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
    if panel.log == "symmetric":  # a logarithm that has a place for 0
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=min(least(panel), 0) - 0.3)
    elif panel.log == "y":
        axes.set_yscale("log")
        # A band that reaches 0 would fill the axis with decades of nothing.
        axes.set_ylim(bottom=0.5 * least(panel))
    elif panel.percent:
        write_percent(axes.yaxis)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.03), min(high, 1.03))
    axes.minorticks_off()


def least(panel: Panel) -> float:
    """The smallest mean of a panel."""
    return min(one.mean for series in panel.series for one in series.values if one)


def steep(series: Sequence[Series]) -> bool:
    """Whether the means are positive and so far apart that a logarithm shows them better."""
    means = [one.mean for line in series for one in line.values if one]
    return bool(means) and min(means) > 0 and max(means) > STEEP * min(means)


def slant(axes: Axes) -> None:
    """Names of ticks aslant, each ending below its tick."""
    for tick in axes.get_xticklabels():
        tick.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")


def draw_series(axes: Axes, series: Series, *, bars: bool, shift: float) -> None:
    """A line through the means with their intervals as a band or as bars."""
    known = [(x + shift, one) for x, one in zip(series.x, series.values, strict=True) if one]
    if not known:
        return
    places = np.array([x for x, _ in known])
    means = np.array([one.mean for _, one in known])
    low, high = np.array([one.bounds for _, one in known]).T
    if bars:
        axes.errorbar(
            places,
            means,
            yerr=np.abs([low - means, high - means]),
            color=series.color,
            linestyle=series.dash,
            marker=series.marker,
            markersize=4,
            linewidth=1,
            elinewidth=1.3,
            label=series.label,
        )
        return
    axes.fill_between(places, low, high, color=series.color, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(
        places,
        means,
        color=series.color,
        linestyle=series.dash,
        marker=series.marker,
        markersize=3,
        linewidth=1.6,
        label=series.label,
    )


def legend_of(figure: Figure, axes: Sequence[Axes], *, placed: bool = False) -> None:
    """One legend above all panels, each label once; ``placed``: as in ``render``."""
    found: dict[str, Any] = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    # Lines before chance, arms in the order they were drawn.
    labels = sorted(found, key=lambda label: label == CHANCE)
    if labels:
        handles = [found[label] for label in labels]
        columns = min(len(labels), MOST_COLUMNS)
        where = "upper left" if placed else "outside upper left"
        figure.legend(handles, labels, loc=where, ncols=columns, borderaxespad=0.1)  # type: ignore[call-overload]  # its stub does not know "outside"


def draw_chance(axes: Axes, chance: float | None, *, along: str = "y") -> None:
    """A dotted line at chance, where the suite knows it."""
    if chance is None:
        return
    line = axes.axhline if along == "y" else axes.axvline
    line(chance, color=MUTED, linewidth=0.9, linestyle=":", label=CHANCE)


# --- heat maps --------------------------------------------------------------------------------


def heat_figure(
    name: str,
    description: str,
    rows: Sequence[Sequence[Heat | None]],
    *,
    label: str,
    percent: bool = False,
    numbers: bool = False,
    height: float = 1.7,
) -> Markup:
    """Maps on one scale of colours, named ``label`` beside them.

    ``numbers``: write each mean into its cell, where there are few.
    """
    every = [heat for row in rows for heat in row if heat is not None]
    values = np.concatenate([heat.values[np.isfinite(heat.values)] for heat in every])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1)
    up = {tick for heat in every for tick in heat.y_ticks}
    right = {tick for heat in every for tick in heat.x_ticks}
    columns = max(map(len, rows))
    shown = sorted(right)[: FULL_NUMBERS if numbers else MOST_TICKS]
    lean = leans(shown, WIDTH / columns - 1)
    layout = Layout(
        rows=len(rows),
        columns=columns,
        height=height,
        left=0.36 + label_width(up),
        below=0.42 + (0.72 * label_width(right) if lean else 0.0),
        right=BAR,
    )
    layout, titles = broken([heat.title for heat in every], layout)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=layout.grid)
        for line, heats in zip(grid, rows, strict=True):
            for axes, heat in zip_longest(line, heats):
                draw_heat(axes, heat, scale, numbers=numbers, lean=lean)
                axes.set_title(titles[heat.title] if heat else "")
        draw_bar(figure, layout, scale, label, percent=percent)

    return render(name, description, layout.size, draw, placed=True)


def draw_bar(
    figure: Figure, layout: Layout, scale: Normalize, label: str, *, percent: bool
) -> None:
    """The scale of colours beside the uppermost row."""
    width, height = layout.size
    top = 1 - layout.title / height
    place = (1 - (BAR - 0.12) / width, top - layout.height / height, 0.12 / width)
    axes = figure.add_axes((*place, layout.height / height))
    bar = figure.colorbar(ScalarMappable(scale, COLORS), cax=axes, label=label)
    bar.outline.set_visible(False)
    if percent:
        write_percent(axes.yaxis)


def draw_heat(
    axes: Axes, heat: Heat | None, scale: Normalize, *, numbers: bool, lean: bool
) -> None:
    """One map; cells without a value stay empty."""
    if heat is None:
        axes.set_axis_off()
        return
    axes.grid(visible=False)
    # As raw pixels of a PNG inside the SVG: a path for each cell would weigh fifty times as much.
    axes.imshow(
        heat.values, cmap=COLORS, norm=scale, origin="lower",
        aspect="auto", interpolation="none",
    )  # fmt: skip
    axes.set_xlabel(heat.x_label)
    axes.set_ylabel(heat.y_label)
    most = FULL_NUMBERS if numbers else MOST_TICKS
    name_cells(axes.xaxis, heat.x_ticks, heat.x_places, most)
    name_cells(axes.yaxis, heat.y_ticks, heat.y_places, FULL_NUMBERS)
    if lean:
        slant(axes)
    if numbers and heat.values.size <= FULL_NUMBERS**2:
        write_numbers(axes, heat.values, scale)


def name_cells(axis: Axis, ticks: Sequence[str], places: Sequence[float], most: int) -> None:
    """Names at their places, or of at most about ``most`` cells, equally far apart."""
    if places:
        axis.set_ticks(list(places), list(ticks))
        axis.set_tick_params(length=0)
        return
    step = max(-(-len(ticks) // most), 1)
    axis.set_ticks(list(range(0, len(ticks), step)), list(ticks[::step]))


def mosaic(rows: Mapping[str, Mapping[str, Heat | None]], title: str) -> Heat:
    """Many small maps as one, a gap between them; the first row on top, named by the keys.

    A map with fewer columns than others is stretched to their width.
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
        x_places=[x * (width + 1) + (width - 1) / 2 for x in range(len(names))],
        y_places=[y * (height + 1) + (height - 1) / 2 for y in range(len(rows))],
    )


def write_numbers(axes: Axes, values: NDArray[np.float64], scale: Normalize) -> None:
    """The mean in each cell, light on dark and dark on light."""
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value < (scale.vmin or 0) / 2 + (scale.vmax or 0) / 2
            axes.text(x, y, f"{value:.2f}".replace("0.", ".", 1), ha="center", va="center",
                      fontsize=6, color="white" if dark else "black")  # fmt: skip
