"""Draws the figures of a report with matplotlib, as inline SVG.

Colours reach the SVG as CSS variables, so one drawing serves light and dark pages and paper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib import figure as mpl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from transferbench.report.figures import Figure, HeatFigure, Panel, PanelFigure, Series
from transferbench.report.formats import number, significant
from transferbench.report.layout import (
    LABEL_LETTER,
    LEGEND_LINE,
    LINE,
    ROW_NAME,
    TITLE,
    Layout,
    clipped,
    columns_of_legend,
    folded,
    label_width,
    too_wide,
)
from transferbench.report.styles import GRID, INK, MUTED, PALETTE
from transferbench.report.summaries import Summary

__all__ = ["draw"]

VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {
    color: f"series-{position}" for position, color in enumerate(PALETTE)
}
STYLE: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    # Titles have a fixed position: finding one measures every tick, a tenth of the time.
    "axes.titley": 1.0,
    "axes.axisbelow": True,
    "font.size": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "text.color": INK,
    # Names of classes and modules are no formulas, whatever dollar signs they hold.
    "text.parse_math": False,
} | {
    f"{axis}tick.{key}": value
    for axis in "xy"
    for key, value in (
        ("color", MUTED),
        ("labelcolor", INK),
        ("labelsize", 7.5),
        ("major.size", 2.5),
        ("major.width", 0.6),
    )
}
LOOKALIKE = re.compile(r'>[^<>]*(?:#|=")[^<>]*<')
GEOMETRY = re.compile(r'\s(?:d|x|y|transform)="[^"]*"')
DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
"""A hundredth of a point is finer than any screen or printer."""
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}

COLORS = "cividis"
"""For readers with any colour vision, and in grey. Source: Nuñez et al. 2018, arXiv 1712.01662."""
FULL_NUMBERS = 9
MOST_TICKS = 6
MANY_RUNS = 12
BAR = 0.75
"""Inches that a scale of colours takes to the right of its maps."""
ROW_MARGIN = 0.3
"""Inches beside the names of rows."""
CHANCE = "chance"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw(figure: Figure, name: str) -> Markup:
    """A figure as an SVG element whose ids begin with ``name``."""
    buffer = StringIO()
    with matplotlib.style.context(["default", STYLE]), rc_context({"svg.hashsalt": name}):
        canvas = _heats(figure) if isinstance(figure, HeatFigure) else _panels(figure)
        canvas.savefig(buffer, format="svg", transparent=True, metadata=METADATA)
    svg = _inline(buffer.getvalue(), name, figure.description)
    return Markup(svg)  # noqa: S704 - made here, escaped


def _inline(text: str, name: str, description: str) -> str:
    """A stand-alone SVG document as an element of a page, with colours as CSS variables."""
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib's style element would apply to the whole page: report.css says the same.
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    # What looks like an id or a colour in a name is none.
    text = LOOKALIKE.sub(lambda match: match[0].replace("#", "&#35;").replace('="', "=&#34;"), text)
    text = re.sub(r"\sxmlns(:xlink)?=\"[^\"]*\"", "", text)
    text = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", text)
    text = GEOMETRY.sub(lambda match: DECIMALS.sub(r"\1", match[0]), text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable}, {color})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


# --- lines and points -------------------------------------------------------------------------


def _panels(figure: PanelFigure) -> mpl.Figure:
    panels = [panel for row in figure.rows for panel in row if panel is not None]
    legend = {series.label for panel in panels for series in panel.series if series.label}
    legend |= {CHANCE for panel in panels if panel.chance is not None}
    upright = [clipped(panel.ticks) for panel in panels if not panel.across]
    names = [tick for panel in panels if panel.across for tick in panel.ticks]
    gap = max(0.52 if upright else 0.3, 0.68 * any(panel.y_label for panel in panels))
    # Rows are named once, in the first column.
    left = max(gap, ROW_MARGIN + min(label_width(names), ROW_NAME)) if names else gap
    layout = Layout(figure.rows, figure.height, left, gap).fitted
    slanted = [ticks for ticks in upright if too_wide(ticks, layout.panel_width)]
    # What is slanted by 45 degrees ends at its tick.
    reach = 0.72 * max(map(label_width, slanted), default=0.0)
    layout = replace(
        layout,
        left=max(left, reach),
        below=0.25 + reach + 0.18 * any(panel.x_label for panel in panels),
        legend=LEGEND_LINE * -(-len(legend) // columns_of_legend(legend)) + 0.06 if legend else 0.0,
    )
    canvas = mpl.Figure(figsize=layout.size)
    handles: dict[str, Any] = {}
    for axes, panel, first in layout.cells(canvas):
        handles |= _draw_panel(axes, panel, slanted=bool(slanted), named=first)
    _draw_legend(canvas, handles)
    return canvas


def _draw_panel(axes: Axes, panel: Panel, *, slanted: bool, named: bool) -> dict[str, Any]:
    """One panel; ``named``: the first of its row, whose axis names the rows.

    Returns what the legend names: matplotlib would leave out names that begin with "_".
    """
    handles: dict[str, Any] = {}
    side_by_side = panel.bars and panel.ticks and not panel.across
    for position, series in enumerate(panel.series):
        shift = 0.14 * (position - (len(panel.series) - 1) / 2) if side_by_side else 0
        artist = _draw_series(axes, panel, series, shift)
        if series.label and artist is not None:
            handles[series.label] = artist
    along, up = (axes.axhline, axes.axvline) if panel.across else (axes.axvline, axes.axhline)
    for mark in panel.marks:
        along(mark, color=MUTED, linewidth=0.8, linestyle=":")
    for level in panel.levels:
        up(level, color=MUTED, linewidth=0.9, linestyle=":")
    if panel.chance is not None:
        handles[CHANCE] = up(panel.chance, color=MUTED, linewidth=0.9, linestyle=":")
    if panel.remark:
        axes.text(0.5, 0.5, panel.remark, transform=axes.transAxes, ha="center", color=MUTED)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.across:
        _name_rows(axes, panel, named=named)
    else:
        _set_x(axes, panel, slanted=slanted)
        _set_y(axes, panel)
    axes.minorticks_off()
    return handles


def _name_rows(axes: Axes, panel: Panel, *, named: bool) -> None:
    """Rows from the top, named in the first panel; values along the x axis."""
    names = [folded(tick, ROW_NAME) for tick in panel.ticks]
    axes.set_yticks(range(len(panel.ticks)), names if named else [])
    axes.set_ylim(len(panel.ticks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    if panel.scale:
        _write_percent(axes.xaxis)


def _slant(axes: Axes) -> None:
    """Slanted names of ticks, each ending below its tick."""
    for tick in axes.get_xticklabels():
        tick.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")


def _set_x(axes: Axes, panel: Panel, *, slanted: bool) -> None:
    if panel.log == "x":
        axes.set_xscale("log")
        _write_powers(axes.xaxis)
    elif panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), clipped(panel.ticks))
        axes.set_xlim(-0.6, len(panel.ticks) - 0.4)
        if slanted:
            _slant(axes)
    elif any(not series.style.dash for series in panel.series):  # a scatter plot
        axes.margins(x=0.12)
        axes.grid(visible=True)
    else:
        points = [x for series in panel.series for x in series.x if not isinstance(x, Summary)]
        whole_numbers = all(float(x).is_integer() for x in points)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole_numbers))


def _set_y(axes: Axes, panel: Panel) -> None:
    smallest = min((mean for series in panel.series for mean in series.means), default=0.0)
    if panel.log == "symmetric":
        axes.set_yscale("symlog", linthresh=1)
        _write_powers(axes.yaxis)
        axes.set_ylim(bottom=min(smallest, 0) - 0.3)
    elif panel.log == "y" or (panel.log == "steep" and panel.steep):
        axes.set_yscale("log")
        _write_powers(axes.yaxis)
        # A band that reaches 0 would fill the axis with decades of nothing.
        axes.set_ylim(bottom=0.5 * smallest)
    elif panel.scale:
        _write_percent(axes.yaxis)
        if panel.scale == "percent":
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -0.03), min(high, 1.03))


def _draw_series(axes: Axes, panel: Panel, series: Series, shift: float) -> Any:
    """A line through the means with their intervals as a band or as bars; None without any."""
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y]
    if not points:
        return None
    x = np.array([x.mean if isinstance(x, Summary) else x + shift for x, _ in points])
    y = np.array([y.mean for _, y in points])
    low, high = np.array([y.bounds for _, y in points]).T
    style: dict[str, Any] = {"color": series.style.color, "linestyle": series.style.dash}
    if panel.bars:
        error = np.abs([low - y, high - y])
        spread = [np.subtract(x.bounds, x.mean) for x, _ in points if isinstance(x, Summary)]
        coordinates: dict[str, Any] = {"x": x, "y": y, "yerr": error}
        if panel.across:
            coordinates = {"x": y, "y": x, "xerr": error}
        elif spread:
            coordinates["xerr"] = np.abs(spread).T
        return axes.errorbar(
            **coordinates, **style,
            marker=series.style.marker, markersize=4, linewidth=1, elinewidth=1.3,
        )  # fmt: skip
    for run in () if series.runs is None else series.runs[:MANY_RUNS]:
        measured = ~np.isnan(run)
        axes.plot(
            np.asarray(series.x, dtype=float)[measured], run[measured],
            color=series.style.color, linewidth=0.5, alpha=0.35,
        )  # fmt: skip
    color, marker = series.style.color, series.style.marker
    axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0, zorder=1)
    return axes.plot(x, y, marker=marker, markersize=3, linewidth=1.6, **style)[0]


def _draw_legend(canvas: mpl.Figure, handles: Mapping[str, Any]) -> None:
    """One legend above all panels, each label once."""
    # Chance last, arms in the order they were drawn.
    labels = sorted(handles, key=lambda label: label == CHANCE)
    if labels:
        artists, columns = [handles[label] for label in labels], columns_of_legend(labels)
        canvas.legend(artists, labels, loc="upper left", ncols=columns, borderaxespad=0.1)


def _write_percent(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def _write_powers(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))


def _power(value: float) -> str:
    """A power of ten with its exponent raised; another value in digits."""
    digits, exponent = f"{value:.3e}".split("e")
    is_power = digits == "1.000"
    return f"10{str(int(exponent)).translate(RAISED)}" if is_power else significant(value)


# --- heat maps --------------------------------------------------------------------------------


def _heats(figure: HeatFigure) -> mpl.Figure:
    heats = [heat for row in figure.rows for heat in row if heat is not None]
    values = np.concatenate([heat.values[np.isfinite(heat.values)] for heat in heats])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1)
    right = clipped(sorted({tick for heat in heats for tick in heat.x_ticks}))
    most = FULL_NUMBERS if figure.numbers else MOST_TICKS
    up = [folded(heat.y_label, figure.height + TITLE, LABEL_LETTER) for heat in heats]
    left = 0.36 + label_width(clipped(tick for heat in heats for tick in heat.y_ticks))
    left += LINE * max(label.count("\n") for label in up)
    layout = Layout(figure.rows, figure.height, left, left, right=BAR).fitted
    slanted = too_wide(right[:most], layout.panel_width)
    reach = 0.72 * label_width(right) if slanted else 0.0
    along = [folded(heat.x_label, layout.panel_width, LABEL_LETTER) for heat in heats]
    lines = max(label.count("\n") for label in along)
    layout = replace(layout, left=max(left, reach), below=0.42 + reach + LINE * lines)
    canvas = mpl.Figure(figsize=layout.size)
    for axes, heat, _ in layout.cells(canvas):
        axes.grid(visible=False)
        # As raw pixels of a PNG inside the SVG: a path for each cell weighs fifty times as much.
        axes.imshow(
            heat.values, cmap=COLORS, norm=scale, origin="lower",
            aspect="auto", interpolation="none",
        )  # fmt: skip
        axes.set_xlabel(folded(heat.x_label, layout.panel_width, LABEL_LETTER))
        axes.set_ylabel(folded(heat.y_label, figure.height + TITLE, LABEL_LETTER))
        _name_cells(axes.xaxis, heat.x_ticks, heat.x_positions, most)
        _name_cells(axes.yaxis, heat.y_ticks, heat.y_positions, FULL_NUMBERS)
        if slanted:
            _slant(axes)
        if figure.numbers and heat.values.size <= FULL_NUMBERS**2:
            _write_numbers(axes, heat.values, scale)
    _draw_scale(canvas, layout, scale, figure)
    return canvas


def _draw_scale(canvas: mpl.Figure, layout: Layout, scale: Normalize, figure: HeatFigure) -> None:
    """The scale of colours beside the uppermost row."""
    width, height = layout.size
    top = 1 - layout.title / height
    corner = (1 - (BAR - 0.12) / width, top - layout.height / height)
    axes = canvas.add_axes((*corner, 0.12 / width, layout.height / height))
    bar = canvas.colorbar(ScalarMappable(scale, COLORS), cax=axes, label=figure.label)
    bar.outline.set_visible(False)
    if figure.percent:
        _write_percent(axes.yaxis)


def _name_cells(axis: Axis, ticks: Sequence[str], positions: Sequence[float], most: int) -> None:
    """Names at their positions, or of at most about ``most`` cells, equally far apart."""
    ticks = clipped(ticks)
    if positions:
        axis.set_ticks(list(positions), ticks)
        axis.set_tick_params(length=0)
        return
    step = max(-(-len(ticks) // most), 1)
    axis.set_ticks(list(range(0, len(ticks), step)), ticks[::step])


def _write_numbers(axes: Axes, values: NDArray[np.float64], scale: Normalize) -> None:
    """The mean in each cell, light on dark and dark on light."""
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value < (scale.vmin or 0) / 2 + (scale.vmax or 0) / 2
            text = re.sub(r"^(\W?)0\.", r"\1.", number(value, 2))
            axes.text(x, y, text, ha="center", va="center",
                      fontsize=6, color="white" if dark else "black")  # fmt: skip
