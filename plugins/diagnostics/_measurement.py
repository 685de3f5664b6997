"""Measurements of diagnostics: bounds from an interval, and flags of missing values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from transferbench.analysis.metric_intervals import metric_interval as closed_interval
from transferbench.metrics import hits, needs_scores, predict, weighted_score
from transferbench.records import Coordinate, Measurement
from transferbench.specs import Metric, Subject
from transferbench.statistics import (
    Interval,
    bootstrap,
    exact_share,
    mean_of_items,
    ratio_of_items,
)

__all__ = [
    "join_flags",
    "measurement",
    "metric_interval",
    "ratios_of_metrics",
    "recorded_metric",
    "with_bounds",
]


def join_flags(*flags: str | None) -> str | None:
    """The non-empty flags, joined by semicolons; None if there are none."""
    return "; ".join(flag for flag in flags if flag) or None


def measurement(
    metric: str,
    value: Interval | float | None,
    unit: str,
    n: int,
    coordinates: Mapping[str, Coordinate] | None = None,
    *,
    missing: str | None = None,
    flag: str | None = None,
) -> Measurement:
    """``value`` with its bounds, if it has any; no value if it is not finite.

    ``missing``: the flag of a measurement without a value; ``flag``: that of any.
    """
    interval = value if isinstance(value, Interval) else Interval(value, None, None, n, "none")
    finite = interval.value is not None and math.isfinite(interval.value)
    return Measurement(
        metric=metric,
        value=interval.value if finite else None,
        unit=unit,
        n=n,
        coordinates=dict(coordinates or {}),
        flag=join_flags(None if finite else missing, flag),
        **interval.fields(),
    )


def with_bounds(values: Sequence[Interval], bounds: Iterable[Interval]) -> list[Interval]:
    """``values``, the first ones with ``bounds`` of their own; what is undefined has none."""
    bounded = [
        own._replace(value=interval.value) if interval.value is not None else interval
        for interval, own in zip(values, bounds, strict=False)
    ]
    return [*bounded, *values[len(bounded) :]]


def ratios_of_metrics(over_N: np.ndarray, under_N: np.ndarray, chance: float) -> Iterator[Interval]:
    """The mean of ``over_N`` by that of ``under_N``, both in [0, 1]; then of both above chance."""
    for least in (0.0, chance):
        yield ratio_of_items(over_N - least, under_N - least, (-least, 1 - least))


def recorded_metric(subject: Subject, value: float | None, n: int) -> Interval | float | None:
    """A metric of ``subject`` over ``n`` test items, known by its value alone.

    Error: exact for a multi-class accuracy, which is a share of the items; else none.
    """
    if value is None or subject.task != "multi-class" or subject.metric != "accuracy":
        return value
    return exact_share(round(value * n), n)._replace(value=value)


def metric_interval(
    metric: Metric, logits: np.ndarray, labels: np.ndarray, seed: int, resamples: int
) -> Interval:
    """The test metric. Shapes: (N, K), and (N,) or (N, K).

    Error: ``transferbench.analysis.metric_intervals``; for accuracies of a multi-label task that of
    the mean over test items; for what is left the percentile bootstrap over them.
    """
    if closed := closed_interval(metric, logits, labels):
        return closed
    if metric == "accuracy":
        hits_N = hits(logits, labels)
        return mean_of_items(hits_N[~np.isnan(hits_N)], (0.0, 1.0))
    outputs = logits if needs_scores(metric) else predict(logits, labels)

    def resampled(counts_BN: np.ndarray) -> np.ndarray:
        return weighted_score(metric, outputs, labels, counts_BN)[:, None]

    (interval,) = bootstrap(resampled, np.ones(len(labels), dtype=np.int64), seed, resamples)
    return interval
