"""A target's images as the source network sees them: features, outputs, and the task's labels.

Shape letters: N images, D features, Z outputs of the source's own head, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferbench.records import Measurement
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
    "BATCH",
    "Score",
    "View",
    "class_problem",
    "score_classes",
    "unseen_classes",
    "view_of",
    "view_problem",
    "without_value",
]

BATCH = 256


class View(NamedTuple):
    """What the source makes of ``labels``' images, at the pre-training ``epoch``.

    ``flag`` says where that is not the epoch that the trial started from.
    Shapes: float64 features (N, D) and logits (N, Z); labels (N,) int64 or (N, L).
    """

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    epoch: int
    flag: str | None

    @property
    def finite(self) -> bool:
        """Whether every feature and output is a number."""
        return bool(np.isfinite(self.features).all() and np.isfinite(self.logits).all())


class Score(NamedTuple):
    """A value with its error bar, where it has one, and what to know about it."""

    interval: Interval
    flag: str | None = None


def view_of(
    trial: Subject, source: Subject, context: DiagnosticContext, *splits: str
) -> tuple[View, ...]:
    """What the state of ``source`` that ``trial`` started from sees of the splits of its target.

    Its final state where the trial started from none that was kept.
    """
    found = initial_checkpoint(trial, source)
    flag = None if found else "a starts from no kept state of b, whose final one is measured"
    start = found or final_checkpoint(source)
    views = []
    for split in splits:
        images = trial.images(split)
        # One pass for all the scores of a checkpoint on these images.
        key = ("view", source.job, start.which, image_digest(images))
        features, logits = context.once(key, partial(_seen, source, start.which, images))
        views.append(View(features, logits, trial.targets(split).cpu().numpy(), start.epoch, flag))
    return tuple(views)


def _seen(source: Subject, which: str | int, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits. Shapes: (N, C, H, W) to float64 (N, D) and (N, Z)."""
    import torch

    from transferbench.networks.modules import features_and_logits

    net = source.network(which)
    head = source.head(net)
    with torch.no_grad():
        seen = [features_and_logits(net, head, part) for part in torch.split(images, BATCH)]
    features, logits = (
        torch.cat(parts).double().cpu().numpy() for parts in zip(*seen, strict=True)
    )
    return features, logits


def score_classes(
    subjects: Sequence[Subject],
    context: DiagnosticContext,
    units: Mapping[str, str],
    score: Callable[[View], Mapping[str, Score]],
    *,
    source_head: bool = False,
) -> Iterator[Measurement]:
    """``score`` of the target's training images, where it has classes that exclude each other.

    ``units``: the metrics that ``score`` gives; ``source_head``: it reads the source's classes.
    """
    trial, source = subjects
    if why := class_problem(trial, source if source_head else None):
        yield from without_value(units, why)
        return
    (view,) = view_of(trial, source, context, "train")
    if why := view_problem(view):
        yield from without_value(units, join_flags(why, view.flag), view)
        return
    unseen = unseen_classes(view.labels, trial.logits.shape[1])
    for metric, found in score(view).items():
        yield Measurement(
            metric=metric,
            value=found.interval.value,
            unit=units[metric],
            n=len(view.labels),
            coordinates={"checkpoint": view.epoch},
            flag=join_flags(found.flag, found.interval.reason, unseen, view.flag),
            **found.interval.fields(),
        )


def without_value(
    units: Mapping[str, str], why: str | None, view: View | None = None
) -> Iterator[Measurement]:
    """A measurement without a value for each metric, with the reason."""
    place = {} if view is None else {"checkpoint": view.epoch}
    n = 0 if view is None else len(view.labels)
    for metric, unit in units.items():
        yield Measurement(metric=metric, unit=unit, n=n, coordinates=place, flag=why)


def unseen_classes(labels: np.ndarray, classes: int) -> str | None:
    """What to flag about classes of the task that no training image has, or None."""
    counts = np.bincount(labels, minlength=classes)
    unseen = np.flatnonzero(counts == 0)
    if not len(unseen):
        return None
    return f"no training image of class {', '.join(map(str, unseen))}"


def class_problem(trial: Subject, source: Subject | None = None) -> str | None:
    """Why a score of classes is not defined on ``trial``'s task, and ``source``'s, or None."""
    if trial.task != "multi-class":
        return "defined for classes that exclude each other; the target has several labels an image"
    if source is not None and source.task != "multi-class":
        return (
            "needs source classes that exclude each other; the source has several labels an image"
        )
    return None


def view_problem(*views: View) -> str | None:
    """Why nothing can be computed from these views, the first of them to learn from, or None."""
    if not all(view.finite for view in views):
        return "features or logits of the source are not finite"
    labels = views[0].labels
    if labels.ndim == 1 and len(np.unique(labels)) < 2:
        return "all training images are of one class"
    return None
