"""LEEP: how well the source's predicted class probabilities predict the target's classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.analysis.transferability import leep
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["LEEP"]


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """LEEP of b's head on a's training images; larger is better. Units: nats.

    Error: infinitesimal jackknife over the training images, for this source network.
    """
    del params  # without parameters
    exclusive = ("target", "source")
    return score_measurements(subjects, context, {"leep": "nats"}, _score, exclusive=exclusive)


def _score(train: SourceOutputs) -> Iterator[Measurement]:
    from scipy.special import softmax  # slow to import

    interval = leep(softmax(train.logits, axis=1), train.labels)
    yield train.measurement("leep", interval, "nats", train.missing_classes)


LEEP = DiagnosticSpec(
    name="leep",
    version=1,
    summary="Log expected empirical prediction of the target's classes from the source's",
    source="Nguyen, Hassner, Seeger, Archambeau, ICML 2020, arXiv 2002.12462",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "images"}),
    cost=lambda params: 1.0,
    report=score_report("leep"),
)
