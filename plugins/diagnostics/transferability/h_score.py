"""H-score: the share of the variance of the source's features that lies between target classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import h_score
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    SourceScore,
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
    return score_measurements(subjects, context, UNITS, _score)


def _score(outputs: SourceOutputs) -> dict[str, SourceScore]:
    n, d = outputs.features.shape
    scores = h_score(outputs.features, outputs.labels)
    if not scores.rank:
        return {
            metric: SourceScore(_point(None, n), "the features do not vary") for metric in UNITS
        }
    full_rank = f"{n} images in {d} dimensions: any labels would reach the largest score"
    plain = SourceScore(_point(scores.plain, n), full_rank if scores.rank >= n - 1 else None)
    return {"h_score": plain, "regularised_h_score": SourceScore(_point(scores.regularised, n))}


def _point(value: float | None, n: int) -> Interval:
    return Interval(value, None, None, n, "none")


H_SCORE = DiagnosticSpec(
    name="h-score",
    version=1,
    summary="Variance of features between classes over total variance, plain and with shrinkage",
    source="Bao et al., ICIP 2019, doi:10.1109/ICIP.2019.8803726; Ibrahim et al. 2021, 2110.06893",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 1.0,
    report=score_report("h-score"),
)
