"""Loss and metric along a line, and the barrier: the height of the curve over its chord."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from transferbench.records import Coordinate, Measurement

__all__ = ["CurvePoint", "curve_measurements", "interpolation_grid", "undefined_barriers"]

PointCoordinates = Mapping[str, Coordinate]


class CurvePoint(Protocol):
    """Loss in nats and metric as a fraction at one point of the line."""

    @property
    def loss(self) -> float | None: ...
    @property
    def metric(self) -> float | None: ...


def interpolation_grid(points: int, extrapolation: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """``points`` equally spaced in [0, 1], continued with this spacing to ``extrapolation``."""
    last = points - 1
    low, high = (round(bound * last) for bound in extrapolation)
    # Quotients of integers: 0, 1/2 and 1 are exact.
    return [index / last for index in range(low, high + 1)]


def curve_measurements(
    weights: Sequence[float], curve: Sequence[CurvePoint], n: int, coordinates: PointCoordinates
) -> Iterator[Measurement]:
    """Loss and metric at each point of a curve over ``n`` images, then its barriers."""
    for weight, point in zip(weights, curve, strict=True):
        position = {"lambda": round(weight, 6), **coordinates}
        yield _value("loss", point.loss, "nats", n, position)
        yield _value("metric", point.metric, "fraction", n, position)
    yield from _barriers(weights, curve, n, coordinates)


def _value(
    metric: str, value: float | None, unit: str, n: int, coordinates: PointCoordinates
) -> Measurement:
    flag = None if value is not None else "not finite or not defined here"
    return Measurement(
        metric=metric, value=value, unit=unit, n=n, coordinates=dict(coordinates), flag=flag
    )


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


MISSING = "a point between the ends has no finite value"


def _barriers(
    weights: Sequence[float], curve: Sequence[CurvePoint], n: int, coordinates: PointCoordinates
) -> Iterator[Measurement]:
    """The barriers of loss and metric; for the metric also relative to the mean of its ends."""
    loss = _height(weights, [point.loss for point in curve])
    drop = _height(weights, [None if p.metric is None else -p.metric for p in curve])
    yield from _sup_and_mid("barrier_loss", loss, "nats", n, coordinates)
    yield from _sup_and_mid("barrier_metric", drop, "fraction", n, coordinates)
    yield from _relative(drop, n, coordinates)


def _relative(drop: _Height | None, n: int, coordinates: PointCoordinates) -> Iterator[Measurement]:
    name, undefined = "barrier_metric_relative", MISSING
    scaled = None
    if drop is not None and drop.ends == 0:
        undefined = "the metric is 0 at both ends"
    elif drop is not None:
        scaled = _Height(drop.sup / -drop.ends, drop.mid / -drop.ends, 1.0)
    yield from _sup_and_mid(name, scaled, "fraction", n, coordinates, undefined)


def _sup_and_mid(
    metric: str,
    height: _Height | None,
    unit: str,
    n: int,
    coordinates: PointCoordinates,
    undefined: str = MISSING,
) -> Iterator[Measurement]:
    values = (None, None) if height is None else (height.sup, height.mid)
    for suffix, value in zip(("sup", "mid"), values, strict=True):
        yield Measurement(
            metric=f"{metric}_{suffix}",
            value=value,
            unit=unit,
            n=n,
            coordinates=dict(coordinates),
            flag=undefined if value is None else None,
        )


def undefined_barriers(reason: str, coordinates: PointCoordinates) -> Iterator[Measurement]:
    """The barriers of a line that cannot be computed, flagged with the reason."""
    yield from _sup_and_mid("barrier_loss", None, "nats", 0, coordinates, reason)
    yield from _sup_and_mid("barrier_metric", None, "fraction", 0, coordinates, reason)
    yield from _sup_and_mid("barrier_metric_relative", None, "fraction", 0, coordinates, reason)
