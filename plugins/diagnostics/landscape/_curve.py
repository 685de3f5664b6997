"""A curve of loss and metric along a line, and its height over the chord: the barrier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from transferbench.records import Measurement

__all__ = ["Point", "curve_measurements", "grid", "no_barrier"]

Values = Sequence[float | None]
Place = Mapping[str, str | int | float]


class Point(Protocol):
    """What was found at one point: loss in nats, metric as a fraction."""

    @property
    def loss(self) -> float | None: ...
    @property
    def metric(self) -> float | None: ...


def grid(points: int, extrapolation: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """``points`` equally spaced from 0 to 1, and on with the same spacing to ``extrapolation``."""
    last = points - 1
    low, high = (round(bound * last) for bound in extrapolation)
    # Quotients of integers: 0, 1/2 and 1 are met exactly.
    return [place / last for place in range(low, high + 1)]


def curve_measurements(
    weights: Sequence[float], curve: Sequence[Point], n: int, place: Place
) -> Iterator[Measurement]:
    """Every point of the curve on ``n`` images, then its barriers, all of them at ``place``."""
    for weight, point in zip(weights, curve, strict=True):
        at = {"lambda": round(weight, 6), **place}
        yield _value("loss", point.loss, "nats", n, at)
        yield _value("metric", point.metric, "fraction", n, at)
    yield from _barriers(weights, curve, n, place)


def _value(metric: str, value: float | None, unit: str, n: int, place: Place) -> Measurement:
    flag = None if value is not None else "not finite or not defined here"
    return Measurement(
        metric=metric, value=value, unit=unit, n=n, coordinates=dict(place), flag=flag
    )


class _Height(NamedTuple):
    """The largest excess over the chord, that at the midpoint, and the mean of the two ends."""

    sup: float
    mid: float
    ends: float


def _height(weights: Sequence[float], values: Values) -> _Height | None:
    """Of the part in [0, 1]; None where a value is missing there."""
    inside = [(w, v) for w, v in zip(weights, values, strict=True) if 0 <= w <= 1]
    if any(value is None for _, value in inside):
        return None
    lambdas, heights = np.array(inside, dtype=np.float64).T
    start, end = heights[0], heights[-1]
    # Written so that equal ends give them back without rounding.
    excess = heights - (start + lambdas * (end - start))
    excess[0] = excess[-1] = 0.0
    return _Height(float(excess.max()), float(excess[len(excess) // 2]), float((start + end) / 2))


MISSING = "a point between the ends has no finite value"


def _barriers(
    weights: Sequence[float], curve: Sequence[Point], n: int, place: Place
) -> Iterator[Measurement]:
    """The barriers of loss and metric, those of the metric also relative to its ends."""
    loss = _height(weights, [point.loss for point in curve])
    drop = _height(weights, [None if p.metric is None else -p.metric for p in curve])
    yield from _pair("barrier_loss", loss, "nats", n, place)
    yield from _pair("barrier_metric", drop, "fraction", n, place)
    yield from _relative(drop, n, place)


def _relative(drop: _Height | None, n: int, place: Place) -> Iterator[Measurement]:
    name, why = "barrier_metric_relative", MISSING
    scaled = None
    if drop is not None and drop.ends == 0:
        why = "the metric is 0 at both ends"
    elif drop is not None:
        scaled = _Height(drop.sup / -drop.ends, drop.mid / -drop.ends, 1.0)
    yield from _pair(name, scaled, "fraction", n, place, why)


def _pair(
    metric: str,
    height: _Height | None,
    unit: str,
    n: int,
    place: Place,
    why: str = MISSING,
) -> Iterator[Measurement]:
    values = (None, None) if height is None else (height.sup, height.mid)
    for suffix, value in zip(("sup", "mid"), values, strict=True):
        yield Measurement(
            metric=f"{metric}_{suffix}",
            value=value,
            unit=unit,
            n=n,
            coordinates=dict(place),
            flag=why if value is None else None,
        )


def no_barrier(why: str, place: Place) -> Iterator[Measurement]:
    """The barriers of a line that does not exist, with the reason."""
    yield from _pair("barrier_loss", None, "nats", 0, place, why)
    yield from _pair("barrier_metric", None, "fraction", 0, place, why)
    yield from _pair("barrier_metric_relative", None, "fraction", 0, place, why)
