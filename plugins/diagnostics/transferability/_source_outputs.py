"""Outputs of the source network on a target's images, and measurements of scores of them.

Shape letters: N images, D features, Z outputs of the source's own head, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferbench.records import Coordinate, Measurement
from transferbench.specs import DiagnosticContext, Subject
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics._image_digest import image_digest
from transferbench_plugins.diagnostics._source_checkpoint import (
    final_checkpoint,
    initial_checkpoint,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SourceOutputs",
    "SourceScore",
    "missing_classes",
    "score_measurements",
    "source_outputs",
    "undefined_for_outputs",
    "undefined_for_task",
    "undefined_measurements",
]

BATCH_SIZE = 256


class SourceOutputs(NamedTuple):
    """Features and logits of the source at pre-training ``epoch``, and the images' labels.

    ``flag``: set if the trial did not start from that epoch.
    Shapes: float64 features (N, D) and logits (N, Z); labels (N,) int64 or (N, L).
    """

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    epoch: int
    flag: str | None

    @property
    def finite(self) -> bool:
        """Whether all features and logits are finite."""
        return bool(np.isfinite(self.features).all() and np.isfinite(self.logits).all())


class SourceScore(NamedTuple):
    """A value with its interval, if it has one, and its flag."""

    interval: Interval
    flag: str | None = None


def source_outputs(
    trial: Subject, source: Subject, context: DiagnosticContext, *splits: str
) -> tuple[SourceOutputs, ...]:
    """Outputs of the source checkpoint that ``trial`` started from, on splits of its target.

    Those of the final state if the trial started from no stored state of ``source``.
    """
    checkpoint = initial_checkpoint(trial, source)
    flag = None if checkpoint else "a starts from no kept state of b, whose final one is measured"
    which, epoch = checkpoint or final_checkpoint(source)
    outputs = []
    for split in splits:
        images = trial.images(split)
        # Cached: all scores of a checkpoint share one forward pass.
        key = ("source outputs", source.job, which, image_digest(images))
        features, logits = context.once(key, partial(_forward, source, which, images))
        labels = trial.targets(split).cpu().numpy()
        outputs.append(SourceOutputs(features, logits, labels, epoch, flag))
    return tuple(outputs)


def _forward(source: Subject, which: str | int, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits. Shapes: (N, C, H, W) to float64 (N, D) and (N, Z)."""
    import torch

    from transferbench.networks.modules import features_and_logits

    net = source.network(which)
    head = source.head(net)
    with torch.no_grad():
        batches = [
            features_and_logits(net, head, batch) for batch in torch.split(images, BATCH_SIZE)
        ]
    features, logits = (
        torch.cat(parts).double().cpu().numpy() for parts in zip(*batches, strict=True)
    )
    return features, logits


def score_measurements(
    subjects: Sequence[Subject],
    context: DiagnosticContext,
    units: Mapping[str, str],
    score: Callable[[SourceOutputs], Mapping[str, SourceScore]],
    *,
    source_head: bool = False,
) -> Iterator[Measurement]:
    """``score`` on the training images of a multi-class target.

    ``units``: unit of each metric of ``score``. ``source_head``: the score uses the source's
    classes.
    """
    trial, source = subjects
    if reason := undefined_for_task(trial, source if source_head else None):
        yield from undefined_measurements(units, reason)
        return
    (outputs,) = source_outputs(trial, source, context, "train")
    if reason := undefined_for_outputs(outputs):
        yield from undefined_measurements(units, reason, outputs)
        return
    missing = missing_classes(outputs.labels, trial.logits.shape[1])
    for metric, (interval, flag) in score(outputs).items():
        yield Measurement(
            metric=metric,
            value=interval.value,
            unit=units[metric],
            n=len(outputs.labels),
            coordinates={"checkpoint": outputs.epoch},
            flag=join_flags(flag, interval.reason, missing, outputs.flag),
            **interval.fields(),
        )


def undefined_measurements(
    units: Mapping[str, str], reason: str, outputs: SourceOutputs | None = None
) -> Iterator[Measurement]:
    """A measurement without a value for each metric, flagged with the reason."""
    coordinates: dict[str, Coordinate] = {}
    n, flag = 0, None
    if outputs is not None:
        coordinates, n = {"checkpoint": outputs.epoch}, len(outputs.labels)
        flag = outputs.flag
    flag = join_flags(reason, flag)
    for metric, unit in units.items():
        yield Measurement(metric=metric, unit=unit, n=n, coordinates=coordinates, flag=flag)


def missing_classes(labels: np.ndarray, classes: int) -> str | None:
    """The flag of classes of the task without a training image, or None."""
    counts = np.bincount(labels, minlength=classes)
    missing = np.flatnonzero(counts == 0)
    if not len(missing):
        return None
    return f"no training image of class {', '.join(map(str, missing))}"


def undefined_for_task(trial: Subject, source: Subject | None = None) -> str | None:
    """Why a score of classes is undefined on the task of ``trial`` or ``source``, or None."""
    if trial.task != "multi-class":
        return "defined for classes that exclude each other; the target has several labels an image"
    if source is not None and source.task != "multi-class":
        return (
            "needs source classes that exclude each other; the source has several labels an image"
        )
    return None


def undefined_for_outputs(train: SourceOutputs, *others: SourceOutputs) -> str | None:
    """Why no score can be computed from these outputs, or None."""
    if not all(outputs.finite for outputs in (train, *others)):
        return "features or logits of the source are not finite"
    labels = train.labels
    if labels.ndim == 1 and len(np.unique(labels)) < 2:
        return "all training images are of one class"
    return None
