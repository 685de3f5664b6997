"""Relative drop: loss of test metric and speed without pre-training.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.

Shape letters: B resamples, C classes of items with equal outcomes, N test items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.metrics import correctness, predict, ratio, weighted_mean_auc
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject, SubmittedTrial
from transferbench.statistics import Interval, bootstrap, point_estimates
from transferbench_plugins.diagnostics._history import History, divergence_flag, final_value
from transferbench_plugins.diagnostics._measurement import join_flags
from transferbench_plugins.diagnostics._shared_labels import shared_labels
from transferbench_plugins.diagnostics.training._relative_drop_report import DROP_PART
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
    resamples: Annotated[int, Field(ge=100)] = 1000


def measure(
    params: DropParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The drop from a (P-T) to b (RI-T): raw, relative, chance-corrected, and in speed.

    A drop to a network that did not train measures trainability, not the features learnt: every
    measurement is flagged then. The final train metrics of both are included.
    Units: gain = A_a - A_b as a fraction; relative_drop = 100 (A_a - A_b) / A_a; corrected_drop
    = 100 (A_a - A_b) / (A_a - chance). For the train metrics ``n`` counts evaluations, for
    speed_gain epochs.
    Error: percentile bootstrap over test items, both networks on the same resample.
    """
    pair = subjects[:2]
    labels = shared_labels(pair)
    by_class = pair[0].metric == "accuracy"
    outputs = [predict(net.logits, labels) if by_class else net.logits for net in pair]
    histories = [net.history for net in pair]
    bootstrapped = partial(bootstrap, seed=context.seed, resamples=params.resamples)
    flags = _untrained_flags(params, histories, pair[0].chance)
    yield from _drops(_PairOutputs(outputs, labels, pair[0].chance, by_class), flags, bootstrapped)
    yield from _training_differences(histories, flags)


def recompute(params: DropParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """The drops from the predictions; the rest from the train metrics, where they are recorded."""
    pair = trials[:2]
    by_class, chance = pair[0].metric == "accuracy", pair[0].chance
    outputs = [trial.predicted if by_class else trial.scores for trial in pair]
    histories = [trial.history for trial in pair if trial.history is not None]
    has_histories = len(histories) == len(pair)
    flags = _untrained_flags(params, histories, chance) if has_histories else ()
    arrays = [output for output in outputs if output is not None]
    if len(arrays) == len(pair):
        sample = _PairOutputs(arrays, shared_labels(pair), chance, by_class)
        yield from _drops(sample, flags, point_estimates)
    if has_histories:
        yield from _training_differences(histories, flags)


class _PairOutputs(NamedTuple):
    """The outputs of both networks: predictions if ``by_class``, else logits.

    Shapes: outputs (N,) or (N, L); labels (N,) or (N, L).
    """

    outputs: Sequence[np.ndarray]
    labels: np.ndarray
    chance: float
    by_class: bool


def _drops(
    pair: _PairOutputs, flags: Sequence[str | None], estimate: Callable[..., Sequence[Interval]]
) -> Iterator[Measurement]:
    """``estimate``: ``bootstrap`` or ``point_estimates``."""
    scores, counts = _sample(pair)
    effects = estimate(lambda c: _effects(scores(c), pair.chance), counts)
    for (metric, unit, reason), interval in zip(EFFECTS, effects, strict=True):
        undefined = reason if interval.value is None else None
        yield Measurement(
            metric=metric,
            value=interval.value,
            unit=unit,
            n=len(pair.labels),
            flag=join_flags(undefined, *flags),
            **interval.fields(),
        )


def _sample(
    pair: _PairOutputs,
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """The scores of both networks as a function of resampled counts, and the observed counts.

    For accuracy, items with the same outcome in both networks form one class.
    Shapes: the function maps (B, C) to (B, 2); the counts are (C,).
    """
    labels = pair.labels
    if pair.by_class:
        hits_N2 = np.stack([correctness(predicted, labels) for predicted in pair.outputs], axis=1)
        outcomes_C2, counts = np.unique(hits_N2, axis=0, return_counts=True)
        return lambda counts_BC: counts_BC @ outcomes_C2 / len(labels), counts

    def areas(counts_BN: np.ndarray) -> np.ndarray:
        return np.stack([weighted_mean_auc(o, labels, counts_BN) for o in pair.outputs], axis=1)

    return areas, np.ones(len(labels), dtype=np.int64)


def _effects(scores_B2: np.ndarray, chance: float) -> np.ndarray:
    """The effects in the order of ``EFFECTS``, NaN where undefined. Shapes: (B, 2) to (B, 3)."""
    gain_B, a_B = scores_B2[:, 0] - scores_B2[:, 1], scores_B2[:, 0]
    drops = [ratio(100 * gain_B, base_B) for base_B in (a_B, a_B - chance)]
    return np.stack([gain_B, *drops], axis=1)


def _training_differences(
    histories: Sequence[History], flags: Sequence[str | None]
) -> Iterator[Measurement]:
    yield _speed_gain(histories, flags)
    for name, history, flag in zip(("a", "b"), histories, flags, strict=True):
        value = final_value(history, "train_metric")
        yield Measurement(
            metric=f"train_metric_{name}", value=value, unit="fraction", n=1, flag=flag
        )


def _speed_gain(histories: Sequence[History], flags: Sequence[str | None]) -> Measurement:
    speed_a, speed_b = map(speed_of, histories)
    gain = None
    if speed_a.value is not None and speed_b.value is not None:
        gain = speed_a.value - speed_b.value
    speed_flags = [
        f"{name}: {speed.flag}"
        for name, speed, flag in zip("ab", (speed_a, speed_b), flags, strict=True)
        if speed.flag and speed.flag not in (flag or "")
    ]
    return Measurement(
        metric="speed_gain",
        value=gain,
        unit="fraction",
        n=min(speed_a.n, speed_b.n),
        flag=join_flags(*speed_flags, *flags),
    )


def _untrained_flags(
    params: DropParams, histories: Sequence[History], chance: float
) -> list[str | None]:
    return [
        _untrained(name, history, chance, params.margin)
        for name, history in zip(("a", "b"), histories, strict=True)
    ]


def _untrained(name: str, history: History, chance: float, margin: float) -> str | None:
    """The flag of a network that did not train, or may not have; else None."""
    if diverged := divergence_flag(history):
        return f"{name} {diverged}"
    value = final_value(history, "train_metric")
    if value is None:
        return f"whether {name} trained is not known: its train metric has no value at the end"
    near_chance = value - chance <= margin * (1 - chance)
    return f"{name} did not train" if near_chance else None


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
    needs=frozenset({"history", "logits"}),
    identical={"gain": 0, "relative_drop": 0, "corrected_drop": 0, "speed_gain": 0},
    report=DROP_PART,
)
