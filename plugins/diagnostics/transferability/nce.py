"""NCE: how much the class that the source predicts leaves open about the target's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import nce
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench_plugins.diagnostics.transferability._source_view import (
    Score,
    View,
    score_classes,
)

__all__ = ["NCE"]


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """One number of b's predictions on a's training images; larger promises more. Units: nats.

    Error: infinitesimal jackknife over the training images, for this source network.
    """
    del params  # nothing to choose
    return score_classes(subjects, context, {"nce": "nats"}, _score, source_head=True)


def _score(view: View) -> dict[str, Score]:
    return {"nce": Score(nce(view.logits.argmax(axis=1), view.labels))}


NCE = DiagnosticSpec(
    name="nce",
    version=1,
    summary="Negative conditional entropy of the target's classes given the source's",
    source="Tran, Nguyen, Hassner, ICCV 2019, arXiv 1908.08142",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "images"}),
    cost=lambda params: 1.0,
)
