"""LogME: evidence of a Bayesian linear regression of the target's labels on the features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from transferbench.analysis.transferability import Evidence, log_evidence
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    source_outputs,
    undefined_for_outputs,
    undefined_measurements,
)

__all__ = ["LOGME"]

UNITS = {"logme": "nats"}


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """LogME of b's features on a's training images, the mean over one-vs-rest targets.

    For multi-label tasks each label is a target. Classes and labels that are constant over the
    images have no evidence; they are left out and flagged.
    Units: nats per image; the log of a density, so it may be positive.
    Error: no interval over images; compare replicates.
    """
    del params  # without parameters
    trial, source = subjects
    (outputs,) = source_outputs(trial, source, context, "train")
    targets, skipped = _targets(outputs, trial.logits.shape[1])
    if reason := undefined_for_outputs(outputs) or _no_target(targets):
        yield from undefined_measurements(UNITS, reason, outputs)
        return
    evidence = log_evidence(outputs.features, targets)
    yield Measurement(
        metric="logme",
        value=float(evidence.per_image.mean()),
        unit="nats",
        n=len(targets),
        coordinates={"checkpoint": outputs.epoch},
        flag=join_flags(_not_converged(evidence), skipped, outputs.flag),
    )


def _targets(outputs: SourceOutputs, classes: int) -> tuple[np.ndarray, str | None]:
    """The targets that vary, and the flag of constant ones. Shapes: bool (N, T)."""
    labels = outputs.labels
    targets = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.arange(classes)
    varying = targets.any(axis=0) & ~targets.all(axis=0)
    constant = ", ".join(map(str, np.flatnonzero(~varying)))
    flag = f"one value on all images, left out: {constant}" if constant else None
    return targets[:, varying], flag


def _no_target(targets: np.ndarray) -> str | None:
    return None if targets.shape[1] else "no label has both values among the training images"


def _not_converged(evidence: Evidence) -> str | None:
    failed = int((~evidence.converged).sum())
    return f"{failed} of {len(evidence.converged)} targets not converged" if failed else None


LOGME = DiagnosticSpec(
    name="logme",
    version=1,
    summary="Log maximum evidence of the target's labels given the source's features",
    source="You, Liu, Wang, Long, ICML 2021, arXiv 2102.11005",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 1.0,
    report=score_report("logme"),
)
