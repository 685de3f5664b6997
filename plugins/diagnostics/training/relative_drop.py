"""Relative drop: loss of test metric and speed without pre-training.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.

Shape letters: B resamples, C classes of items with equal outcomes, N test items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.metrics import hits, ratio, weighted_mean_auc
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import bootstrap
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics._history import divergence_flag, final_value
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
    a, b = subjects[:2]
    flags = [_untrained(name, net, params.margin) for name, net in (("a", a), ("b", b))]
    yield from _drops(params, (a, b), context.seed, flags)
    yield _speed_gain(a, b, flags)
    for name, net, flag in zip(("a", "b"), (a, b), flags, strict=True):
        value = final_value(net.history, "train_metric")
        yield Measurement(
            metric=f"train_metric_{name}", value=value, unit="fraction", n=1, flag=flag
        )


def _drops(
    params: DropParams, pair: tuple[Subject, Subject], seed: int, flags: Sequence[str | None]
) -> Iterator[Measurement]:
    labels = shared_labels(pair)
    scores, counts = _sample(pair, labels)
    chance = pair[0].chance
    effects = bootstrap(lambda c: _effects(scores(c), chance), counts, seed, params.resamples)
    for (metric, unit, reason), interval in zip(EFFECTS, effects, strict=True):
        undefined = reason if interval.value is None else None
        yield Measurement(
            metric=metric,
            value=interval.value,
            unit=unit,
            n=len(labels),
            flag=join_flags(undefined, *flags),
            **interval.fields(),
        )


def _sample(
    pair: tuple[Subject, Subject], labels: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """The scores of both networks as a function of resampled counts, and the observed counts.

    For accuracy, items with the same outcome in both networks form one class.
    Shapes: the function maps (B, C) to (B, 2); the counts are (C,).
    """
    if pair[0].metric == "accuracy":
        hits_N2 = np.stack([hits(net.logits, labels) for net in pair], axis=1)
        outcomes_C2, counts = np.unique(hits_N2, axis=0, return_counts=True)
        return lambda counts_BC: counts_BC @ outcomes_C2 / len(labels), counts

    def areas(counts_BN: np.ndarray) -> np.ndarray:
        return np.stack([weighted_mean_auc(net.logits, labels, counts_BN) for net in pair], axis=1)

    return areas, np.ones(len(labels), dtype=np.int64)


def _effects(scores_B2: np.ndarray, chance: float) -> np.ndarray:
    """The effects in the order of ``EFFECTS``, NaN where undefined. Shapes: (B, 2) to (B, 3)."""
    gain_B, a_B = scores_B2[:, 0] - scores_B2[:, 1], scores_B2[:, 0]
    drops = [ratio(100 * gain_B, base_B) for base_B in (a_B, a_B - chance)]
    return np.stack([gain_B, *drops], axis=1)


def _speed_gain(a: Subject, b: Subject, flags: Sequence[str | None]) -> Measurement:
    speed_a, speed_b = speed_of(a.history), speed_of(b.history)
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


def _untrained(name: str, subject: Subject, margin: float) -> str | None:
    """The flag of a network that did not train, or may not have; else None."""
    if diverged := divergence_flag(subject.history):
        return f"{name} {diverged}"
    value = final_value(subject.history, "train_metric")
    if value is None:
        return f"whether {name} trained is not known: its train metric has no value at the end"
    near_chance = value - subject.chance <= margin * (1 - subject.chance)
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
    subjects="pair",
    needs=frozenset({"history", "logits"}),
    identical={"gain": 0, "relative_drop": 0, "corrected_drop": 0, "speed_gain": 0},
)
