"""The score of entries against what they cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from transferbench.leaderboard.site.entries import EntryPage
from transferbench.leaderboard.site.plots import Datum, Plot, Series, front_of, plot
from transferbench.leaderboard.table import BoardTable, Row

__all__ = ["pareto_plots"]

NAMED = 12
"""Entries whose names stand in a plot; of more, their ranks."""


def pareto_plots(table: BoardTable, pages: Sequence[EntryPage]) -> list[Plot]:
    """The best score of each entry against what it costs: its size, and its training."""
    costs = {
        "parameters": {page.candidate.folder: page.cost.parameters for page in pages},
        "multiply-adds of training": {page.candidate.folder: page.cost.training for page in pages},
    }
    first: dict[str, Row] = {}
    for row in table.rows:
        first.setdefault(row.folder, row)
    plots = []
    for label, cost in costs.items():
        points = [(row, value) for row in first.values() if (value := cost[row.folder])]
        if len(points) > 1:
            plots.append(_pareto_plot(label, points))
    return plots


def _pareto_plot(label: str, points: Sequence[tuple[Row, int]]) -> Plot:
    data = []
    for (row, cost), name in zip(points, _names([row for row, _ in points]), strict=True):
        score, low, high = row.cells["score"]
        data.append(Datum(cost, _number(score), _bound(low), _bound(high), name))
    front = front_of([(each.x, each.y) for each in data])
    return plot(
        [Series("entries", data, joined=False)],
        title=f"Score against {label}",
        description=f"The scores of {len(data)} entries against {label}, with the Pareto front",
        x_label=f"{label}, logarithmic",
        y_label="score",
        log_x=True,
        front=front,
    )


def _names(rows: Sequence[Row]) -> list[str]:
    """The entries without family and weights where these tell none apart; of many, the ranks."""
    if len(rows) > NAMED:
        return [str(row.cells["rank"][0]) for row in rows]
    entries = [str(row.cells["entry"][0]) for row in rows]
    short = [entry.partition("+")[0].rpartition("/")[2] for entry in entries]
    return short if len(set(short)) == len(short) else entries


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"a score is a number, not {value!r}")
    return float(value)


def _bound(value: object) -> float | None:
    return None if value is None else _number(value)
