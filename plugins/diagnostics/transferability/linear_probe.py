"""Linear probe: logistic regression of the target's labels on the source's features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.data.splits import select_training
from transferbench.errors import DataError
from transferbench.metrics import hits, score, weighted_mean_auc
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Metric, Params, Subject
from transferbench.statistics import Interval, bootstrap, bootstrap_mean, wilson
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics.transferability._logistic import (
    Regression,
    fit_regressions,
)
from transferbench_plugins.diagnostics.transferability._scores_report import score_report
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    missing_classes,
    source_outputs,
    undefined_for_outputs,
    undefined_measurements,
)

__all__ = ["LINEAR_PROBE", "ProbeParams"]

UNITS = {
    "probe_test_metric": "fraction",
    "probe_train_metric": "fraction",
    "probe_strength": "dimensionless",
}

SPLIT_SEED = 0
"""Fixed, so that all networks validate on the same images."""

Strength = Annotated[float, Field(gt=0)]


class ProbeParams(Params):
    """``strengths`` s of the L2 penalty to choose from: mean log loss + s/2 |w|^2.

    ``validation``: the share of the training images held out to choose the strength. ``resamples``
    of the test images, for metrics that are not a share of them.
    """

    strengths: Annotated[tuple[Strength, ...], Field(min_length=1)] = (1, 0.1, 1e-2, 1e-3, 1e-4)
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    resamples: Annotated[int, Field(ge=100)] = 1000


class Choice(NamedTuple):
    """The chosen penalty strength, and the flag of the choice."""

    strength: float
    flag: str | None


def measure(
    params: ProbeParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The metric of a's task reached by a linear map of b's features, and the penalty chosen.

    One multinomial regression, or one regression per label of a multi-label task. The strength
    has the best metric on the held-out share of the training images (the strongest among equals);
    the regression is then refitted to all of them. Test images are not used for the choice.
    Units: fraction. Error: over test images, Wilson for a multi-class accuracy, else bootstrap.
    """
    trial, source = subjects
    train, test = source_outputs(trial, source, context, "train", "test")
    if reason := undefined_for_outputs(train, test):
        yield from undefined_measurements(UNITS, reason, train)
        return
    classes = trial.logits.shape[1]
    choice = _choose_strength(params, train, classes, trial.metric)
    (fitted,) = fit_regressions(train.features, train.labels, classes, [choice.strength])
    flag = join_flags(fitted.flag, _missing(train.labels, classes), train.flag)
    yield _test_measurement(params, trial.metric, fitted, test, context.seed, flag)
    yield from _train_measurements(trial.metric, fitted, train, choice, flag)


def _train_measurements(
    metric: Metric, fitted: Regression, train: SourceOutputs, choice: Choice, flag: str | None
) -> Iterator[Measurement]:
    reached = score(metric, fitted.logits(train.features), train.labels)
    undefined = "not defined for these labels" if reached is None else None
    for name, value, flags in (
        ("probe_train_metric", reached, join_flags(undefined, flag)),
        ("probe_strength", choice.strength, join_flags(choice.flag, train.flag)),
    ):
        yield Measurement(
            metric=name,
            value=value,
            unit=UNITS[name],
            n=len(train.labels),
            coordinates={"checkpoint": train.epoch},
            flag=flags,
        )


def _missing(labels: np.ndarray, classes: int) -> str | None:
    if labels.ndim == 1:
        return missing_classes(labels, classes)
    constant = ", ".join(map(str, np.flatnonzero(np.ptp(labels, axis=0) == 0)))
    return f"one value on all training images: label {constant}" if constant else None


def _choose_strength(
    params: ProbeParams, train: SourceOutputs, classes: int, metric: Metric
) -> Choice:
    strengths = sorted(params.strengths, reverse=True)
    fitting, validation = _held_out(train.labels, params.validation)
    if not len(validation):
        return Choice(strengths[0], "no image to spare for the choice: the strongest was taken")
    fits = fit_regressions(train.features[fitting], train.labels[fitting], classes, strengths)
    features, labels = train.features[validation], train.labels[validation]
    scores = [score(metric, fit.logits(features), labels) for fit in fits]
    values = [-np.inf if value is None else value for value in scores]
    best = int(np.argmax(values))
    if values[best] == -np.inf:
        return Choice(strengths[0], "no metric on the held-out share: the strongest was taken")
    at_end = best in {0, len(values) - 1} and min(values) < max(values)
    return Choice(strengths[best], "at an end of the strengths offered" if at_end else None)


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
            task="multi-class",
        )
    except DataError:  # no class has two images
        return np.arange(n), np.arange(0)
    return selection.train, selection.validation


def _test_measurement(
    params: ProbeParams,
    metric: Metric,
    fitted: Regression,
    test: SourceOutputs,
    seed: int,
    flag: str | None,
) -> Measurement:
    logits = fitted.logits(test.features)
    interval = _interval(metric, logits, test.labels, seed, params.resamples)
    return Measurement(
        metric="probe_test_metric",
        value=interval.value,
        unit="fraction",
        n=len(test.labels),
        coordinates={"checkpoint": test.epoch},
        flag=join_flags(interval.reason, flag),
        **interval.fields(),
    )


def _interval(
    metric: Metric, logits: np.ndarray, labels: np.ndarray, seed: int, resamples: int
) -> Interval:
    if metric == "accuracy":
        hits_N = hits(logits, labels)
        if labels.ndim == 1:
            return wilson(float(hits_N.sum()), len(labels))
        return bootstrap_mean(hits_N, seed, resamples)

    def area(counts_BN: np.ndarray) -> np.ndarray:
        return weighted_mean_auc(logits, labels, counts_BN)[:, None]

    (interval,) = bootstrap(area, np.ones(len(labels), dtype=np.int64), seed, resamples)
    return interval


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
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 2.0,
    report=score_report("linear-probe", "probe_train_metric", "probe_strength"),
)
