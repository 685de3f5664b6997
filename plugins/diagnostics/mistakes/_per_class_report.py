"""Per class: how well each is recognised, and what it is confused with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from transferbench import reporting as rp

__all__ = ["classes"]

METRICS = {"recall": "recall", "precision": "precision", "f1": "F1", "class_auc": "AUC"}
MOST_CLASSES = 30
"""Classes of a confusion matrix that is drawn."""
MOST_CONFUSIONS = 10

WORDS = {
    "recall": "the share of a class's test images that are predicted to be of it",
    "precision": "the share of the images predicted to be of a class that are of it",
    "F1": "the harmonic mean of recall and precision",
    "AUC of a class": "the probability that an image of the class has higher odds of it than one "
    "of another class",
}
NOTE = (
    "In %, means over replicates; brackets: 95% interval over n replicates, cut at 0 and 100. A "
    "class that is never predicted has no precision."
)
CONFUSED = "Mean over replicates of the images of a class that are predicted to be of another."
CAPTION = (
    "Confusion matrix, in % of the images of the true class (rows), the mean over replicates. The "
    "diagonal is the recall."
)


@rp.part_by_view("Per class", WORDS)
def classes(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """A table for each condition, its confusion matrices, and the most frequent confusions."""
    for condition, here in scope.conditions(view.rows):
        names = scope.classes.get(condition.target, ())
        arms = [arm for arm in scope.arms(here) if arm.name in scope.pair]
        lines = [
            ((_name(names, k),), here.select(**{"class": k}))
            for k in sorted(here.select(metric="recall").distinct("class"))
        ]
        compared = [
            rp.Compared(f"{title}, {arm.name}", {**arm.labels, "metric": metric}, arm.style)
            for arm in arms
            for metric, title in METRICS.items()
        ]
        table = rp.comparison(("class",), lines, compared, rp.fraction_cell, NOTE)
        yield view.listing(f"Classes of {condition.name}", table)
        matrices = [(arm.name, _shares(here.select(**arm.labels))) for arm in arms]
        measured = [(arm, shares) for arm, shares in matrices if len(shares)]
        if measured and len(measured[0][1]) <= MOST_CLASSES:
            yield _matrices(condition, names, measured, view)
        if confused := [*_confused(names, measured)]:
            head = ("arm", "class", "predicted", "images of the class, %")
            title = f"Most frequent confusions on {condition.name}"
            yield view.listing(title, rp.Table(head, confused, CONFUSED))


def _name(names: Sequence[str], k: float) -> str:
    """The name of a class, or its index where the run does not know it."""
    return names[int(k)] if int(k) < len(names) else f"{int(k)}"


def _shares(rows: rp.Measurements) -> NDArray[np.float64]:
    """The confusion matrix, each row divided by the images of its class; NaN without any.

    Shapes: (K, K), (0, 0) where it was not measured.
    """
    own = rows.select(metric="confusion")
    order = sorted(own.valued().distinct("class"))
    if not order:
        return np.empty((0, 0))
    counts_KK = rp.grid_means(own, ("class", "predicted"), order, order)
    total_K1 = counts_KK.sum(axis=1, keepdims=True)
    shares_KK = np.full(counts_KK.shape, np.nan)
    np.divide(counts_KK, total_K1, out=shares_KK, where=total_K1 > 0)
    return shares_KK


def _matrices(
    condition: rp.Condition,
    names: Sequence[str],
    measured: Sequence[tuple[str, NDArray[np.float64]]],
    view: rp.View,
) -> rp.Drawing:
    """A map for each arm, the first class on top."""
    heats = []
    for arm, shares in measured:
        ticks = [_name(names, k) for k in range(len(shares))]
        title = f"{condition.name}: {arm}"
        heats.append(rp.Heat(title, shares[::-1], ticks, ticks[::-1], "predicted", "class"))
    description = f"confusion matrices of the scored pair on {condition.name}"
    size = max(2.4, 0.16 * len(measured[0][1]))
    figure = rp.HeatFigure(description, [heats], label="images of the class, %", percent=True,
                           height=size)  # fmt: skip
    rows = condition.of(view.rows).select(metric="confusion")
    return view.drawing(figure, CAPTION, rows, items="")


def _confused(
    names: Sequence[str], measured: Sequence[tuple[str, NDArray[np.float64]]]
) -> Iterator[tuple[rp.Cell, ...]]:
    """The classes that an arm most often takes for another."""
    for arm, shares in measured:
        others = np.where(np.eye(len(shares), dtype=bool), 0.0, np.nan_to_num(shares))
        for flat in np.argsort(-others, axis=None, kind="stable")[:MOST_CONFUSIONS]:
            k, other = divmod(int(flat), len(shares))
            if others[k, other] > 0:
                share = rp.Cell(f"{100 * others[k, other]:.1f}", kind="number")
                yield rp.Cell(arm), rp.Cell(_name(names, k)), rp.Cell(_name(names, other)), share
