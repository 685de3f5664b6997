"""Small plots as geometry: a template writes them as SVG, which has the page's colours.

The bytes depend on the numbers alone, and on no drawing library's version.
Units: pixels of the plot's own coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

__all__ = [
    "Datum",
    "Plot",
    "ScoreAxis",
    "Series",
    "Span",
    "Tick",
    "compact",
    "front_of",
    "plot",
    "span_of",
]

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BELOW = 44, 12, 10, 40
SLANTED = 34
"""More room below, where names are slanted."""
LETTER = 6.2
NAME_LINE = 11.0
"""Between names above each other."""
OFFSET = 7
"""From a point to its name."""
MOST_TICKS = 5
BAR = 100.0
NEAR = 0.35
"""Of the highest score: where a lower one is below it, a bar begins at chance."""
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Datum(NamedTuple):
    """A point with its interval, and a name beside it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""


class Series(NamedTuple):
    """Points, in a line where they are ``joined``."""

    label: str
    data: Sequence[Datum]
    joined: bool = True


class Tick(NamedTuple):
    """A label at a position."""

    at: float
    label: str


class Mark(NamedTuple):
    """A point in pixels; ``before``: its name stands to the left, on the line ``name_y``."""

    x: float
    y: float
    low: float | None
    high: float | None
    name: str
    before: bool
    name_y: float

    @property
    def name_ends(self) -> tuple[float, float]:
        """Where its name begins and ends."""
        width = LETTER * len(self.name)
        start = self.x - OFFSET - width if self.before else self.x + OFFSET
        return round(start, 1), round(start + width, 1)


class Line(NamedTuple):
    """A series in pixels; ``path``: the points of a polyline."""

    label: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """What a template draws; ``description`` is the text alternative."""

    title: str
    description: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    guides: tuple[Tick, ...]
    front: str
    slanted: bool
    height: float
    left: float = LEFT
    top: float = TOP
    right: float = WIDTH - RIGHT
    width: float = WIDTH

    @property
    def bottom(self) -> float:
        """Where the x axis is."""
        return self.height - BELOW - (SLANTED if self.slanted else 0)


