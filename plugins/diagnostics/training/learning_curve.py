"""Learning curves: the metric after each evaluated epoch, and numbers that sum the curve up.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Figure 2; the summaries are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import wilson
from transferbench_plugins.diagnostics._flags import joined
from transferbench_plugins.diagnostics._history import (
    blank_epochs,
    divergence,
    evaluated,
    last_epoch,
)

__all__ = ["LEARNING_CURVE", "CurveParams"]

NEVER = "the test metric was not evaluated"


class CurveParams(Params):
    """``thresholds``: values of the test metric, as fractions, to time the curve at."""

    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.5, 0.75, 0.9)


class _Curve(NamedTuple):
    """The test metric of a trial that ended at epoch ``end``, of ``n`` test items.

    ``blank``: the evaluated epochs without a finite number; ``diverged``: what to flag where
    training ended in such.
    Shapes: epochs int64 (T,) ascending, values float64 (T,).
    """

    epochs: np.ndarray
    values: np.ndarray
    end: int
    n: int
    blank: Sequence[int]
    diverged: str | None

    @property
    def missing(self) -> str:
        """Why it has no point at all."""
        return self.diverged or NEVER


def measure(
    params: CurveParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve's points, its area, its peak and when it passed each threshold.

    The number of training images is not known to a diagnostic: for the train metric ``n`` counts
    evaluations, each of the whole training set. A curve that diverged ends in a point without a
    value.
    Error: Wilson over test items for each point of an accuracy; none for the summaries.
    """
    del context  # a curve draws nothing
    (subject,) = subjects
    history = subject.history
    points, end, n = evaluated(history, "test_metric"), last_epoch(history), len(subject.labels)
    curve = _Curve(*points, end, n, blank_epochs(history), divergence(history))
    yield from _test_points(curve, counts=subject.task == "multi-class")
    for epoch, value in zip(*evaluated(history, "train_metric"), strict=True):
        yield _point("train_metric", epoch, value, n=1)
    if curve.diverged:
        yield _point("test_metric", end, None, n=n, flag=curve.diverged)
        yield _point("train_metric", end, None, n=1, flag=curve.diverged)
    yield _area(curve)
    yield from _peak(curve)
    for threshold in params.thresholds:
        yield _passing(curve, threshold)


def _test_points(curve: _Curve, *, counts: bool) -> Iterator[Measurement]:
    """``counts``: the metric is a share of right items, so that Wilson's interval holds."""
    for epoch, value in zip(curve.epochs, curve.values, strict=True):
        bounds = wilson(value * curve.n, curve.n).fields() if counts else {}
        yield _point("test_metric", epoch, value, n=curve.n, **bounds)


def _point(metric: str, epoch: int, value: float | None, **fields: Any) -> Measurement:
    place = {"epoch": int(epoch)}
    return Measurement(metric=metric, value=value, unit="fraction", coordinates=place, **fields)


def _area(curve: _Curve) -> Measurement:
    """The mean height of the curve: trapezia over its epochs, divided by their span."""
    if len(curve.epochs) < 2:
        few = f"an area needs two evaluated epochs, found {len(curve.epochs)}"
        flag = joined(few, curve.diverged)
        return Measurement(metric="area", value=None, unit="fraction", n=curve.n, flag=flag)
    widths = np.diff(curve.epochs)
    heights = (curve.values[1:] + curve.values[:-1]) / 2
    area = float((widths * heights).sum() / widths.sum())
    first, last = int(curve.epochs[0]), int(curve.epochs[-1])
    whole = (first, last) == (0, curve.end)
    part = None if whole else f"over epochs {first} to {last} of 0 to {curve.end}"
    blank = ", ".join(str(epoch) for epoch in curve.blank if first < epoch < last)
    gaps = f"nothing finite at epochs {blank}" if blank else None
    flag = joined(part, gaps, curve.diverged)
    return Measurement(metric="area", value=area, unit="fraction", n=curve.n, flag=flag)


def _peak(curve: _Curve) -> Iterator[Measurement]:
    """The best test metric and its first epoch: what a curve shows, not a selected model."""
    best = int(curve.values.argmax()) if len(curve.values) else None
    for metric, unit, column in (
        ("best", "fraction", curve.values),
        ("best_epoch", "epochs", curve.epochs),
    ):
        value = None if best is None else float(column[best])
        missing = curve.missing if best is None else None
        yield Measurement(metric=metric, value=value, unit=unit, n=curve.n, flag=missing)


def _passing(curve: _Curve, threshold: float) -> Measurement:
    """The epochs until the metric first was ``threshold``, linear between evaluated epochs."""
    value = _first_passing(curve, threshold)
    flag = "not reached" if len(curve.values) else curve.missing
    return Measurement(
        metric="epochs_to_threshold",
        value=value,
        unit="epochs",
        n=curve.n,
        coordinates={"threshold": threshold},
        flag=flag if value is None else None,
    )


def _first_passing(curve: _Curve, threshold: float) -> float | None:
    above = np.flatnonzero(curve.values >= threshold)
    if not len(above):
        return None
    after = int(above[0])
    if after == 0:
        return float(curve.epochs[0])
    before = slice(after - 1, after + 1)
    return float(np.interp(threshold, curve.values[before], curve.epochs[before]))


LEARNING_CURVE = DiagnosticSpec(
    name="learning-curve",
    version=1,
    summary="Test and train metric per epoch, area under the curve, epochs to thresholds",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Figure 2",
    license="Apache-2.0",
    params=CurveParams,
    tiny={"thresholds": [0.5]},
    measure=measure,
    subjects="one",
    needs=frozenset({"history"}),
)
