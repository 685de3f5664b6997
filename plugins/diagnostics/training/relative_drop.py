"""The relative drop: what a network loses without pre-training, and whether it trained at all.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.

Shape letters: B resamples, C kinds of items, N test items.
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
from transferbench_plugins.diagnostics._flags import joined
from transferbench_plugins.diagnostics._history import divergence, last_value
from transferbench_plugins.diagnostics._same_items import shared_labels
from transferbench_plugins.diagnostics.training.speed import speed_of

__all__ = ["RELATIVE_DROP", "DropParams"]

EFFECTS = (
    ("gain", "fraction", "the metric is not defined on these items"),
    ("relative_drop", "percent", "a has no score to lose"),
    ("corrected_drop", "percent", "a is not above chance"),
)
"""Metric, unit, and why it may be without a value."""


class DropParams(Params):
    """When a network counts as trained, and how often the test items are resampled.

    It trained if its final train metric left the chance level by more than ``margin`` of the way
    to 1.
    """

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    resamples: Annotated[int, Field(ge=100)] = 1000


def measure(
    params: DropParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The drop from a (P-T) to b (RI-T): raw, relative, chance-corrected, and in speed.

    A drop to a network that did not train measures trainability, not what it learnt: every row
    carries the flag then, and the final train metrics stand beside.
    Units: gain = A_a - A_b as a fraction; relative_drop = 100 (A_a - A_b) / A_a; corrected_drop
    = 100 (A_a - A_b) / (A_a - chance). For the train metrics ``n`` counts evaluations, for
    speed_gain epochs.
    Error: percentile bootstrap over test items, both networks on the same draw.
    """
    a, b = subjects[:2]
    flags = [_untrained(name, net, params.margin) for name, net in (("a", a), ("b", b))]
    yield from _drops(params, (a, b), context.seed, flags)
    yield _speed_gain(a, b, flags)
    for name, net, flag in zip(("a", "b"), (a, b), flags, strict=True):
        value = last_value(net.history, "train_metric")
        yield Measurement(
            metric=f"train_metric_{name}", value=value, unit="fraction", n=1, flag=flag
        )


def _drops(
    params: DropParams, pair: tuple[Subject, Subject], seed: int, flags: Sequence[str | None]
) -> Iterator[Measurement]:
    labels = shared_labels(pair)
    scores, counts = _sample(pair, labels)
    chance = pair[0].chance
    found = bootstrap(lambda c: _effects(scores(c), chance), counts, seed, params.resamples)
    for (metric, unit, why), interval in zip(EFFECTS, found, strict=True):
        undefined = why if interval.value is None else None
        yield Measurement(
            metric=metric,
            value=interval.value,
            unit=unit,
            n=len(labels),
            flag=joined(undefined, *flags),
            **interval.fields(),
        )


def _sample(
    pair: tuple[Subject, Subject], labels: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """The scores of both networks as a function of how often each kind of item was drawn.

    Shapes: the function maps (B, C) to (B, 2); the counts of the kinds that there are, (C,).
    """
    if pair[0].metric == "accuracy":
        hits_N2 = np.stack([hits(net.logits, labels) for net in pair], axis=1)
        kinds_C2, counts = np.unique(hits_N2, axis=0, return_counts=True)
        return lambda counts_BC: counts_BC @ kinds_C2 / len(labels), counts

    def areas(counts_BN: np.ndarray) -> np.ndarray:
        return np.stack([weighted_mean_auc(net.logits, labels, counts_BN) for net in pair], axis=1)

    return areas, np.ones(len(labels), dtype=np.int64)


def _effects(scores_B2: np.ndarray, chance: float) -> np.ndarray:
    """The effects in the order of ``EFFECTS``, NaN where not defined. Shapes: (B, 2) to (B, 3)."""
    gain_B, a_B = scores_B2[:, 0] - scores_B2[:, 1], scores_B2[:, 0]
    drops = [ratio(100 * gain_B, base_B) for base_B in (a_B, a_B - chance)]
    return np.stack([gain_B, *drops], axis=1)


def _speed_gain(a: Subject, b: Subject, flags: Sequence[str | None]) -> Measurement:
    first, second = speed_of(a.history), speed_of(b.history)
    gain = None
    if first.value is not None and second.value is not None:
        gain = first.value - second.value
    why = [
        f"{name}: {speed.flag}"
        for name, speed, known in zip("ab", (first, second), flags, strict=True)
        if speed.flag and speed.flag not in (known or "")
    ]
    return Measurement(
        metric="speed_gain",
        value=gain,
        unit="fraction",
        n=min(first.n, second.n),
        flag=joined(*why, *flags),
    )


def _untrained(name: str, subject: Subject, margin: float) -> str | None:
    """What to flag about the training of a network, or None."""
    if why := divergence(subject.history):
        return f"{name} {why}"
    value = last_value(subject.history, "train_metric")
    if value is None:
        return f"whether {name} trained is not known: its train metric has no value at the end"
    near_chance = value - subject.chance <= margin * (1 - subject.chance)
    return f"{name} did not train" if near_chance else None


RELATIVE_DROP = DiagnosticSpec(
    name="relative-drop",
    version=1,
    summary="What the second network of a pair lacks: gain, relative drop, speed gain",
    source="Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3",
    license="Apache-2.0",
    params=DropParams,
    tiny={"resamples": 100},
    measure=measure,
    subjects="pair",
    needs=frozenset({"history", "logits"}),
    identical={"gain": 0, "relative_drop": 0, "corrected_drop": 0, "speed_gain": 0},
)
