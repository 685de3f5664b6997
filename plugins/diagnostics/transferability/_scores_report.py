"""Transferability scores against what fine-tuning reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transferbench import reporting as rp
from transferbench.analysis.transferability import CORRELATIONS, correlate
from transferbench.statistics import Interval
from transferbench.suite import SOURCE

__all__ = ["scores"]

METRICS = {
    "leep": ("leep",),
    "nce": ("nce",),
    "h-score": ("h_score", "regularised_h_score"),
    "logme": ("logme",),
    "nleep": ("nleep",),
    "linear-probe": ("probe_test_metric",),
    "knn": ("knn_accuracy",),
}
"""The metrics of each diagnostic that are scores: larger promises more."""

COLUMNS = 4

CAPTION = (
    "Each score of a starting point, computed without fine-tuning, against the test metric that "
    "fine-tuning from it reached; a point for each arm, the mean over replicates. A score is "
    "useful where the points rise from left to right."
)
NOTE = (
    "Correlation over arms of the mean score with the mean test metric: 1 where the score orders "
    "the arms as fine-tuning does, 0 where it says nothing; weighted: exchanges among the best "
    "count more. Brackets: 95% interval over replicates, of Kendall's from the pairs of arms whose "
    "order is established; of the weighted and of Pearson's none is known that holds."
)


class Score(NamedTuple):
    """One score: a metric of one diagnostic at one k, where it has a k."""

    metric: str
    k: float | None
    rows: rp.Measurements

    @property
    def name(self) -> str:
        """The title of its panel."""
        text = self.metric.replace("_", " ")
        return text if self.k is None else f"{text}, k = {self.k:g}"


@rp.part("Transferability scores")
def scores(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
    """A panel for each score and condition, and the table of rank correlations."""
    del views  # a score without any value has its row in the table too
    measured = [score for view in scope.views() for score in _scores(view)]
    rows = scope.rows.select(metric=[score.metric for score in measured])
    conditions = [condition for condition, _ in scope.conditions(rows)]
    for condition in conditions:
        panels = [_panel(scope, score, condition) for score in measured]
        figure = rp.PanelFigure(
            f"transferability scores against the fine-tuned test metric on {condition.name}",
            rp.in_rows(panels, COLUMNS),
        )
        text = rp.caption(f"{condition.name}. {CAPTION}", figure, rows, "")
        yield rp.Drawing(figure, text)
    lines = [_line(scope, score, condition) for condition in conditions for score in measured]
    head = ("target", "score", "arms", "Kendall", "weighted Kendall", "Pearson")
    table = rp.Table(head, lines, NOTE)
    yield rp.Listing("Rank correlation of scores with fine-tuning", table)


def _scores(view: rp.View) -> Iterator[Score]:
    """Every score of the source; one without any value has its row in the table too."""
    for metric in METRICS[view.plugin]:
        rows = view.rows.select(metric=metric, other_initialization=SOURCE)
        measured = rows.valued() if len(rows.valued()) else rows
        for k in sorted(measured.distinct("k")):
            yield Score(metric, k, rows.select(k=k))
        if len(measured.select(k=None)):
            yield Score(metric, None, rows.select(k=None))


def _truth(scope: rp.Scope, condition: rp.Condition) -> rp.Measurements:
    """What fine-tuning reached in one condition."""
    return condition.of(scope.trials.select(metric="test_metric"))


def _panel(scope: rp.Scope, score: Score, condition: rp.Condition) -> rp.Panel:
    """A point with its two intervals for each arm that has both numbers."""
    rows, truth = condition.of(score.rows), _truth(scope, condition)
    series = []
    for arm in scope.arms(truth):
        x, y = arm.of(rows), arm.of(truth)
        if x and y and x.summary and y.summary:
            style = arm.style._replace(dash="")
            series.append(rp.Series(arm.name, [x.summary], [y.summary], style))
    return rp.Panel(
        score.name,
        series,
        x_label="score",
        y_label="test metric, %",
        scale="percent",
        bars=True,
        remark="" if len(rows.valued()) else "not measured",
    )


def _line(scope: rp.Scope, score: Score, condition: rp.Condition) -> tuple[rp.Cell, ...]:
    """The correlations of a score in one condition; without values, the most frequent flag."""
    rows = condition.of(score.rows)
    arms = len(rows.valued().distinct("initialization"))
    if arms:
        intervals = correlate(rows, _truth(scope, condition))
        cells = [_correlation_cell(intervals[name]) for name in CORRELATIONS]
    else:
        flags = [flag for flag in rows.labels("flag") if flag is not None]
        reason = f"not measured: {max(flags, key=flags.count)}" if flags else "not measured"
        cells = [rp.Cell(rp.ABSENT, reason, kind="number")] * len(CORRELATIONS)
    count = rp.Cell(str(arms), kind="number")
    return (rp.Cell(condition.name), rp.Cell(score.name), count, *cells)


def _correlation_cell(interval: Interval) -> rp.Cell:
    """A correlation with its interval, or why there is none."""
    summary = rp.as_summary(interval)
    if summary is None:
        return rp.Cell(rp.ABSENT, interval.reason or "", kind="number")
    return rp.decimal_cell(rp.Aggregate(summary), 2)
