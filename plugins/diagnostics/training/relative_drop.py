"""Relative drop: loss of test metric and speed without pre-training.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.

Shape letters: B resamples, C classes of items with equal outcomes, N test items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.metrics import correctness, needs_scores, predict, ratio, weighted_score
from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Metric,
    Params,
    ReportPart,
    Subject,
    SubmittedTrial,
)
from transferbench.statistics import (
    Interval,
    bootstrap,
    difference_of_items,
    point_estimates,
)
from transferbench_plugins.diagnostics._history import History, divergence_flag, final_value
from transferbench_plugins.diagnostics._measurement import (
    join_flags,
    measurement,
    ratios_of_metrics,
    with_bounds,
)
from transferbench_plugins.diagnostics._shared_labels import shared_labels
from transferbench_plugins.diagnostics.training.speed import speed_of

__all__ = ["RELATIVE_DROP", "DropParams"]

EFFECTS = (
    ("gain", "fraction", "the metric is not defined on these items"),
    ("relative_drop", "percent", "a has no score to lose"),
    ("corrected_drop", "percent", "a is not above chance"),
)
"""Metric, unit, and the flag of an undefined value."""


class DropParams(Params):
    """``margin`` decides whether a network trained; ``resamples`` of the test items.

    It trained if its final train metric exceeds chance by more than ``margin`` of the distance
    from chance to 1.
    """

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 1000


def measure(
    params: DropParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The drop from a (P-T) to b (RI-T): raw, relative, chance-corrected, and in speed.

    A drop to a network that did not train measures trainability, not the features learnt: every
    measurement is flagged then. The final train metrics of both are included.
    Units: gain = A_a - A_b as a fraction; relative_drop = 100 (A_a - A_b) / A_a; corrected_drop
    = 100 (A_a - A_b) / (A_a - chance). For the train metrics ``n`` counts evaluations, for
    speed_gain epochs.
    Error: over test items, both networks on the same items: ``difference_of_items`` and
    ``ratios_of_metrics`` for an accuracy, for other metrics percentile bootstrap.
    """
    pair = subjects[:2]
    labels, metric, chance = shared_labels(pair), pair[0].metric, pair[0].chance
    ranked = needs_scores(metric)
    outputs = [net.logits if ranked else predict(net.logits, labels) for net in pair]
    histories = [net.history for net in pair]
    flags = _untrained_flags(histories, chance, params.margin)
    bootstrapped = partial(bootstrap, seed=context.seed, resamples=params.resamples)
    yield from _drops(outputs, labels, metric, chance, bootstrapped, flags)
    yield from _training_differences(histories, flags)


