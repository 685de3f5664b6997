"""NCE: conditional entropy of the target's classes given the class that the source predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import nce
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["NCE"]


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """NCE of b's predictions on a's training images; larger is better. Units: nats.

    Error: infinitesimal jackknife over the training images, for this source network.
    """
    del params  # without parameters
    exclusive = ("target", "source")
    return score_measurements(subjects, context, {"nce": "nats"}, _score, exclusive=exclusive)


def _score(train: SourceOutputs) -> Iterator[Measurement]:
    interval = nce(train.logits.argmax(axis=1), train.labels)
    yield train.measurement("nce", interval, "nats", train.missing_classes)


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
    report=score_report("nce"),
)
