"""Optimisation speed: the train metric, on clean images in eval mode, averaged over epochs.

Source: Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Params,
    ReportPart,
    Subject,
    SubmittedTrial,
)
from transferbench_plugins.diagnostics._history import (
    History,
    divergence_flag,
    last_epoch,
    metric_curve,
)

__all__ = ["SPEED", "Speed", "SpeedParams", "speed_of"]


class SpeedParams(Params):
    """``include_initial``: include epoch 0, the untrained state (unspecified in the paper)."""

    include_initial: bool = False


class Speed(NamedTuple):
    """A mean over ``n`` epochs; if the value is None, ``flag`` is the reason."""

    value: float | None
    n: int
    flag: str | None


def speed_of(history: History, *, include_initial: bool = False) -> Speed:
    """The mean train metric over epochs 1 (or 0) to the last.

    Epochs that were not evaluated are interpolated linearly, with a flag; epoch 0 is used for the
    interpolation even if it is not averaged. Undefined if the last epoch has no value: the last
    finite one would be extrapolated over all epochs after it.
    """
    epochs = np.arange(0 if include_initial else 1, last_epoch(history) + 1)
    evaluated, values = metric_curve(history, "train_metric")
    n, available = len(epochs), int(np.isin(epochs, evaluated).sum())
    if diverged := divergence_flag(history):
        return Speed(None, n, diverged)
    if not available:
        return Speed(None, n, "the train metric was evaluated after no epoch that counts")
    if evaluated[-1] < epochs[-1]:
        return Speed(None, n, f"the train metric has no value after epoch {evaluated[-1]}")
    mean = float(np.interp(epochs, evaluated, values).mean())
    interpolated = f"train metric of {available} of {n} epochs, the rest interpolated"
    return Speed(mean, n, None if available == n else interpolated)


def measure(
    params: SpeedParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The mean train metric; ``n`` counts the epochs averaged. Units: fraction."""
    del context  # no randomness
    (subject,) = subjects
    yield _measurement(params, subject.history)


def recompute(params: SpeedParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """From the train metric of each epoch, where it is recorded."""
    (trial,) = trials
    if trial.history is not None:
        yield _measurement(params, trial.history)


def _measurement(params: SpeedParams, history: History) -> Measurement:
    speed = speed_of(history, include_initial=params.include_initial)
    return Measurement(metric="speed", unit="fraction", **speed._asdict())


SPEED = DiagnosticSpec(
    name="speed",
    version=1,
    summary="Optimisation speed: mean train metric over the epochs of training",
    source="Neyshabur et al. 2020, arXiv 2008.11687, caption of Figure 3",
    license="Apache-2.0",
    params=SpeedParams,
    measure=measure,
    recompute=recompute,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset({"speed"}),
    ranges={"speed": (0, 1)},
    needs=frozenset({"history"}),
    report=ReportPart(build=f"{__package__}._speed_report:speed", metrics=frozenset({"speed"})),
)
