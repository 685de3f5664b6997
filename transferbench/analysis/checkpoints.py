"""How early pre-training may stop: the first checkpoint that fine-tunes as well as the last one.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from transferbench.measurements import Measurements, Network
from transferbench.statistics import Interval, paired_difference
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
    Units: epochs of pre-training; ``n`` counts replicates.
    Error: ``low`` is the earliest checkpoint that is not shown to lack, ``high`` the earliest
    that is shown to suffice with all behind it. Going back from the last one, ``high`` can only
    pass the true one where the first that lacks is taken to suffice, so each bound is one test at
    97.5% however many checkpoints there are. Measured coverage of the nominal 95%: 99.5% or more
    (3 and 5 replicates, 4,000 draws each, also where a checkpoint lacks or suffices by a hair).
    """
    trials = measurements.select(
        diagnostic=TRIAL, metric=metric, target=target, perturbation=perturbation
    )
    networks = trials.by_network()
    values = {epoch: networks.get(Network(entry, arm), {}) for arm, epoch in arms.items()}
    if lacking := [arm for arm, epoch in arms.items() if not values[epoch]]:
        return _unknown(f"no {metric} of {', '.join(sorted(lacking))} of {entry} on {target}")
    found = margins(values, tolerance)
    n = min((margin.n for margin in found.values()), default=0)
    if not n:
        return _unknown("no replicate was fine-tuned from every checkpoint")
    return _earliest(found, n)


def margins(values: Mapping[int, Mapping[int, float]], tolerance: float) -> dict[int, Interval]:
    """By how much each checkpoint exceeds ``1 - tolerance`` times the last one, earliest first.

    ``values``: epoch -> replicate -> metric; only replicates that every epoch has count.
    Error: Student-t over replicates, paired.
    """
    if not values:
        return {}
    common = sorted(set.intersection(*(set(found) for found in values.values())))
    last = [(1 - tolerance) * values[max(values)][k] for k in common]
    return {
        epoch: paired_difference([values[epoch][k] for k in common], last)
        for epoch in sorted(values)
    }


def _earliest(found: Mapping[int, Interval], n: int) -> Interval:
    """From margins that all have a value; the last checkpoint suffices by definition."""
    *earlier, last = found
    first = next((t for t in earlier if _reaches(found[t].value)), last)
    method = found[last].method
    if n < 2:
        return Interval(first, None, None, n, method, f"an interval needs two or more, found {n}")
    open_ = next((t for t in earlier if _reaches(found[t].high)), last)
    shown = list(takewhile(lambda t: _reaches(found[t].low), reversed(earlier)))
    return Interval(first, open_, shown[-1] if shown else last, n, method)


def _reaches(margin: float | None) -> bool:
    return margin is not None and margin >= 0


def _unknown(reason: str) -> Interval:
    return Interval(None, None, None, 0, "paired-student-t-95", reason)
