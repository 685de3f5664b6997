"""What a part of a report is made of, and the run that it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Self, TypeAlias

from transferbench.measurements import Measurements
from transferbench.report.absences import NONE_ABSENT, Absences
from transferbench.report.comparisons import (
    ITSELF,
    Compared,
    TableLine,
    arms_in,
    difference,
    error_of,
    pairs_in,
    profile,
)
from transferbench.report.figures import Figure, PanelFigure
from transferbench.report.formats import ABSENT, label_text
from transferbench.report.summaries import flag_notes
from transferbench.report.tables import Cell, Table
from transferbench.suite import TRIAL, Diagnosis, Suite

__all__ = [
    "Block",
    "Blocks",
    "Condition",
    "Drawing",
    "Listing",
    "Part",
    "Published",
    "Scope",
    "View",
    "caption",
    "part",
    "part_by_view",
]

COMPARE = "Scale and data differ from this run's: compare the order of the numbers, not their size."
LONG_TEXT = 60


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Listing:
    """A table with its caption; ``published``: its numbers are of a paper, not of this run."""

    caption: str
    table: Table
    published: bool = False


Block: TypeAlias = Drawing | Listing

Blocks: TypeAlias = Iterator[Block | None]
"""The figures and tables of a part in order; None for one that has nothing to show."""


@dataclass(frozen=True)
class Part:
    """A section of an entry: figures and tables in order, then remarks on them.

    ``words``: what the glossary at the end of the page explains.
    """

    title: str
    blocks: Sequence[Block]
    notes: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """Numbers of a paper, to stand beside those of a run.

    ``task``: source and target; ``where`` in the paper; ``how``: printed or digitised.
    """

    task: str
    where: str
    how: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def parse(cls, task: str, where: str, how: str, table: str) -> Self:
        """``table``: lines of cells with bars between them, the head first; "-": not given."""
        lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
        head, *rows = [[ABSENT if cell == "-" else cell for cell in line] for line in lines]
        return cls(task, where, how, head, rows)

    @property
    def listing(self) -> Listing:
        """A table; a text that begins with a capital letter is a label."""
        rows = [
            (
                Cell(first),
                *(Cell(text, kind="label" if text[:1].isupper() else "number") for text in rest),
            )
            for first, *rest in self.rows
        ]
        heading = f"Published ({self.task}): {self.where}, {self.how}"
        return Listing(heading, Table(self.head, rows, COMPARE), published=True)


@dataclass(frozen=True)
class Condition:
    """A target under a perturbation; ``name``: the bare target where it is the scored one."""

    target: str
    perturbation: str
    name: str
    chance: float | None

    def of(self, rows: Measurements) -> Measurements:
        """The measurements in this condition."""
        return rows.select(target=self.target, perturbation=self.perturbation)


@dataclass(frozen=True)
class View:
    """What an entry has of one diagnostic with one set of parameters.

    ``labels``: its labels in the suite; ``heading``: how captions begin where the diagnostic was
    measured in several ways. ``rows``: the measurements, those without a value too. ``absent``:
    the arms, or pairs of arms, that the suite names and that were not measured.
    """

    plugin: str
    labels: tuple[str, ...]
    params: Mapping[str, Any]
    rows: Measurements
    absent: tuple[tuple[str, ...], ...]
    heading: str

    def drawing(
        self, figure: Figure, text: str, rows: Measurements | None = None, items: str = "images"
    ) -> Drawing:
        """A figure with ``caption``."""
        drawn = self.rows if rows is None else rows
        return Drawing(figure, f"{self.heading}{caption(text, figure, drawn, items)}")

    def listing(self, title: str, table: Table | None) -> Listing | None:
        """A table with its caption; None where there is none."""
        return Listing(f"{self.heading}{title}", table) if table else None


def caption(text: str, figure: Figure, rows: Measurements, items: str = "images") -> str:
    """``text``, how the intervals of the figure were made, and how many numbers are behind it.

    ``items``: what the ``n`` of a measurement counts, "" where it is of no interest.
    """
    error = "Means over replicates"
    if isinstance(figure, PanelFigure):
        bars = any(panel.bars for row in figure.rows for panel in row if panel)
        error = f"{'Bars' if bars else 'Bands'}: {error_of(rows)}"
    valued = rows.valued()
    arms = valued.groups("target", "perturbation", "initialization", "other_initialization")
    replicates = [
        len({*own.distinct("replicate"), *own.distinct("other_replicate")}) for own in arms.values()
    ]
    counted = f"{text} {error}; n: {_span(replicates)} replicates"
    if items and (counts := valued.distinct("n")):
        counted += f", {_span(counts)} {items} each"
    return f"{counted}."


def _span(counts: Iterable[float]) -> str:
    """The least and the most of several counts; one number where they are equal."""
    numbers = sorted({int(count) for count in counts}) or [0]
    return " to ".join(f"{count:,}" for count in dict.fromkeys((numbers[0], numbers[-1])))


@dataclass(frozen=True)
class Scope:
    """The entry that a part is about, and the diagnostics that it shows.

    ``measurements``: all of the entry, where the other arm of a network that was compared with
    itself is ``ITSELF``; ``plugins``: the names of the part's diagnostics;
    ``classes``: target -> the names of its classes or labels, where the run knows them.
    ``absences``: why something that the suite names is not there.
    """

    suite: Suite
    entry: str
    measurements: Measurements
    plugins: frozenset[str] = frozenset()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absences: Absences = NONE_ABSENT

    @property
    def pair(self) -> tuple[str, str]:
        """The arm that is scored and its baseline."""
        return self.suite.scoring.initialization, self.suite.scoring.baseline

    @property
    def trials(self) -> Measurements:
        """What the trials themselves measured."""
        return self.measurements.select(diagnostic=TRIAL)

    @property
    def rows(self) -> Measurements:
        """The measurements of the part's diagnostics."""
        uses = self.suite.diagnostics
        labels = [label for label, use in uses.items() if use.name in self.plugins]
        return self.measurements.select(diagnostic=labels)

    def arms(self, rows: Measurements) -> list[Compared]:
        """The arms that were measured, the scored pair first."""
        return arms_in(rows, self.suite)

    def pairs(self, rows: Measurements) -> list[Compared]:
        """The pairs of arms that were measured, two of one arm first."""
        return pairs_in(rows, self.suite)

    def difference(self) -> Compared:
        """The scored arm minus its baseline, paired."""
        return difference(self.pair)

    def conditions(self, rows: Measurements) -> list[tuple[Condition, Measurements]]:
        """Where these were measured, in the suite's order, and the rows of each condition."""
        scoring, groups = self.suite.scoring, rows.groups("target", "perturbation")
        conditions = []
        for target, label in product(self.suite.targets, self.suite.perturbations):
            if (target, label) in groups:
                name = target if label == scoring.perturbation else f"{target}, {label}"
                condition = Condition(target, label, name, scoring.chance_of(target))
                conditions.append((condition, groups[target, label]))
        return conditions

    def lines(self, rows: Measurements, **columns: Mapping[Any, str] | None) -> list[TableLine]:
        """The lines of a table: one for each condition and combination of labels.

        A mapping names the labels of a column, with their texts; None takes all that occur.
        """
        lines: list[TableLine] = [((c.name,), here) for c, here in self.conditions(rows)]
        for column, texts in columns.items():
            named = texts or {label: label_text(label) for label in rows.distinct(column)}
            lines = [
                ((*labels, text), here.select(**{column: label}))
                for labels, here in lines
                for label, text in named.items()
            ]
        return lines

    def pair_lines(self, rows: Measurements, *columns: str) -> list[TableLine]:
        """The lines of a table: one for each condition, pair and combination of labels."""
        return [
            ((condition.name, pair.name, *map(label_text, labels)), own)
            for condition, here in self.conditions(rows)
            for pair in self.pairs(here)
            for labels, own in here.select(**pair.labels).groups(*columns).items()
        ]

    def by_perturbation(
        self, rows: Measurements, least: int = 2
    ) -> list[tuple[str, list[str], Measurements]]:
        """The targets that were measured under ``least`` perturbations or more.

        With each its perturbations, in the suite's order, and its rows.
        """
        by_target = []
        for target in self.suite.targets:
            here = rows.select(target=target)
            measured = here.valued().distinct("perturbation")
            labels = [label for label in self.suite.perturbations if label in measured]
            if len(measured) >= least:
                by_target.append((target, labels, here))
        return by_target

    def gain_figure(
        self, rows: Measurements, name: str, *, chance: bool = False
    ) -> PanelFigure | None:
        """A fraction and its gain by perturbation, a row for each target under several of them.

        ``name``: of the fraction; ``chance``: whether to draw its chance.
        """
        scored = rows.select(initialization=self.pair)
        lines = []
        for target, labels, here in self.by_perturbation(scored):
            level = self.suite.scoring.chance_of(target) if chance else None
            value, gain = f"{target}: {name}, %", f"{target}: {name} gain, points"
            along = "perturbation", labels
            lines.append([
                profile(value, here, self.arms(here), *along, scale="percent", chance=level),
                profile(gain, here, [self.difference()], *along, scale="points", levels=(0,)),
            ])  # fmt: skip
        return PanelFigure(f"{name} and its gain by perturbation", lines, 2.2) if lines else None

    def views(self) -> list[View]:
        """The measurements of the part's diagnostics, one view for each set of parameters.

        Labels of the suite with equal parameters are one view.
        """
        groups: dict[str, dict[str, Diagnosis]] = {}
        for label, use in self.suite.diagnostics.items():
            if use.name in self.plugins:
                key = json.dumps([use.name, use.params], sort_keys=True)
                groups.setdefault(key, {})[label] = use
        firsts = [next(iter(group.values())) for group in groups.values()]
        views = []
        for first, group in zip(firsts, groups.values(), strict=True):
            rows = self.measurements.select(diagnostic=tuple(group))
            absent = tuple(_absent(group.values(), rows))
            settings = [use.params for use in firsts if use.name == first.name]
            heading = _heading(group, first.params, settings)
            views.append(View(first.name, tuple(group), first.params, rows, absent, heading))
        return views

    def part_by_view(
        self,
        title: str,
        draw: Callable[[Scope, View], Iterable[Block | None]],
        words: Mapping[str, str] | None = None,
    ) -> Part:
        """As ``part``, where each view is drawn on its own."""

        def draw_each(scope: Scope, views: Sequence[View]) -> Blocks:
            for view in views:
                yield from draw(scope, view)

        return self.part(title, draw_each, words)

    def part(
        self,
        title: str,
        draw: Callable[[Scope, Sequence[View]], Iterable[Block | None]],
        words: Mapping[str, str] | None = None,
    ) -> Part:
        """The part of the views that have values, with remarks on what is absent and flagged.

        Where nothing was measured it says so.
        """
        views = self.views()
        measured = [view for view in views if len(view.rows.valued())]
        blocks = [block for block in draw(self, measured) if block is not None] if measured else []
        if not blocks:
            labels = [label for view in views for label in view.labels]
            why = self.absences.reason(labels, [arms for view in views for arms in view.absent])
            note = f"{', '.join(labels)}: this run holds no measurement of it; {why}"
            return Part(title, (), [note], words or {})
        absent = [
            f"{', '.join(view.labels)}: not measured for "
            f"{self.absences.explained(view.labels, view.absent)}"
            for view in views
            if view.absent
        ]
        flags = [f"Flagged: {note}" for view in views for note in flag_notes(view.rows)]
        return Part(title, blocks, [*absent, *flags], words or {})


