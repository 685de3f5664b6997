"""Where the panels of a figure stand, and how much room their names take.

Text is not measured but estimated by its letters: measuring takes longer than drawing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from matplotlib import figure as mpl
from matplotlib.axes import Axes

from transferbench.report.figures import Heat, Panel, in_rows

__all__ = [
    "LABEL_LETTER",
    "LEGEND_LINE",
    "LINE",
    "ROW_NAME",
    "TITLE",
    "Layout",
    "clipped",
    "columns_of_legend",
    "folded",
    "label_width",
    "too_wide",
]

WIDTH = 10.4
TITLE, LINE, LEGEND_LINE, LEGEND_HANDLE = 0.24, 0.14, 0.2, 0.55
"""Inches: above a panel, of a further line of text, of the legend's, and beside a name there."""
LETTER, LABEL_LETTER, BOLD_LETTER = 0.062, 0.066, 0.07
"""Inches of a letter: of a tick, of a label or the legend, and of a title."""
NARROWEST = 1.2
"""Inches of a panel: fewer stand side by side where they would be narrower."""
MOST_LETTERS = 60
"""Of a name beside or below an axis: as many as a label of a suite may have."""
ROW_NAME = LETTER * (MOST_LETTERS + 2)
"""Inches of a line with the name of a row: of a pair the first label and "&"."""
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Layout:
    """A grid of panels or maps. Units: inches, measured on the fonts of ``STYLE``.

    ``left``: the space of the first column for its ticks and labels, ``gap`` that of each other;
    ``below``: that of each row.
    """

    rows: Sequence[Sequence[Panel | Heat | None]]
    height: float
    left: float
    gap: float
    below: float = 0.42
    legend: float = 0.0
    right: float = 0.1

    @property
    def columns(self) -> int:
        """The largest number of panels in a row."""
        return max(map(len, self.rows))

    @property
    def panel_width(self) -> float:
        """The width of one panel."""
        return (WIDTH - self.right - self.left + self.gap) / self.columns - self.gap

    @property
    def fitted(self) -> Layout:
        """The same with rows broken evenly, so that no panel is too narrow."""
        fitting = int((WIDTH - self.right - self.left + self.gap) / (NARROWEST + self.gap))
        lines = -(-self.columns // max(fitting, 1))
        columns = -(-self.columns // lines)
        return replace(self, rows=[part for row in self.rows for part in in_rows(row, columns)])

    @property
    def _titles(self) -> list[str]:
        return [cell.title for row in self.rows for cell in row if cell is not None]

    def titled(self, title: str) -> str:
        """A title in lines that reach neither the next panel nor the edge.

        If one of the titles is too wide for a line, all are broken after their first colon.
        """
        breaks = label_width(self._titles, BOLD_LETTER) > self.panel_width
        parts = title.split(": ", 1 if breaks else 0)
        width = self.panel_width + min(0.9 * self.gap, self.right)
        return "\n".join(folded(part, width, BOLD_LETTER) for part in parts)

    @property
    def title(self) -> float:
        """The space above a panel."""
        return TITLE + LINE * max(
            (self.titled(title).count("\n") for title in self._titles), default=0
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        return WIDTH, self.legend + len(self.rows) * (self.title + self.height + self.below)

    def cells(self, canvas: mpl.Figure) -> Iterator[tuple[Axes, Any, bool]]:
        """The axes of each panel or map, with its title; whether it is the first of its row."""
        width, height = self.size
        fractions = {
            "left": self.left / width,
            "right": 1 - self.right / width,
            "top": 1 - (self.legend + self.title) / height,
            "bottom": self.below / height,
            "wspace": self.gap / self.panel_width,
            "hspace": (self.title + self.below) / self.height,
        }
        shape = len(self.rows), self.columns
        grid = canvas.subplots(*shape, squeeze=False, gridspec_kw=fractions)
        for line, row in zip(grid, self.rows, strict=True):
            for position, (axes, cell) in enumerate(zip_longest(line, row)):
                if cell is None:
                    axes.set_axis_off()
                    continue
                axes.set_title(self.titled(cell.title))
                yield axes, cell, position == 0


def folded(text: str, width: float, letter: float = LETTER) -> str:
    """``text`` in lines of about ``width`` inches at most."""
    return "\n".join(wrap(text, max(int(width / letter), 1)))


def clipped(names: Iterable[str]) -> list[str]:
    """Names without what is beyond ``MOST_LETTERS``."""
    return [
        name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
        for name in names
    ]


def label_width(labels: Iterable[str], letter: float = LETTER) -> float:
    """The approximate width of the longest. Units: inches."""
    return letter * max(map(len, labels), default=0)


def too_wide(ticks: Sequence[str], width: float) -> bool:
    """Whether names side by side would touch. Units: ``width`` of the axis in inches."""
    return bool(ticks) and label_width(ticks) * len(ticks) > 0.9 * width


def columns_of_legend(names: Collection[str]) -> int:
    """How many names of a legend fit side by side."""
    fitting = int(WIDTH / (LEGEND_HANDLE + label_width(names, LABEL_LETTER)))
    return max(min(fitting, len(names), MOST_COLUMNS), 1)
