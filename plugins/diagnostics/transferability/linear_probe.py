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
from transferbench_plugins.diagnostics.transferability._logistic import Regression, regressions
from transferbench_plugins.diagnostics.transferability._source_view import (
    View,
    unseen_classes,
    view_of,
    view_problem,
    without_value,
)

__all__ = ["LINEAR_PROBE", "ProbeParams"]

UNITS = {
    "probe_test_metric": "fraction",
    "probe_train_metric": "fraction",
    "probe_strength": "dimensionless",
}

SPLIT_SEED = 0
"""One for all: networks on the same images choose on the same share, and differ in features."""

Strength = Annotated[float, Field(gt=0)]


class ProbeParams(Params):
    """``strengths``: of the L2 penalty to choose from, s/2 |w|^2 beside the mean log loss.

    ``validation``: the share of the training images that the choice is made on; ``resamples`` of
    the test images for the interval of what is not a share of them.
    """

    strengths: Annotated[tuple[Strength, ...], Field(min_length=1)] = (1, 0.1, 1e-2, 1e-3, 1e-4)
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    resamples: Annotated[int, Field(ge=100)] = 1000


class Choice(NamedTuple):
    """A penalty, and what to flag about how it was chosen."""

    strength: float
    flag: str | None


def measure(
    params: ProbeParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The metric of a's task that a linear map of b's features reaches, and the penalty chosen.

    One regression over all classes, or one for each label of a multi-label task. The penalty has
    the best metric on the held-out share, the strongest of equals; the regression is then fitted
    to all training images. Test images choose nothing.
    Units: fraction. Error: over test images: Wilson for the accuracy of classes, else bootstrap.
    """
    trial, source = subjects
    train, test = view_of(trial, source, context, "train", "test")
    if why := view_problem(train, test):
        yield from without_value(UNITS, join_flags(why, train.flag), train)
        return
    classes = trial.logits.shape[1]
    choice = _choose(params, train, classes, trial.metric)
    (fitted,) = regressions(train.features, train.labels, classes, [choice.strength])
    flag = join_flags(fitted.flag, _unseen(train.labels, classes), train.flag)
    yield _tested(params, trial.metric, fitted, test, context.seed, flag)
    yield from _learnt(trial.metric, fitted, train, choice, flag)


def _learnt(
    metric: Metric, fitted: Regression, train: View, choice: Choice, flag: str | None
) -> Iterator[Measurement]:
    reached = score(metric, fitted.logits(train.features), train.labels)
    undefined = "not defined for these labels" if reached is None else None
    for name, value, told in (
        ("probe_train_metric", reached, join_flags(undefined, flag)),
        ("probe_strength", choice.strength, join_flags(choice.flag, train.flag)),
    ):
        yield Measurement(
            metric=name,
            value=value,
            unit=UNITS[name],
            n=len(train.labels),
            coordinates={"checkpoint": train.epoch},
            flag=told,
        )


def _unseen(labels: np.ndarray, classes: int) -> str | None:
    if labels.ndim == 1:
        return unseen_classes(labels, classes)
    constant = ", ".join(map(str, np.flatnonzero(np.ptp(labels, axis=0) == 0)))
    return f"one value on all training images: label {constant}" if constant else None


def _choose(params: ProbeParams, train: View, classes: int, metric: Metric) -> Choice:
    strengths = sorted(params.strengths, reverse=True)
    learnt, held = _held_out(train.labels, params.validation)
    if not len(held):
        return Choice(strengths[0], "no image to spare for the choice: the strongest was taken")
    fitted = regressions(train.features[learnt], train.labels[learnt], classes, strengths)
    found = [score(metric, one.logits(train.features[held]), train.labels[held]) for one in fitted]
    values = [-np.inf if value is None else value for value in found]
    best = int(np.argmax(values))
    if values[best] == -np.inf:
        return Choice(strengths[0], "no metric on the held-out share: the strongest was taken")
    at_end = best in {0, len(values) - 1} and min(values) < max(values)
    return Choice(strengths[best], "at an end of the strengths offered" if at_end else None)


def _held_out(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions to learn from and to choose on: by class, or at random where labels combine."""
    n = len(labels)
    if labels.ndim == 2:
        order = np.random.default_rng(SPLIT_SEED).permutation(n)
        return np.sort(order[round(share * n) :]), np.sort(order[: round(share * n)])
    try:
        chosen = select_training(
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
    return chosen.train, chosen.validation


def _tested(
    params: ProbeParams,
    metric: Metric,
    fitted: Regression,
    test: View,
    seed: int,
    flag: str | None,
) -> Measurement:
    found = _interval(metric, fitted.logits(test.features), test.labels, seed, params.resamples)
    return Measurement(
        metric="probe_test_metric",
        value=found.value,
        unit="fraction",
        n=len(test.labels),
        coordinates={"checkpoint": test.epoch},
        flag=join_flags(found.reason, flag),
        **found.fields(),
    )


def _interval(
    metric: Metric, logits: np.ndarray, labels: np.ndarray, seed: int, resamples: int
) -> Interval:
    if metric == "accuracy":
        right_N = hits(logits, labels)
        if labels.ndim == 1:
            return wilson(float(right_N.sum()), len(labels))
        return bootstrap_mean(right_N, seed, resamples)

    def area(counts_BN: np.ndarray) -> np.ndarray:
        return weighted_mean_auc(logits, labels, counts_BN)[:, None]

    (found,) = bootstrap(area, np.ones(len(labels), dtype=np.int64), seed, resamples)
    return found


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
)
