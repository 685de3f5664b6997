"""H-score: how much of the source's features varies between the target's classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import h_score
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics.transferability._source_view import (
    Score,
    View,
    score_classes,
)

__all__ = ["H_SCORE"]

UNITS = {"h_score": "dimensionless", "regularised_h_score": "dimensionless"}


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Plain and regularised, of b's features on a's training images; larger promises more.

    Units: none; between 0 and the number of classes less one.
    Error: none over the images, which a resample would repeat and so tell apart; replicates give
    it.
    """
    del params  # nothing to choose
    return score_classes(subjects, context, UNITS, _score)


def _score(view: View) -> dict[str, Score]:
    n, d = view.features.shape
    found = h_score(view.features, view.labels)
    if not found.rank:
        return {metric: Score(_point(None, n), "the features do not vary") for metric in UNITS}
    full = f"{n} images in {d} dimensions: any labels would reach the largest score"
    plain = Score(_point(found.plain, n), full if found.rank >= n - 1 else None)
    return {"h_score": plain, "regularised_h_score": Score(_point(found.regularised, n))}


def _point(value: float | None, n: int) -> Interval:
    return Interval(value, None, None, n, "none")


H_SCORE = DiagnosticSpec(
    name="h-score",
    version=1,
    summary="Variance of features between classes over the whole, plain and with shrinkage",
    source="Bao et al., ICIP 2019, doi:10.1109/ICIP.2019.8803726; Ibrahim et al. 2021, 2110.06893",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 1.0,
)
