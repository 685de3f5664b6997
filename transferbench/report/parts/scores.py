"""Transferability scores against what fine-tuning reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferbench.analysis.transferability import CORRELATIONS, correlate
from transferbench.measurements import Measurements
from transferbench.report.aggregates import Aggregates, Place, View, aggregate, places_of
from transferbench.report.drawing import MUTED, ArmStyle, render
from transferbench.report.formats import ABSENT, number
from transferbench.report.panels import Layout, legend_of, write_percent
from transferbench.report.parts.part import (
    OVER_NETWORKS,
    Block,
    Drawing,
    Listing,
    Part,
    Scope,
    counted,
    missing_part,
    view_notes,
)
from transferbench.report.summaries import Summary
from transferbench.report.tables import Cell, Table
from transferbench.statistics import Interval

__all__ = ["METRICS", "scores_part"]

SCORES = {
    "leep": ("leep",),
    "nce": ("nce",),
    "h-score": ("h_score", "regularised_h_score"),
    "logme": ("logme",),
    "nleep": ("nleep",),
    "linear-probe": ("probe_test_metric",),
    "knn": ("knn_accuracy",),
}
"""What of each diagnostic is a score: larger promises more."""

METRICS = {plugin: frozenset(metrics) for plugin, metrics in SCORES.items()}
METRICS["linear-probe"] |= {"probe_train_metric", "probe_strength"}
COLUMNS = 4

CAPTION = (
    "Each score of a starting point, computed without fine-tuning, against the test metric that "
    "fine-tuning from it reached; a point for each arm, the mean over replicates. A score is of "
    "use where the points rise from left to right."
)
NOTE = (
    "Correlation over arms of the mean score with the mean test metric: 1 where the score orders "
    "the arms as fine-tuning does, 0 where it says nothing; weighted: exchanges among the best "
    "count more. Brackets: 95% jackknife interval over replicates, cut at \N{MINUS SIGN}1 and 1."
)


class Score(NamedTuple):
    """One score: a metric of one diagnostic at one k, where it has a k."""

    view: View
    plugin: str
    metric: str
    k: float | None

    @property
    def name(self) -> str:
        """As a title."""
        text = self.metric.replace("_", " ")
        return text if self.k is None else f"{text}, k = {self.k:g}"

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of this score."""
        rows = self.view.rows
        same_k = rows["k"].isna() if self.k is None else rows["k"] == self.k
        return rows[(rows["metric"] == self.metric) & same_k]


def scores_part(scope: Scope) -> Part | None:
    """A panel for each score and place, and the table of rank correlations."""
    title, slug = "Transferability scores", "scores"
    if not scope.has(*SCORES):
        return None
    views = {plugin: scope.views(plugin, "checkpoint", "k") for plugin in SCORES}
    flat = [view for found in views.values() for view in found]
    scores = [score for plugin, found in views.items() for score in scores_of(plugin, found)]
    if not scores:
        return missing_part(title, slug, flat)
    places = places_of(pd.concat([score.rows for score in scores]), scope.suite)
    rows = pd.concat([score.rows for score in scores])
    told = f"{CAPTION} Bars: {OVER_NETWORKS} of both; {counted(rows, '')}."
    blocks: list[Block] = [
        *(Drawing(scatter(scope, scores, place), f"{place.name}. {told}") for place in places),
        Listing(
            "Rank correlation of scores with fine-tuning", correlation_table(scope, scores, places)
        ),
    ]
    return Part(title, slug, blocks, view_notes(flat))


def scores_of(plugin: str, views: Sequence[View]) -> Iterator[Score]:
    """Every score that was measured; one without any value has its place in the table too."""
    for view in views:
        for metric in SCORES[plugin]:
            of_metric = view.rows[view.rows["metric"] == metric]
            known = of_metric[of_metric["value"].notna()]
            ks = sorted((of_metric if known.empty else known)["k"].dropna().unique())
            for k in ks:
                yield Score(view, plugin, metric, float(k))
            if known["k"].isna().any() or (len(of_metric) and known.empty and not ks):
                yield Score(view, plugin, metric, None)


# --- the figure -------------------------------------------------------------------------------


