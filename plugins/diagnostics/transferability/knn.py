"""k nearest neighbours: classification of the target's test images by their training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from transferbench.analysis.transferability import nearest_classes
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import wilson
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    missing_classes,
    source_outputs,
    undefined_for_outputs,
    undefined_for_task,
    undefined_measurements,
)

__all__ = ["KNN", "KnnParams"]

UNITS = {"knn_accuracy": "fraction"}


class KnnParams(Params):
    """``neighbours``: the values of k."""

    neighbours: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 20)


def measure(
    params: KnnParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The accuracy on a's test images for each k, by cosine similarity of b's features.

    Units: fraction. Error: Wilson over the test images.
    """
    trial, source = subjects
    if reason := undefined_for_task(trial):
        yield from undefined_measurements(UNITS, reason)
        return
    train, test = source_outputs(trial, source, context, "train", "test")
    if reason := undefined_for_outputs(train, test):
        yield from undefined_measurements(UNITS, reason, train)
        return
    missing = missing_classes(train.labels, trial.logits.shape[1])
    yield from _accuracies(params, train, test, join_flags(missing, train.flag))


def _accuracies(
    params: KnnParams, train: SourceOutputs, test: SourceOutputs, flag: str | None
) -> Iterator[Measurement]:
    n_train, n_test = len(train.labels), len(test.labels)
    possible = [k for k in params.neighbours if k <= n_train]
    predicted = nearest_classes(train.features, train.labels, test.features, possible)
    correct = dict(zip(possible, (predicted == test.labels).sum(axis=1), strict=True))
    for k in params.neighbours:
        share = wilson(float(correct[k]), n_test) if k in correct else None
        too_few = None if k in correct else f"{k} neighbours among {n_train} training images"
        yield Measurement(
            metric="knn_accuracy",
            value=share.value if share else None,
            unit="fraction",
            n=n_test,
            coordinates={"checkpoint": train.epoch, "k": k},
            flag=join_flags(too_few, flag),
            **(share.fields() if share else {}),
        )


KNN = DiagnosticSpec(
    name="knn",
    version=1,
    summary="Accuracy of k nearest training images in the source's features, by cosine similarity",
    source="Wu et al., CVPR 2018, arXiv 1805.01978; Caron et al., ICCV 2021, arXiv 2104.14294",
    license="Apache-2.0",
    params=KnnParams,
    tiny={"neighbours": [1]},
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 2.0,
    report=score_report("knn"),
)
