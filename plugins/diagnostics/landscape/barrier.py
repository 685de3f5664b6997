"""Performance barrier: loss and metric on the line between two networks.

With alignment the channels of the second network are first permuted to match those of the first.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.3 and Figures 4, 12, 16; Frankle et al.
2020, arXiv 1912.05671, for the height as the largest excess over the chord; Entezari et al. 2021,
arXiv 2110.06296, and Ainsworth et al. 2022, arXiv 2209.04836 (weight matching), Jordan et al. 2022,
arXiv 2211.08403 (REPAIR), for the alignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from transferbench.metrics import Evaluation
from transferbench.records import Coordinate, Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, ReportPart, Subject
from transferbench_plugins.diagnostics._measurement import measurement
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

if TYPE_CHECKING:
    from transferbench_plugins.diagnostics.landscape._line import Curve, NetworkLine

__all__ = ["ALIGNED_BARRIER", "BARRIER", "AlignedBarrierParams", "BarrierParams"]

PointCoordinates = Mapping[str, Coordinate]

BARRIERS = {
    "barrier_loss": "nats",
    "barrier_metric": "fraction",
    "barrier_metric_relative": "fraction",
}
"""The barriers and their units."""

POSITIONS = ("sup", "mid")
"""Where each barrier is measured: at its largest, and at the midpoint."""

UNDEFINED = "not finite or not defined here"
MISSING = "a point between the ends has no finite value"


class GridParams(LineParams):
    """``points``: grid points in [0, 1], ends included; odd, so that there is a midpoint.

    ``splits``: the images to evaluate on.
    """

    points: Annotated[int, Field(ge=3, le=1001)] = 11
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")

    @model_validator(mode="after")
    def _has_midpoint(self) -> Self:
        if self.points % 2 == 0:
            raise ValueError(f"points must be odd, so that one is the midpoint, not {self.points}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError("splits names train, test or both, each once")
        return self


class BarrierParams(GridParams):
    """``extrapolation``: continue the curve to these values of lambda, such as (-1, 2)."""

    extrapolation: tuple[
        Annotated[float, Field(ge=-10, le=0)], Annotated[float, Field(ge=1, le=11)]
    ] = (0.0, 1.0)


class AlignedBarrierParams(GridParams):
    """``repair``: apply REPAIR to networks without batch statistics, as a further curve."""

    repair: bool = True


def _measure_barrier(
    params: BarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve, and its height over the chord between its ends, in [0, 1].

    B_sup = max over lambda of L(lambda) - [(1 - lambda) L(0) + lambda L(1)], B_mid the same at 1/2;
    for the metric with reversed sign, so that a barrier is positive, and also relative to the mean
    metric of the ends. All weights are interpolated, heads included; batch statistics are
    recomputed at each point, the ends included.
    Units: nats and fractions. Error: no interval; compare replicates.
    """
    from transferbench_plugins.diagnostics.landscape._line import incompatibility, line_between

    if reason := incompatibility(subjects, params):
        for split in params.splits:
            yield from _undefined(reason, {"split": split})
        return
    line = line_between(subjects, params, params.splits, context)
    weights = _grid(params.points, params.extrapolation)
    yield from _curve_measurements(line, weights, line.interpolate(weights), {})


