"""Recall, precision, F1 and AUC of each class, and the confusion matrix.

Shape letters: N items, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.analysis.metric_intervals import metric_interval
from transferbench.metrics import class_scores, one_hot, predict
from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Params,
    ReportPart,
    Subject,
    SubmittedTrial,
)
from transferbench.statistics import exact_share
from transferbench_plugins.diagnostics._measurement import measurement

__all__ = ["PER_CLASS", "PerClassParams"]

SHARES = ("recall", "precision", "f1", "class_auc")
METRICS = frozenset({*SHARES, "confusion"})
ABSENT = "no test image of this class"
NEVER = "never predicted"
UNDEFINED_AUC = "all test images are of this class, or none, or logits are not finite"


class PerClassParams(Params):
    """``largest_confusion``: the most classes of which the confusion matrix is measured."""

    largest_confusion: Annotated[int, Field(ge=2, le=1000)] = 50


def measure(
    params: PerClassParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """How well each class, or each label of a multi-label task, is recognised.

    With TP, FP and FN the images that are rightly, wrongly and wrongly not assigned to a class:
    recall = TP / (TP + FN), precision = TP / (TP + FP), f1 = 2 TP / (2 TP + FP + FN); class_auc is
    the area under the ROC curve of the class against the rest; confusion is the number of images
    of ``class`` that are ``predicted`` to be of another, or of it.
    Labels that are unknown are left out.
    Units: fractions, and images. ``n`` counts the images that a number is a share of.
    Error: exact over test images for recall and precision; for the AUC with the effective number
    of images; none for f1 and confusion.
    """
    del context  # no randomness
    (subject,) = subjects
    logits, labels = subject.logits, subject.labels
    classes = logits.shape[1]
    yield from _of_predictions(params, predict(logits, labels), labels, classes)
    scores_NK = class_scores(logits) if labels.ndim == 1 else logits
    truth_NK = one_hot(labels, classes).astype(np.float32) if labels.ndim == 1 else labels
    for k in range(classes):
        known_N = ~np.isnan(truth_NK[:, k])
        area = metric_interval("auc", scores_NK[known_N][:, [k]], truth_NK[known_N][:, [k]])
        yield measurement("class_auc", area, "fraction", int(known_N.sum()), {"class": k},
                          missing=UNDEFINED_AUC)  # fmt: skip


def recompute(params: PerClassParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """All but the AUC."""
    (trial,) = trials
    yield from _of_predictions(params, trial.predicted, trial.labels, trial.classes)


def _of_predictions(
    params: PerClassParams, predicted: np.ndarray, labels: np.ndarray, classes: int
) -> Iterator[Measurement]:
    """Shapes: predicted and labels (N,) or (N, K)."""
    several = labels.ndim == 2
    if several:
        # What is not known to be right or wrong is not counted.
        positive_NK, predicted_NK = labels > 0.5, predicted & ~np.isnan(labels)
        sets = (positive_NK & predicted_NK, positive_NK, predicted_NK)
        counts_3K = np.stack([each.sum(axis=0) for each in sets])
    else:
        lists = (labels[labels == predicted], labels, predicted)
        counts_3K = np.stack([_counts(each, classes) for each in lists])
    for k, (right, actual, named) in enumerate(counts_3K.T.tolist()):
        at = {"class": k}
        recall, precision = exact_share(right, actual), exact_share(right, named)
        f1 = 2 * right / (actual + named) if actual + named else None
        yield measurement("recall", recall, "fraction", actual, at, missing=ABSENT)
        yield measurement("precision", precision, "fraction", named, at, missing=NEVER)
        yield measurement("f1", f1, "fraction", actual + named, at, missing=f"{ABSENT}; {NEVER}")
    if not several and classes <= params.largest_confusion:
        yield from _confusion(labels, predicted, classes)


def _counts(values_N: np.ndarray, size: int) -> np.ndarray:
    """How often each number below ``size`` occurs; others, as in a bad submission, do not count."""
    return np.bincount(values_N[(values_N >= 0) & (values_N < size)], minlength=size)


def _confusion(
    labels_N: np.ndarray, predicted_N: np.ndarray, classes: int
) -> Iterator[Measurement]:
    for k in range(classes):
        row = _counts(predicted_N[labels_N == k], classes).tolist()
        for other, count in enumerate(row):
            at = {"class": k, "predicted": other}
            yield measurement("confusion", float(count), "images", sum(row), at)


PER_CLASS = DiagnosticSpec(
    name="per-class",
    version=1,
    summary="Recall, precision, F1 and AUC of each class, and the confusion matrix",
    source="Sokolova and Lapalme 2009, doi:10.1016/j.ipm.2009.03.002",
    license="Apache-2.0",
    params=PerClassParams,
    measure=measure,
    recompute=recompute,
    subjects="one",
    unknown_labels=True,
    metrics=METRICS,
    ranges=dict.fromkeys(SHARES, (0, 1)),
    needs=frozenset({"logits"}),
    report=ReportPart(build=f"{__package__}._per_class_report:classes", metrics=METRICS),
)
