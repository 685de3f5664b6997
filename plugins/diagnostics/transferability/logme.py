"""LogME: the evidence of a Bayesian linear regression of the target's labels on the features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from transferbench.analysis.transferability import Evidence, log_evidence
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics.transferability._source_view import (
    View,
    view_of,
    view_problem,
    without_value,
)

__all__ = ["LOGME"]

UNITS = {"logme": "nats"}


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """One number of b's features on a's training images, the mean over one-vs-rest targets.

    For multi-label tasks each label is a target. Classes and labels with one value on all images
    have no evidence and are left out, which is flagged. Units: nats an image; it may be positive,
    being the logarithm of a density.
    Error: none over the images; replicates give it.
    """
    del params  # nothing to choose
    trial, source = subjects
    (view,) = view_of(trial, source, context, "train")
    targets, skipped = _targets(view, trial.logits.shape[1])
    if why := view_problem(view) or _no_target(targets):
        yield from without_value(UNITS, join_flags(why, view.flag), view)
        return
    found = log_evidence(view.features, targets)
    yield Measurement(
        metric="logme",
        value=float(found.per_image.mean()),
        unit="nats",
        n=len(targets),
        coordinates={"checkpoint": view.epoch},
        flag=join_flags(_not_reached(found), skipped, view.flag),
    )


def _targets(view: View, classes: int) -> tuple[np.ndarray, str | None]:
    """The targets of both values, and what to flag about the others. Shapes: bool (N, T)."""
    labels = view.labels
    wanted = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.arange(classes)
    mixed = wanted.any(axis=0) & ~wanted.all(axis=0)
    skipped = ", ".join(map(str, np.flatnonzero(~mixed)))
    return wanted[:, mixed], f"one value on all images, left out: {skipped}" if skipped else None


def _no_target(targets: np.ndarray) -> str | None:
    return None if targets.shape[1] else "no label has both values among the training images"


def _not_reached(found: Evidence) -> str | None:
    missed = int((~found.converged).sum())
    return f"{missed} of {len(found.converged)} targets not converged" if missed else None


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
)
