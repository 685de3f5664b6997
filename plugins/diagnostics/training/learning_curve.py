"""Learning curves: the metric at each evaluated epoch, and summaries of the curve.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Figure 2; the summaries are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Params,
    ReportPart,
    Subject,
    SubmittedTrial,
)
from transferbench.statistics import exact_share
from transferbench_plugins.diagnostics._history import (
    History,
    divergence_flag,
    last_epoch,
    metric_curve,
    non_finite_epochs,
)
from transferbench_plugins.diagnostics._measurement import join_flags, measurement

__all__ = ["LEARNING_CURVE", "CurveParams"]

NOT_EVALUATED = "the test metric was not evaluated"


class CurveParams(Params):
    """``thresholds``: values of the test metric, as fractions, at which to time the curve."""

    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.5, 0.75, 0.9)


class _Curve(NamedTuple):
    """The test metric of a trial that ended at epoch ``end``, over ``n`` test items.

    ``non_finite``: evaluated epochs without a finite value. ``diverged``: the flag of a training
    that ended in such epochs.
    Shapes: epochs int64 (T,) ascending, values float64 (T,).
    """

    epochs: np.ndarray
    values: np.ndarray
    end: int
    n: int
    non_finite: Sequence[int]
    diverged: str | None

    @property
    def missing(self) -> str:
        """Why the curve has no points."""
        return self.diverged or NOT_EVALUATED


def measure(
    params: CurveParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve's points, area and peak, and the epochs until it reached each threshold.

    A diagnostic has no access to the number of training images: for the train metric ``n`` counts
    evaluations, each on the full training set. A curve that diverged ends in a point without a
    value.
    Error: exact over test items for each point of an accuracy; none for the summaries.
    """
    del context  # no randomness
    (subject,) = subjects
    history = subject.history
    curve = _curve(history, len(subject.labels))
    n, is_share = curve.n, subject.task == "multi-class" and subject.metric == "accuracy"
    for epoch, value in zip(curve.epochs, curve.values, strict=True):
        share = exact_share(value * n, n)._replace(value=value) if is_share else value
        yield measurement("test_metric", share, "fraction", n, {"epoch": int(epoch)})
    for epoch, value in zip(*metric_curve(history, "train_metric"), strict=True):
        yield measurement("train_metric", value, "fraction", 1, {"epoch": int(epoch)})
    if curve.diverged:
        for metric, count in (("test_metric", n), ("train_metric", 1)):
            at = {"epoch": curve.end}
            yield measurement(metric, None, "fraction", count, at, flag=curve.diverged)
    yield from _summaries(params, curve)


def recompute(params: CurveParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """The summaries, from the points of the curve."""
    (trial,) = trials
    if trial.history is not None:
        yield from _summaries(params, _curve(trial.history, len(trial.labels)))


def _curve(history: History, n: int) -> _Curve:
    points, end = metric_curve(history, "test_metric"), last_epoch(history)
    return _Curve(*points, end, n, non_finite_epochs(history), divergence_flag(history))


def _summaries(params: CurveParams, curve: _Curve) -> Iterator[Measurement]:
    yield _area(curve)
    yield from _peak(curve)
    for threshold in params.thresholds:
        yield _epochs_to_threshold(curve, threshold)


def _area(curve: _Curve) -> Measurement:
    """The mean height of the curve: its trapezoidal integral over epochs, divided by their span."""
    if len(curve.epochs) < 2:
        too_few = f"an area needs two evaluated epochs, found {len(curve.epochs)}"
        flag = join_flags(too_few, curve.diverged)
        return measurement("area", None, "fraction", curve.n, flag=flag)
    widths = np.diff(curve.epochs)
    heights = (curve.values[1:] + curve.values[:-1]) / 2
    area = float((widths * heights).sum() / widths.sum())
    first, last = int(curve.epochs[0]), int(curve.epochs[-1])
    complete = (first, last) == (0, curve.end)
    part = None if complete else f"over epochs {first} to {last} of 0 to {curve.end}"
    missing = ", ".join(str(epoch) for epoch in curve.non_finite if first < epoch < last)
    gaps = f"nothing finite at epochs {missing}" if missing else None
    flag = join_flags(part, gaps, curve.diverged)
    return measurement("area", area, "fraction", curve.n, flag=flag)


def _peak(curve: _Curve) -> Iterator[Measurement]:
    """The best test metric and its first epoch: a property of the curve, not a selected model."""
    best = epoch = None
    if len(curve.values):
        index = int(curve.values.argmax())
        best, epoch = curve.values[index], curve.epochs[index]
    yield measurement("best", best, "fraction", curve.n, missing=curve.missing)
    yield measurement("best_epoch", epoch, "epochs", curve.n, missing=curve.missing)


def _epochs_to_threshold(curve: _Curve, threshold: float) -> Measurement:
    """The epochs until the metric first reached ``threshold``, interpolated linearly."""
    at = {"threshold": threshold}
    missing = "not reached" if len(curve.values) else curve.missing
    epochs = _first_crossing(curve, threshold)
    return measurement("epochs_to_threshold", epochs, "epochs", curve.n, at, missing=missing)


def _first_crossing(curve: _Curve, threshold: float) -> float | None:
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
    recompute=recompute,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset(
        {"area", "best", "best_epoch", "epochs_to_threshold", "test_metric", "train_metric"}
    ),
    ranges=dict.fromkeys(("area", "best", "test_metric", "train_metric"), (0, 1)),
    needs=frozenset({"history"}),
    report=ReportPart(
        build=f"{__package__}._learning_curve_report:curves",
        metrics=frozenset({"test_metric", "train_metric"}),
    ),
)
