"""How every figure of a report looks, and how a drawing becomes inline SVG.

Colours reach the SVG as CSS variables, so one drawing serves light and dark pages and paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferbench.suite import Suite

__all__ = ["GRID", "INK", "MUTED", "SERIES", "ArmStyle", "arm_styles", "render", "tidy"]

INK = "#1f2430"
MUTED = "#667081"
GRID = "#dde1e8"
# Okabe and Ito (2008), colours that readers with any colour vision tell apart; black is the ink.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
# Seven against four colours: 28 arms before a pair of both comes again.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {
    color: f"series-{position}" for position, color in enumerate(SERIES)
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
    # Titles have their place: to look for one measures every tick, a tenth of the time.
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
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}
GEOMETRY = re.compile(r'\s(?:d|x|y|transform)="[^"]*"')
DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
"""A hundredth of a point is finer than any screen or printer."""
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class ArmStyle:
    """The colour and marker that an arm keeps in every figure."""

    color: str
    marker: str


def arm_styles(suite: Suite) -> dict[str, ArmStyle]:
    """The scored arm is blue, its baseline orange, the others follow in the suite's order."""
    first = [suite.scoring.initialization, suite.scoring.baseline]
    arms = [*first, *(arm for arm in suite.initializations if arm not in first)]
    rest = SERIES[2:]
    colors = [*SERIES[:2], *(rest[place % len(rest)] for place in range(len(arms)))]
    return {
        arm: ArmStyle(colors[place], MARKERS[place % len(MARKERS)])
        for place, arm in enumerate(arms)
    }


def tidy(axes: Axes, *, grid: str) -> None:
    """Grid lines along one axis only: ``x`` or ``y``."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x" if grid == "x" else "y")


def render(
    name: str,
    description: str,
    size: tuple[float, float],
    draw: Callable[[Figure], None],
    *,
    placed: bool = False,
) -> Markup:
    """What ``draw`` draws, as an SVG element whose ids begin with ``name``.

    ``placed``: ``draw`` says where its axes go; to find it out takes longer than to draw them.
    Units: ``size`` in inches of a page about ten inches wide.
    """
    buffer = StringIO()
    with matplotlib.style.context(["default", STYLE]), rc_context({"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout=None if placed else "constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=METADATA)
    return Markup(inline(buffer.getvalue(), name, description))  # noqa: S704 - made here, escaped


def inline(text: str, name: str, description: str) -> str:
    """A stand-alone SVG document as an element of a page, with colours as CSS variables."""
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib's style element would apply to the whole page: report.css says the same.
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"\sxmlns(:xlink)?=\"[^\"]*\"", "", text)
    text = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", text)
    text = GEOMETRY.sub(lambda found: DECIMALS.sub(r"\1", found[0]), text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable}, {color})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
