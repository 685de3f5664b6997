"""LogME: evidence of a Bayesian linear regression of the target's labels on the features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from transferbench.analysis.evidence import log_evidence
from transferbench.metrics import one_hot
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, ReportPart, Subject
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["LOGME"]


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """LogME of b's features on a's training images, the mean over one-vs-rest targets.

    For multi-label tasks each label is a target, on the images where it is known. Classes and
    labels that are constant over the images have no evidence; they are left out and flagged.
    Units: nats per image; the log of a density, so it may be positive.
    Error: at most 0.000001 nats below the maximum; no interval over images: compare replicates.
    """
    del params  # without parameters
    return score_measurements(subjects, context, {"logme": "nats"}, _score, exclusive=())


def _score(train: SourceOutputs) -> Iterator[Measurement]:
    labels = train.labels
    target_NT = labels if labels.ndim == 2 else one_hot(labels, train.classes)
    varying_T = (target_NT > 0.5).any(axis=0) & (target_NT <= 0.5).any(axis=0)
    if not varying_T.any():
        flag = "no label has both values among the training images"
        yield train.measurement("logme", None, "nats", flag)
        return
    evidence_T = _evidence(train.features, target_NT[:, varying_T])
    constant = ", ".join(map(str, np.flatnonzero(~varying_T)))
    yield train.measurement(
        "logme",
        float(evidence_T.mean()),
        "nats",
        f"one value on all images, left out: {constant}" if constant else None,
    )


def _evidence(features: np.ndarray, target_NT: np.ndarray) -> np.ndarray:
    """The evidence of each target on the images where it is known. Shapes: (N, D) to (T,)."""
    known_NT = ~np.isnan(target_NT)
    if known_NT.all():
        return log_evidence(features, target_NT)
    parts = [
        log_evidence(features[known_N], target_N[known_N, None])
        for target_N, known_N in zip(target_NT.T, known_NT.T, strict=True)
    ]
    return np.concatenate(parts)


LOGME = DiagnosticSpec(
    name="logme",
    version=1,
    summary="Log maximum evidence of the target's labels given the source's features",
    source="You, Liu, Wang, Long, ICML 2021, arXiv 2102.11005",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"logme"}),
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    needs_of_source="state",
    cost=lambda params: 1.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset({"logme"})),
)
