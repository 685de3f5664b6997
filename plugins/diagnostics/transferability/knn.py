"""k nearest neighbours: classification of the target's test images by their training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field

from transferbench.analysis.transferability import nearest_classes
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench.statistics import exact_share
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["KNN", "KnnParams"]


class KnnParams(Params):
    """``neighbours``: the values of k."""

    neighbours: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 20)


def measure(
    params: KnnParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The accuracy on a's test images for each k, by cosine similarity of b's features.

    Units: fraction. Error: exact (Clopper and Pearson), over the test images.
    """
    score, units = partial(_accuracies, params.neighbours), {"knn_accuracy": "fraction"}
    return score_measurements(subjects, context, units, score, ("train", "test"))


def _accuracies(
    neighbours: Sequence[int], train: SourceOutputs, test: SourceOutputs
) -> Iterator[Measurement]:
    n = len(train.labels)
    possible = [k for k in neighbours if k <= n]
    predicted = nearest_classes(train.features, train.labels, test.features, possible)
    correct = dict(zip(possible, (predicted == test.labels).sum(axis=1), strict=True))
    for k in neighbours:
        share = exact_share(float(correct[k]), len(test.labels)) if k in correct else None
        too_few = None if share else f"{k} neighbours among {n} training images"
        flags = (too_few, train.missing_classes)
        yield test.measurement("knn_accuracy", share, "fraction", *flags, k=k)


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
    unknown_labels=True,
    metrics=frozenset({"knn_accuracy"}),
    ranges={"knn_accuracy": (0, 1)},
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    report=ReportPart(
        build=f"{__package__}._scores_report:scores",
        metrics=frozenset({"knn_accuracy"}),
    ),
)