def _measure_aligned_barrier(
    params: AlignedBarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve and barriers of ``barrier``, for each alignment of the two networks.

    ``alignment``: ``before`` without, ``matched`` with the channels of the second network permuted,
    ``repaired`` with activation statistics restored as well. Batch statistics are recomputed at
    each point in all cases, which is REPAIR for networks that have them.
    If the symmetries of the network are unknown, ``matched`` is flagged and has no value.
    """
    from transferbench.analysis.weight_matching import UnmatchableError
    from transferbench_plugins.diagnostics.landscape._alignment import (
        aligned_curves,
        match_channels,
    )
    from transferbench_plugins.diagnostics.landscape._line import incompatibility, line_between

    if reason := incompatibility(subjects, params):
        for split in params.splits:
            for alignment in ("before", "matched"):
                yield from _undefined(reason, {"split": split, "alignment": alignment})
        return
    line = line_between(subjects, params, params.splits, context)
    weights = _grid(params.points)
    curves = {"before": line.interpolate(weights)}
    try:
        aligned = match_channels(line, subjects[0].modules[HEAD], context.generator)
    except UnmatchableError as error:
        for split in params.splits:
            yield from _undefined(str(error), {"split": split, "alignment": "matched"})
    else:
        curves |= aligned_curves(aligned, weights, repair=params.repair)
    for alignment, curve in curves.items():
        yield from _curve_measurements(line, weights, curve, {"alignment": alignment})


def _grid(points: int, extrapolation: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """``points`` equally spaced in [0, 1], continued with this spacing to ``extrapolation``."""
    last = points - 1
    low, high = (round(bound * last) for bound in extrapolation)
    # Quotients of integers: 0, 1/2 and 1 are exact.
    return [index / last for index in range(low, high + 1)]


# --- measurements -----------------------------------------------------------------------------


def _curve_measurements(
    line: NetworkLine, weights: Sequence[float], curve: Curve, more: PointCoordinates
) -> Iterator[Measurement]:
    """For each split, loss and metric at each point of the curve, then its barriers."""
    for split, examples in line.splits.items():
        n, coordinates = len(examples.targets), {"split": split, **more}
        points = [by_split[split] for by_split in curve]
        for weight, (loss, metric) in zip(weights, points, strict=True):
            at = {"lambda": round(weight, 6), **coordinates}
            yield measurement("loss", loss, "nats", n, at, missing=UNDEFINED)
            yield measurement("metric", metric, "fraction", n, at, missing=UNDEFINED)
        yield from _barriers(weights, points, n, coordinates)


def _barriers(
    weights: Sequence[float], points: Sequence[Evaluation], n: int, coordinates: PointCoordinates
) -> Iterator[Measurement]:
    """The barriers of loss and metric; for the metric also relative to the mean of its ends."""
    loss = _height(weights, [point.loss for point in points])
    drop = _height(weights, [None if p.metric is None else -p.metric for p in points])
    relative, reason = None, MISSING
    if drop is not None and drop.ends == 0:
        reason = "the metric is 0 at both ends"
    elif drop is not None:
        relative = _Height(drop.sup / -drop.ends, drop.mid / -drop.ends, 1.0)
    yield from _sup_and_mid("barrier_loss", loss, n, coordinates, MISSING)
    yield from _sup_and_mid("barrier_metric", drop, n, coordinates, MISSING)
    yield from _sup_and_mid("barrier_metric_relative", relative, n, coordinates, reason)


class _Height(NamedTuple):
    """The largest excess over the chord, the excess at the midpoint, and the mean of the ends."""

    sup: float
    mid: float
    ends: float


def _height(weights: Sequence[float], values: Sequence[float | None]) -> _Height | None:
    """The height of the part in [0, 1]; None if a value is missing there."""
    inside = [(w, v) for w, v in zip(weights, values, strict=True) if 0 <= w <= 1]
    if any(value is None for _, value in inside):
        return None
    lambdas, heights = np.array(inside, dtype=np.float64).T
    start, end = heights[0], heights[-1]
    # In this form a constant curve has an excess of exactly 0.
    excess = heights - (start + lambdas * (end - start))
    excess[0] = excess[-1] = 0.0
    return _Height(float(excess.max()), float(excess[len(excess) // 2]), float((start + end) / 2))


def _sup_and_mid(
    barrier: str, height: _Height | None, n: int, coordinates: PointCoordinates, missing: str
) -> Iterator[Measurement]:
    values = (None, None) if height is None else height[:2]
    for position, value in zip(POSITIONS, values, strict=True):
        metric, unit = f"{barrier}_{position}", BARRIERS[barrier]
        yield measurement(metric, value, unit, n, coordinates, missing=missing)


def _undefined(reason: str, coordinates: PointCoordinates) -> Iterator[Measurement]:
    """The barriers of a line that cannot be computed, flagged with the reason."""
    for barrier in BARRIERS:
        yield from _sup_and_mid(barrier, None, 0, coordinates, reason)


# --- specs ------------------------------------------------------------------------------------


def _barrier_cost(params: BarrierParams) -> float:
    low, high = params.extrapolation
    return (high - low) * (params.points - 1) * len(params.splits)


def _aligned_barrier_cost(params: AlignedBarrierParams) -> float:
    return (3 if params.repair else 2) * params.points * len(params.splits)


TINY = {"points": 3, "limit": 16, "calibration": 16}
ZERO = {f"{barrier}_{position}": 0 for barrier in BARRIERS for position in POSITIONS}
METRICS = frozenset({*ZERO, "metric", "loss"})
RANGES = {
    "metric": (0, 1),
    "loss": (0, math.inf),
    "barrier_loss_sup": (0, math.inf),
    "barrier_metric_sup": (0, 1),
    "barrier_metric_mid": (-1, 1),
    "barrier_metric_relative_sup": (0, 2),
    "barrier_metric_relative_mid": (-math.inf, 1),
}
"""The chord is 0 high at its ends, and near the better of two ends up to twice their mean."""
REPORT = ReportPart(build=f"{__package__}._barrier_report:barriers", metrics=METRICS)

BARRIER = DiagnosticSpec(
    name="barrier",
    version=1,
    summary="Loss and metric on the line between two networks, and the height of the barrier",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Section 3.3",
    license="Apache-2.0",
    params=BarrierParams,
    tiny=TINY,
    measure=_measure_barrier,
    subjects="pair",
    unknown_labels=True,
    metrics=METRICS,
    ranges=RANGES,
    needs=frozenset({"images"}),
    states=lambda params: params.endpoints,
    cost=_barrier_cost,
    limit=lambda params: params.limit,
    identical=ZERO,
    answers_within=1e-5,
    report=REPORT,
)

ALIGNED_BARRIER = DiagnosticSpec(
    name="aligned-barrier",
    version=1,
    summary="Performance barrier before and after matching channels by weight (Git Re-Basin)",
    source="Ainsworth et al. 2022, arXiv 2209.04836; Jordan et al. 2022, arXiv 2211.08403",
    license="Apache-2.0",
    params=AlignedBarrierParams,
    tiny=TINY,
    measure=_measure_aligned_barrier,
    subjects="pair",
    unknown_labels=True,
    metrics=METRICS,
    ranges=RANGES,
    needs=frozenset({"images"}),
    states=lambda params: params.endpoints,
    cost=_aligned_barrier_cost,
    limit=lambda params: params.limit,
    identical=ZERO,
    answers_within=1e-5,
    report=REPORT,
)