class Span(NamedTuple):
    """An axis: values from ``low`` to ``high`` at pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, own = (map(math.log10, (self.low, self.high, value)) if self.log
                          else (self.low, self.high, value))  # fmt: skip
        return round(self.start + (own - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        """Round values within."""
        values = _decades(self.low, self.high) if self.log else _steps(self.low, self.high)
        return [Tick(self.at(value), compact(value)) for value in values]


class ScoreAxis:
    """Scores to pixels of a bar, from below the lowest bound of any row to the highest."""

    width = BAR

    def __init__(self, ends: Sequence[float | None]) -> None:
        values = [end for end in ends if end is not None]
        low, high = min(values, default=0.0), max([1.0, *values])
        # Chance is shown where the scores are near it: else all intervals would be dots.
        low = 0.0 if 0 <= low < NEAR * high else low - 0.1 * (high - low)
        self._span = Span(low, high, 5, BAR - 5)

    def at(self, score: float) -> float:
        """The pixel of a score."""
        return self._span.at(score)

    @property
    def marks(self) -> list[float]:
        """The pixels of chance and of the reference, where they are on it."""
        return [self.at(level) for level in (0.0, 1.0) if level >= self._span.low]


def span_of(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Span:
    """The axis that holds ``values``, which are positive on a logarithmic one, and some room."""
    points = list(values)
    low, high = min(points), max(points)
    if log:
        room = (high / low) ** 0.14 if high > low else 2.0
        return Span(low / room, high * room, start, end, log=True)
    room = 0.06 * (high - low) or 0.06 * abs(high) or 0.5
    return Span(low - room, high + room, start, end)


def _steps(low: float, high: float) -> list[float]:
    scale = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    step = next(s * scale for s in (1, 2, 5, 10) if (high - low) / (s * scale) <= MOST_TICKS)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(values) <= MOST_TICKS:
            break
    if len(values) < 2:  # as within a decade, where the logarithm is nearly straight
        return _steps(low, high)
    return values[:: -(-len(values) // MOST_TICKS)]


def compact(value: float) -> str:
    """A number in three digits: ``0.25``, ``174k``, ``1.2G``."""
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def plot(  # noqa: PLR0913  # keywords, one for each part
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] = (),
    log_x: bool = False,
    guides: Sequence[tuple[float, str]] = (),
    front: Sequence[tuple[float, float]] = (),
    ranks: bool = False,
) -> Plot:
    """A plot of series; ``x_names`` name the positions 0, 1, ...; ``guides``: dashed levels.

    ``front``: corners of a staircase. ``ranks``: y counts down from 1 at the top.
    """
    data = list(chain.from_iterable(each.data for each in series))
    slanted = len(x_names) > 1 and (
        max(map(len, x_names)) * LETTER > (WIDTH - LEFT - RIGHT) / len(x_names)
    )
    height = HEIGHT + (SLANTED if slanted else 0)
    across = span_of([d.x for d in data], LEFT + 6, WIDTH - RIGHT - 6, log=log_x)
    if x_names:
        across = Span(-0.35, max(len(x_names) - 0.65, 0.35), LEFT, WIDTH - RIGHT)
    bottom = HEIGHT - BELOW
    levels = [v for d in data for v in (d.y, d.low, d.high) if v is not None]
    up = span_of([*levels, *(level for level, _ in guides)], bottom, TOP)
    y_ticks = up.ticks()
    if ranks:
        up = Span(max(levels) + 0.5, 0.5, bottom, TOP)
        y_ticks = [Tick(up.at(k), str(k)) for k in range(1, int(max(levels)) + 1)]
    return Plot(
        title=title,
        description=description,
        x_label=x_label,
        y_label=y_label,
        lines=tuple(_line(each, across, up) for each in series if each.data),
        x_ticks=tuple(Tick(across.at(k), name) for k, name in enumerate(x_names))
        or tuple(across.ticks()),
        y_ticks=tuple(y_ticks),
        guides=tuple(Tick(up.at(level), name) for level, name in guides),
        front=_staircase(front, across, up),
        slanted=slanted,
        height=height,
    )


def _line(series: Series, across: Span, up: Span) -> Line:
    marks = tuple(
        Mark(x := across.at(d.x), up.at(d.y), d.low if d.low is None else up.at(d.low),
             d.high if d.high is None else up.at(d.high), d.name,
             before=x + LETTER * len(d.name) > across.end, name_y=up.at(d.y) - 6)
        for d in series.data
    )  # fmt: skip
    path = _path((mark.x, mark.y) for mark in marks) if series.joined else ""
    return Line(series.label, path, _with_names_apart(marks))


def _with_names_apart(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """The marks, with names that would cover each other moved up, from the lowest on."""
    levels: dict[Mark, float] = {}
    for mark in sorted((each for each in marks if each.name), key=lambda each: -each.name_y):
        start, end = mark.name_ends
        level = mark.name_y
        for other, taken in sorted(levels.items(), key=lambda item: -item[1]):
            low, high = other.name_ends
            if low < end and start < high and abs(level - taken) < NAME_LINE:
                level = taken - NAME_LINE
        levels[mark] = round(level, 1)
    return tuple(mark._replace(name_y=levels.get(mark, mark.name_y)) for mark in marks)


def _path(corners: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in corners)


def _staircase(points: Sequence[tuple[float, float]], across: Span, up: Span) -> str:
    """From each point to the right, and up to the next."""
    corners = []
    for k, (x, y) in enumerate(points):
        corners += [(across.at(x), up.at(points[max(k - 1, 0)][1])), (across.at(x), up.at(y))]
    return _path([*corners, (across.end + 6, corners[-1][1])]) if corners else ""


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (cost, score): the points that none beats at the same cost or less."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front