def _heading(
    labels: Iterable[str], own: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]
) -> str:
    """How captions begin where one diagnostic was measured in several ways: by what differs."""
    if len(settings) < 2:
        return ""
    differing = [
        f"{name} {' and '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in own.items()
        if any(params.get(name) != value for params in settings)
    ]
    short = ", ".join(text for text in differing if len(text) <= LONG_TEXT)
    return f"{', '.join(labels)}{f' ({short})' if short else ''}: "


def _absent(uses: Iterable[Diagnosis], rows: Measurements) -> list[tuple[str, ...]]:
    """The pairs or arms that the suite asks for and that no measurement names."""
    requested = [
        (pair.a, ITSELF if pair.a == pair.b and pair.replicates == "same" else pair.b)
        for use in uses
        for pair in use.pairs
    ]
    if requested:
        measured = rows.groups("initialization", "other_initialization")
        return [pair for pair in dict.fromkeys(requested) if pair not in measured]
    arms = rows.distinct("initialization")
    return [(arm,) for use in uses for arm in use.of or () if arm not in arms]


# --- builders of parts ------------------------------------------------------------------------

Build: TypeAlias = Callable[[Scope], Part]


def part(
    title: str, words: Mapping[str, str] | None = None
) -> Callable[[Callable[[Scope, Sequence[View]], Blocks]], Build]:
    """Decorates a function of all views: ``ReportPart.build`` for a part with this title."""
    return lambda draw: lambda scope: scope.part(title, draw, words)


def part_by_view(
    title: str, words: Mapping[str, str] | None = None
) -> Callable[[Callable[[Scope, View], Blocks]], Build]:
    """As ``part``, for a function of one view."""
    return lambda draw: lambda scope: scope.part_by_view(title, draw, words)
