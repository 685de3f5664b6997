"""Outputs of the source network on a target's images, and measurements of scores of them.

Shape letters: N images, D features, Z outputs of the source's own head, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferbench.records import Coordinate, Measurement
from transferbench.specs import DiagnosticContext, Subject
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics._images import image_digest
from transferbench_plugins.diagnostics._measurement import join_flags, measurement
from transferbench_plugins.diagnostics._source_checkpoint import (
    final_checkpoint,
    initial_checkpoint,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SourceOutputs", "score_measurements"]

BATCH_SIZE = 256

MULTI_LABEL = {
    "target": "defined for classes that exclude each other; the target has several labels an image",
    "source": "needs source classes that exclude each other; the source has several labels an "
    "image",
}
"""The flag of a score that needs exclusive classes of this network's task."""


class SourceOutputs(NamedTuple):
    """Features and logits of the source at pre-training ``epoch``, and the images' labels.

    ``epoch``: None for external weights. ``classes``: those of the target's task, or its labels.
    ``flag``: set if the trial did not start from that epoch.
    Shapes: float64 features (N, D) and logits (N, Z); labels (N,) int64 or (N, L).
    """

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    classes: int
    epoch: int | None
    flag: str | None

    @property
    def finite(self) -> bool:
        """Whether all features and logits are finite."""
        return bool(np.isfinite(self.features).all() and np.isfinite(self.logits).all())

    @property
    def missing_classes(self) -> str | None:
        """The flag of classes of a multi-class task without an image, or None."""
        missing = np.flatnonzero(np.bincount(self.labels, minlength=self.classes) == 0)
        return (
            f"no training image of class {', '.join(map(str, missing))}" if len(missing) else None
        )

    def measurement(
        self,
        metric: str,
        value: Interval | float | None,
        unit: str,
        *flags: str | None,
        **coordinates: Coordinate,
    ) -> Measurement:
        """A measurement over these images; without a value, the first flag says why."""
        at: dict[str, Coordinate] = {**coordinates}
        if self.epoch is not None:
            at["checkpoint"] = self.epoch
        flag = join_flags(*flags, self.flag)
        return measurement(metric, value, unit, len(self.labels), at, flag=flag)


def score_measurements(
    subjects: Sequence[Subject],
    context: DiagnosticContext,
    units: Mapping[str, str],
    score: Callable[..., Iterable[Measurement]],
    splits: Sequence[str] = ("train",),
    *,
    exclusive: Sequence[str] = ("target",),
) -> Iterator[Measurement]:
    """``score`` of the outputs on each of ``splits``, or a flag for each metric of ``units``.

    ``exclusive``: those of ``target`` and ``source`` whose task must be multi-class.
    """
    trial, source = subjects
    tasks = {"target": trial.task, "source": source.task}
    if reasons := [MULTI_LABEL[role] for role in exclusive if tasks[role] != "multi-class"]:
        for metric, unit in units.items():
            yield measurement(metric, None, unit, 0, flag=reasons[0])
        return
    outputs = _source_outputs(trial, source, context, splits)
    if reason := _undefined(outputs):
        for metric, unit in units.items():
            yield outputs[0].measurement(metric, None, unit, reason)
        return
    yield from score(*outputs)


def _undefined(outputs: Sequence[SourceOutputs]) -> str | None:
    """Why no score can be computed from these outputs, or None."""
    if not all(part.finite for part in outputs):
        return "features or logits of the source are not finite"
    labels = outputs[0].labels
    if labels.ndim == 1 and len(np.unique(labels)) < 2:
        return "all training images are of one class"
    return None


def _source_outputs(
    trial: Subject, source: Subject, context: DiagnosticContext, splits: Sequence[str]
) -> list[SourceOutputs]:
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
        labels, classes = trial.targets(split).cpu().numpy(), trial.logits.shape[1]
        outputs.append(SourceOutputs(features, logits, labels, classes, epoch, flag))
    return outputs


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
