"""Optimisation speed: the mean over epochs of the train metric, on clean images in eval mode.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench_plugins.diagnostics._history import History, divergence, evaluated, last_epoch

__all__ = ["SPEED", "Speed", "SpeedParams", "speed_of"]


class SpeedParams(Params):
    """``include_initial``: count epoch 0, the state before training; the paper does not say."""

    include_initial: bool = False


class Speed(NamedTuple):
    """A mean over ``n`` epochs; the value is None only where ``flag`` says why."""

    value: float | None
    n: int
    flag: str | None


def speed_of(history: History, *, include_initial: bool = False) -> Speed:
    """The mean train metric over epochs 1 (or 0) to the last.

    Epochs that were not evaluated are interpolated linearly between those that were, and flagged;
    epoch 0 serves as an end of that line also where it does not count. There is no mean where
    training ended without a metric: the last one known would stand for all after it.
    """
    epochs = np.arange(0 if include_initial else 1, last_epoch(history) + 1)
    known, values = evaluated(history, "train_metric")
    n, found = len(epochs), int(np.isin(epochs, known).sum())
    if why := divergence(history):
        return Speed(None, n, why)
    if not found:
        return Speed(None, n, "the train metric was evaluated after no epoch that counts")
    if known[-1] < epochs[-1]:
        return Speed(None, n, f"the train metric has no value after epoch {known[-1]}")
    mean = float(np.interp(epochs, known, values).mean())
    flag = None if found == n else f"train metric of {found} of {n} epochs, the rest interpolated"
    return Speed(mean, n, flag)


def measure(
    params: SpeedParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """One number; ``n`` counts the epochs averaged. Units: fraction."""
    del context  # a mean draws nothing
    (subject,) = subjects
    speed = speed_of(subject.history, include_initial=params.include_initial)
    yield Measurement(metric="speed", unit="fraction", **speed._asdict())


SPEED = DiagnosticSpec(
    name="speed",
    version=1,
    summary="Optimisation speed: mean train metric over the epochs of training",
    source="Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3",
    license="Apache-2.0",
    params=SpeedParams,
    measure=measure,
    subjects="one",
    needs=frozenset({"history"}),
)