def scatter(scope: Scope, scores: Sequence[Score], place: Place) -> Markup:
    """A panel for each score at one place."""
    frame = scope.measured.frame
    trials = place.of(frame[(frame["diagnostic"] == "trial") & (frame["metric"] == "test_metric")])
    truth = aggregate(trials, ["initialization"])
    lines = -(-len(scores) // COLUMNS)
    layout = Layout(lines, COLUMNS, 1.45, legend=0.46, left=0.6)

    def draw(figure: Figure) -> None:
        axes_of = figure.subplots(
            lines, COLUMNS, squeeze=False, sharey=True, gridspec_kw=layout.grid
        )
        grid = list(axes_of.flat)
        for axes, score in zip(grid, scores, strict=False):
            draw_score(axes, aggregate(place.of(score.rows), ["initialization"]), truth, scope)
            axes.set_title(score.name)
        for axes in grid[len(scores) :]:
            axes.set_axis_off()
        for axes in grid[::COLUMNS]:
            axes.set_ylabel("test metric, %")
        write_percent(grid[0].yaxis)
        legend_of(figure, grid, placed=True)

    name = f"{scope.anchor}-scores-{place.target}-{place.perturbation}"
    description = f"transferability scores against the fine-tuned test metric on {place.name}"
    return render(name, description, layout.size, draw, placed=True)


def draw_score(axes: Axes, scores: Aggregates, truth: Aggregates, scope: Scope) -> None:
    """A point with its two intervals for each arm that has both numbers."""
    for arm, style in scope.styles().items():
        score, reached = scores.get((arm,)), truth.get((arm,))
        if score and reached and score.summary and reached.summary:
            draw_point(axes, score.summary, reached.summary, style, arm)
    if not any(score.summary for score in scores.values()):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
    axes.grid(visible=True)
    axes.tick_params(axis="x", labelrotation=0)
    axes.margins(x=0.12)
    axes.set_xlabel("score")


def draw_point(axes: Axes, x: Summary, y: Summary, style: ArmStyle, label: str) -> None:
    """One arm."""
    places = [np.abs(np.subtract(one.bounds, one.mean))[:, None] for one in (x, y)]
    axes.errorbar(
        [x.mean], [y.mean], xerr=places[0], yerr=places[1], color=style.color, marker=style.marker,
        markersize=4.5, elinewidth=0.9, linestyle="", ecolor=MUTED, label=label,
    )  # fmt: skip


# --- the table --------------------------------------------------------------------------------


def correlation_table(scope: Scope, scores: Sequence[Score], places: Sequence[Place]) -> Table:
    """A row for each score at each place."""
    frame = scope.measured.frame
    trials = frame[frame["diagnostic"] == "trial"]
    lines = []
    for place in places:
        for score in scores:
            here = place.of(score.rows)
            known = here[here["value"].notna()]
            arms = Cell(str(known["initialization"].nunique()), kind="number")
            cells = (
                [unmeasured_cell(here)] * len(CORRELATIONS)
                if known.empty
                else correlation_cells(trials, score, place)
            )
            lines.append((Cell(place.name), Cell(score.name), arms, *cells))
    head = ("target", "score", "arms", "Kendall", "weighted Kendall", "Pearson")
    return Table(head, tuple(lines), NOTE)


def unmeasured_cell(rows: pd.DataFrame) -> Cell:
    """In the place of a number of a score without values; the commonest flag says why."""
    flags = rows["flag"].dropna().value_counts()
    why = f"not measured: {flags.index[0]}" if len(flags) else "not measured"
    return Cell(ABSENT, why, kind="number")


def correlation_cells(trials: pd.DataFrame, score: Score, place: Place) -> list[Cell]:
    """A score against the trials of one place, in the order of ``CORRELATIONS``."""
    truth = Measurements(place.of(trials)).select(diagnostic="trial", metric="test_metric")
    # One set of parameters at a time: two would give a network two values.
    found = correlate(Measurements(place.of(score.rows)), truth)
    return [correlation_cell(found[name]) for name in CORRELATIONS]


def correlation_cell(found: Interval) -> Cell:
    """A correlation with its interval, or why there is none."""
    if found.value is None:
        return Cell(ABSENT, found.reason or "", kind="number")
    if found.low is None or found.high is None:
        return Cell(
            number(found.value, 2), f"no interval, n\N{NO-BREAK SPACE}{found.n}", kind="number"
        )
    bounds = f"[{number(found.low, 2)}, {number(found.high, 2)}] n\N{NO-BREAK SPACE}{found.n}"
    return Cell(number(found.value, 2), bounds, kind="number")
