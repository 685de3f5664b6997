"""H-score: the share of the variance of the source's features that lies between target classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import h_score
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, ReportPart, Subject
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["H_SCORE"]

UNITS = {"h_score": "dimensionless", "regularised_h_score": "dimensionless"}


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Plain and regularised H-score of b's features on a's training images; larger is better.

    Units: none; between 0 and the number of classes minus one.
    Error: no interval over images, as duplicates in a resample are trivially separable; compare
    replicates.
    """
    del params  # without parameters
    return score_measurements(subjects, context, UNITS, _scores)


def _scores(train: SourceOutputs) -> Iterator[Measurement]:
    n, d = train.features.shape
    scores = h_score(train.features, train.labels)
    constant = None if scores.rank else "the features do not vary"
    full_rank = f"{n} images in {d} dimensions: any labels would reach the largest score"
    flags = (constant or (full_rank if scores.rank >= n - 1 else None), constant)
    values = (scores.plain, scores.regularised)
    for (metric, unit), value, flag in zip(UNITS.items(), values, flags, strict=True):
        score = None if constant else value
        yield train.measurement(metric, score, unit, flag, train.missing_classes)


H_SCORE = DiagnosticSpec(
    name="h-score",
    version=1,
    summary="Variance of features between classes over total variance, plain and with shrinkage",
    source="Bao et al., ICIP 2019, doi:10.1109/ICIP.2019.8803726; Ibrahim et al. 2021, 2110.06893",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"h_score", "regularised_h_score"}),
    ranges=dict.fromkeys(("h_score", "regularised_h_score"), (0, math.inf)),
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    needs_of_source="state",
    cost=lambda params: 1.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset(UNITS)),
)