def recompute(params: DropParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """The drops from the predictions; the rest from the train metrics, where they are recorded."""
    pair = trials[:2]
    metric, chance = pair[0].metric, pair[0].chance
    outputs = [trial.scores if needs_scores(metric) else trial.predicted for trial in pair]
    histories = [trial.history for trial in pair if trial.history is not None]
    has_histories = len(histories) == 2
    flags = _untrained_flags(histories, chance, params.margin) if has_histories else []
    arrays = [output for output in outputs if output is not None]
    if len(arrays) == 2:
        yield from _drops(arrays, shared_labels(pair), metric, chance, None, flags)
    if has_histories:
        yield from _training_differences(histories, flags)


def _drops(
    outputs: Sequence[np.ndarray],
    labels: np.ndarray,
    metric: Metric,
    chance: float,
    bootstrapped: Callable[..., Sequence[Interval]] | None,
    flags: Sequence[str | None],
) -> Iterator[Measurement]:
    """``outputs``: as for ``weighted_score``.

    ``bootstrapped``: the bootstrap, for metrics other than an accuracy; None for no bounds.
    Shapes: outputs (N,), (N, K) or (N, L), labels (N,) or (N, L).
    """
    scores, counts = _sample(outputs, labels, metric)
    by_items = metric == "accuracy"
    estimate = point_estimates if by_items or bootstrapped is None else bootstrapped
    effects = estimate(lambda resampled: _effects(scores(resampled), chance), counts)
    if by_items and bootstrapped is not None:
        effects = with_bounds(effects, _item_intervals(_hits(outputs, labels), chance))
    n, flag = len(labels), join_flags(*flags)
    for (name, unit, reason), interval in zip(EFFECTS, effects, strict=True):
        yield measurement(name, interval, unit, n, missing=reason, flag=flag)


def _sample(
    outputs: Sequence[np.ndarray], labels: np.ndarray, metric: Metric
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """The scores of both networks as a function of resampled counts, and the observed counts.

    For accuracy, items with the same outcome in both networks form one class.
    Shapes: the function maps (B, C) to (B, 2); the counts are (C,).
    """
    if metric == "accuracy":
        hits_N2 = _hits(outputs, labels)
        outcomes_C2, counts = np.unique(hits_N2, axis=0, return_counts=True)
        return lambda counts_BC: counts_BC @ outcomes_C2 / len(hits_N2), counts

    def scores(counts_BN: np.ndarray) -> np.ndarray:
        return np.stack([weighted_score(metric, o, labels, counts_BN) for o in outputs], axis=1)

    return scores, np.ones(len(labels), dtype=np.int64)


def _hits(outputs: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Of both networks, for the items with a known label. Shapes: (N, 2)."""
    hits_N2 = np.stack([correctness(predicted, labels) for predicted in outputs], axis=1)
    known_N2: np.ndarray = hits_N2[~np.isnan(hits_N2).any(axis=1)]
    return known_N2


def _item_intervals(hits_N2: np.ndarray, chance: float) -> Iterator[Interval]:
    """In the order of ``EFFECTS``; a drop is 100 (1 - the ratio of the metrics)."""
    a_N, b_N = hits_N2.T
    yield difference_of_items(a_N, b_N, (0.0, 1.0))
    for share in ratios_of_metrics(b_N, a_N, chance):
        if share.low is None or share.high is None:
            yield share
        else:
            yield share._replace(low=100 * (1 - share.high), high=100 * (1 - share.low))


def _effects(scores_B2: np.ndarray, chance: float) -> np.ndarray:
    """The effects in the order of ``EFFECTS``, NaN where undefined. Shapes: (B, 2) to (B, 3)."""
    gain_B, a_B = scores_B2[:, 0] - scores_B2[:, 1], scores_B2[:, 0]
    drops = [ratio(100 * gain_B, base_B) for base_B in (a_B, a_B - chance)]
    return np.stack([gain_B, *drops], axis=1)


def _training_differences(
    histories: Sequence[History], flags: Sequence[str | None]
) -> Iterator[Measurement]:
    speeds = [speed_of(history) for history in histories]
    a, b = (speed.value for speed in speeds)
    gain = None if a is None or b is None else a - b
    speed_flags = [
        f"{name}: {speed.flag}"
        for name, speed, flag in zip("ab", speeds, flags, strict=True)
        if speed.flag and speed.flag not in (flag or "")
    ]
    n, flag = min(speed.n for speed in speeds), join_flags(*speed_flags, *flags)
    yield measurement("speed_gain", gain, "fraction", n, flag=flag)
    for name, history, untrained in zip("ab", histories, flags, strict=True):
        value = final_value(history, "train_metric")
        yield measurement(f"train_metric_{name}", value, "fraction", 1, flag=untrained)


def _untrained_flags(
    histories: Sequence[History], chance: float, margin: float
) -> list[str | None]:
    pairs = zip("ab", histories, strict=True)
    return [_untrained(name, history, chance, margin) for name, history in pairs]


def _untrained(name: str, history: History, chance: float, margin: float) -> str | None:
    """The flag of a network that did not train, or may not have; else None."""
    if diverged := divergence_flag(history):
        return f"{name} {diverged}"
    value = final_value(history, "train_metric")
    if value is None:
        return f"whether {name} trained is not known: its train metric has no value at the end"
    near_chance = value - chance <= margin * (1 - chance)
    return f"{name} did not train" if near_chance else None


DIFFERENCES = ("gain", "relative_drop", "corrected_drop", "speed_gain")

RELATIVE_DROP = DiagnosticSpec(
    name="relative-drop",
    version=1,
    summary="Gain of the first network over the second: absolute, relative and in speed",
    source="Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3",
    license="Apache-2.0",
    params=DropParams,
    tiny={"resamples": 100},
    measure=measure,
    recompute=recompute,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset(
        {
            "corrected_drop",
            "gain",
            "relative_drop",
            "speed_gain",
            "train_metric_a",
            "train_metric_b",
        }
    ),
    needs=frozenset({"history", "logits"}),
    ranges={
        **dict.fromkeys(("gain", "speed_gain"), (-1, 1)),
        "relative_drop": (-math.inf, 100),
        **dict.fromkeys(("train_metric_a", "train_metric_b"), (0, 1)),
    },
    identical=dict.fromkeys(DIFFERENCES, 0),
    report=ReportPart(
        build=f"{__package__}._relative_drop_report:drops",
        metrics=frozenset({*DIFFERENCES, "train_metric_a", "train_metric_b"}),
    ),
)
