"""Linear probe: logistic regression of the target's labels on the source's features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.data.splits import select_training
from transferbench.errors import DataError
from transferbench.metrics import score
from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Metric,
    Params,
    ReportPart,
    Subject,
)
from transferbench_plugins.diagnostics._measurement import metric_interval
from transferbench_plugins.diagnostics.transferability._logistic import fit_regressions
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["LINEAR_PROBE", "ProbeParams"]

UNITS = {
    "probe_test_metric": "fraction",
    "probe_train_metric": "fraction",
    "probe_strength": "dimensionless",
}

SPLIT_SEED = 0
"""Fixed, so that all networks validate on the same images."""

Penalty = Annotated[float, Field(gt=0)]


class ProbeParams(Params):
    """``strengths`` s of the L2 penalty to choose from: mean log loss + s/2 |w|^2.

    ``validation``: the share of the training images held out to choose the strength. ``resamples``
    of the test images, for metrics that are not a share of them.
    """

    strengths: Annotated[tuple[Penalty, ...], Field(min_length=1)] = (
        1,
        0.1,
        1e-2,
        1e-3,
        1e-4,
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 1000


def measure(
    params: ProbeParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The metric of a's task reached by a linear map of b's features, and the penalty chosen.

    One multinomial regression, or one regression per label of a multi-label task, on the images
    where it is known. The strength has the best metric on the held-out share of the training
    images (the strongest among equals); the regression is then refitted to all of them. Test images
    are not used for the choice.
    Units: fraction. Error: over test images, exact for a multi-class accuracy; for other metrics
    as in ``transferbench.analysis.metric_intervals``, else bootstrap.
    """
    probe = partial(_probe, params, subjects[0].metric, context.seed)
    return score_measurements(subjects, context, UNITS, probe, ("train", "test"), exclusive=())


def _probe(
    params: ProbeParams, metric: Metric, seed: int, train: SourceOutputs, test: SourceOutputs
) -> Iterator[Measurement]:
    strength, choice_flag = _choose_strength(params, train, metric)
    (fitted,) = fit_regressions(train.features, train.labels, train.classes, [strength])
    flags = (fitted.flag, train.missing_classes if train.labels.ndim == 1 else _constant(train))
    logits = fitted.logits(test.features)
    tested = metric_interval(metric, logits, test.labels, seed, params.resamples)
    yield test.measurement("probe_test_metric", tested, "fraction", tested.reason, *flags)
    reached = score(metric, fitted.logits(train.features), train.labels)
    undefined = "not defined for these labels" if reached is None else None
    yield train.measurement("probe_train_metric", reached, "fraction", undefined, *flags)
    yield train.measurement("probe_strength", strength, "dimensionless", choice_flag)


def _constant(train: SourceOutputs) -> str | None:
    varies_L = (train.labels > 0.5).any(axis=0) & (train.labels <= 0.5).any(axis=0)
    constant = ", ".join(map(str, np.flatnonzero(~varies_L)))
    return f"one value on all training images: label {constant}" if constant else None


def _choose_strength(
    params: ProbeParams, train: SourceOutputs, metric: Metric
) -> tuple[float, str | None]:
    """The penalty strength, and the flag of the choice."""
    strengths = sorted(params.strengths, reverse=True)
    fitting, validation = _held_out(train.labels, params.validation)
    if not len(validation):
        return strengths[0], "no image to spare for the choice: the strongest was taken"
    fits = fit_regressions(train.features[fitting], train.labels[fitting], train.classes, strengths)
    features, labels = train.features[validation], train.labels[validation]
    scores = [score(metric, fit.logits(features), labels) for fit in fits]
    values = [-np.inf if value is None else value for value in scores]
    best = int(np.argmax(values))
    if values[best] == -np.inf:
        return strengths[0], "no metric on the held-out share: the strongest was taken"
    at_end = best in {0, len(values) - 1} and min(values) < max(values)
    return strengths[best], "at an end of the strengths offered" if at_end else None


def _held_out(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices to fit on and to validate on: stratified by class, random for multi-label tasks."""
    n = len(labels)
    if labels.ndim == 2:
        order = np.random.default_rng(SPLIT_SEED).permutation(n)
        return np.sort(order[round(share * n) :]), np.sort(order[: round(share * n)])
    try:
        selection = select_training(
            labels,
            np.arange(n),
            seed=SPLIT_SEED,
            labels_per_class=None,
            validation=share,
            validation_limit=None,
        )
    except DataError:  # no class has two images
        return np.arange(n), np.arange(0)
    return selection.train, selection.validation


LINEAR_PROBE = DiagnosticSpec(
    name="linear-probe",
    version=1,
    summary="Test metric of a logistic regression on the source's features",
    source="Kornblith, Shlens, Le, CVPR 2019, arXiv 1805.08974",
    license="Apache-2.0",
    params=ProbeParams,
    tiny={"strengths": [0.1, 0.01], "resamples": 100},
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"probe_strength", "probe_test_metric", "probe_train_metric"}),
    ranges=dict.fromkeys(("probe_test_metric", "probe_train_metric"), (0, 1)),
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    needs_of_source="state",
    cost=lambda params: 2.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset(UNITS)),
)
