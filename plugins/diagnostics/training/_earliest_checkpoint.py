"""The earliest checkpoint of the pre-training that fine-tunes as well as the last one.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import takewhile

from transferbench.measurements import Measurements, Network
from transferbench.statistics import Interval, Range, Summand, mean_of_replicates, weighted_sum
from transferbench.suite import TRIAL

__all__ = ["earliest_sufficient", "margins"]


def earliest_sufficient(
    measurements: Measurements,
    arms: Mapping[str, int],
    *,
    entry: str,
    target: str,
    perturbation: str,
    metric: str = "test_metric",
    tolerance: float = 0.01,
) -> Interval:
    """The epoch of the earliest checkpoint that reaches ``1 - tolerance`` of the last one's metric.

    ``arms``: the initializations that start from a checkpoint, each with its epoch.
    Units: epochs of pre-training; ``n`` counts replicates, or source networks.
    Error: ``low`` is the earliest checkpoint that is not significantly insufficient, ``high`` the
    earliest from which all checkpoints are significantly sufficient. Stepping back from the last
    one, ``high`` is wrong only if the first insufficient checkpoint tests as sufficient, so each
    bound is a single test at 97.5% for any number of checkpoints. Measured coverage of the nominal
    95%: 99.5% or more (3 and 5 replicates, 4,000 draws each, also for checkpoints very close to
    the tolerance).
    """
    trials = measurements.select(
        diagnostic=TRIAL, metric=metric, target=target, perturbation=perturbation
    )
    networks = trials.by_network()
    values = {epoch: networks.get(Network(entry, arm), {}) for arm, epoch in arms.items()}
    if missing := [arm for arm, epoch in arms.items() if not values[epoch]]:
        return _undefined(f"no {metric} of {', '.join(sorted(missing))} of {entry} on {target}")
    started = trials.select(entry=entry, initialization=tuple(arms))
    by_epoch = margins(values, tolerance, started.networks, started.bounds)
    n = min((margin.n for margin in by_epoch.values()), default=0)
    if not n:
        return _undefined("no replicate was fine-tuned from every checkpoint")
    return _earliest(by_epoch, n)


def margins(
    values: Mapping[int, Mapping[int, float]],
    tolerance: float,
    networks: int = 1,
    ends: Range | None = None,
) -> dict[int, Interval]:
    """The difference of each checkpoint to ``1 - tolerance`` times the last one, by epoch.

    ``values``: epoch -> replicate -> metric; only replicates that all epochs have are used.
    ``ends``: the range of the metric.
    Error: ``weighted_sum`` over replicates, paired, or over the source ``networks`` where there are
    several.
    """
    if not values:
        return {}
    common = sorted(set.intersection(*(set(replicates) for replicates in values.values())))
    last = Summand(tolerance - 1, mean_of_replicates(values[max(values)]), ends)
    return {
        epoch: weighted_sum(
            [Summand(1.0, mean_of_replicates(values[epoch]), ends), last], common, networks
        )
        for epoch in sorted(values)
    }


def _earliest(by_epoch: Mapping[int, Interval], n: int) -> Interval:
    """From margins that all have a value; the last checkpoint is sufficient by definition."""
    *earlier, last = by_epoch
    first = next((t for t in earlier if _sufficient(by_epoch[t].value)), last)
    method = by_epoch[last].method
    if n < 2:
        return Interval(first, None, None, n, method, f"an interval needs two or more, found {n}")
    low = next((t for t in earlier if _sufficient(_bounds(by_epoch[t])[1])), last)
    certain = list(takewhile(lambda t: _sufficient(_bounds(by_epoch[t])[0]), reversed(earlier)))
    return Interval(first, low, certain[-1] if certain else last, n, method)


def _bounds(margin: Interval) -> tuple[float, float]:
    """Margins without spread, of equal replicates, decide nothing."""
    if margin.low is None or margin.high is None:
        return -math.inf, math.inf
    return margin.low, margin.high


def _sufficient(margin: float | None) -> bool:
    return margin is not None and margin >= 0


def _undefined(reason: str) -> Interval:
    return Interval(None, None, None, 0, "paired-student-t-95", reason)
