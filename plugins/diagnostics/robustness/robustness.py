"""Robustness: test metric and loss on perturbed test images, by severity.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, for the mean over severities and the loss
relative to clean images; without their normalisation by AlexNet's errors.

Shape letters: B resamples, C classes or labels, N test items, S settings, P perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from transferbench.metrics import hits, needs_scores, predict, ratio, weighted_score
from transferbench.records import Coordinate, Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench.statistics import (
    Interval,
    bootstrap,
    mean_of_items,
    point_estimates,
)
from transferbench_plugins.diagnostics._images import compute_logits
from transferbench_plugins.diagnostics._measurement import (
    measurement,
    metric_interval,
    ratios_of_metrics,
    with_bounds,
)

__all__ = ["ROBUSTNESS", "PerturbationSeries", "RobustnessParams"]

UNPERTURBED, ALL = "none", "all"

UNDEFINED = "the metric is not defined on these items"
NOT_FINITE = "not finite: the network diverged"

SUMMARIES = (
    ("mean_metric", "fraction", UNDEFINED),
    ("relative_metric", "ratio", "there is no score to keep on unperturbed images"),
    ("corrected_relative_metric", "ratio", "the network is not above chance on unperturbed images"),
)
"""Metric, unit, and the flag of an undefined value."""


class PerturbationSeries(Params):
    """One perturbation at several settings, the weakest first, sampled with ``seed``."""

    name: str
    settings: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class RobustnessParams(Params):
    """``perturbations`` of the test images. ``limit``: the first test images (None: all).

    ``batch``: images per forward pass. ``resamples`` of the test items.
    """

    perturbations: Annotated[tuple[PerturbationSeries, ...], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 256
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 1000

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [series.name for series in self.perturbations]
        for name in names:
            if names.count(name) > 1 or name in {UNPERTURBED, ALL}:
                raise ValueError(
                    f"perturbation {name!r} is ambiguous in the measurements; name each "
                    f"perturbation once, none of them {UNPERTURBED!r} or {ALL!r}, and measure "
                    "further settings in a second diagnostic"
                )
        return self


class _Setting(NamedTuple):
    """One perturbation at one severity, and the network's ``logits`` (N, C) on those images."""

    perturbation: str
    severity: int
    logits: np.ndarray

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        return {"test_perturbation": self.perturbation, "severity": self.severity}


def measure(
    params: RobustnessParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The final network on the trial's own test images and on test images under each setting.

    ``test_perturbation`` is that of the setting; the trial's own is ``perturbation``. ``severity``
    numbers the settings of a perturbation from 1; severity 0 of ``none`` is the trial's own test
    images. For each perturbation over its severities, and for ``all`` with equal weight per
    perturbation: mean_metric; relative_metric = mean_metric / metric at 0;
    corrected_relative_metric = (mean_metric - chance) / (metric at 0 - chance).
    Units: metrics as fractions, loss in nats, relative ones as ratios.
    Error: exact for an accuracy, for other metrics as in
    ``transferbench.analysis.metric_intervals``; for losses that of the mean over test items. For
    summaries of accuracies over the same items, of means and of ratios; of other metrics, and of
    losses where labels are unknown, percentile bootstrap with all settings on the same resamples.
    """
    (subject,) = subjects
    labels = subject.labels[: params.limit]
    settings = list(_settings(params, subject))
    for setting in settings:
        sample, at = (setting.logits, labels, context.seed, params.resamples), setting.coordinates
        metric, loss = metric_interval(subject.metric, *sample), _loss(*sample)
        yield measurement("test_metric", metric, "fraction", len(labels), at, missing=UNDEFINED)
        yield measurement("test_loss", loss, "nats", len(labels), at, missing=NOT_FINITE)
    yield from _summaries(params, subject, settings, labels, context.seed)


def _settings(params: RobustnessParams, subject: Subject) -> Iterator[_Setting]:
    yield _Setting(UNPERTURBED, 0, subject.logits[: params.limit])
    net = subject.network("final")
    for series in params.perturbations:
        for severity, setting in enumerate(series.settings, start=1):
            images = subject.perturbed(series.name, setting, series.seed, "test", params.limit)
            yield _Setting(series.name, severity, compute_logits(net, images, params.batch))


def _loss(logits: np.ndarray, labels: np.ndarray, seed: int, resamples: int) -> Interval | None:
    if np.isnan(labels).any():
        finite = np.isfinite(logits).all()
        return _partly_known_loss(logits, labels, seed, resamples) if finite else None
    losses_N = _losses(logits, labels)
    return mean_of_items(losses_N, (0.0, math.inf)) if np.isfinite(losses_N).all() else None


def _partly_known_loss(
    logits: np.ndarray, labels: np.ndarray, seed: int, resamples: int
) -> Interval:
    """The mean over all known labels of all items, as in the training."""
    known_NL = ~np.isnan(labels)
    losses_NL = _label_losses(logits.astype(np.float64), np.nan_to_num(labels))
    totals_N, known_N = (losses_NL * known_NL).sum(axis=1), known_NL.sum(axis=1)

    def mean(counts_BN: np.ndarray) -> np.ndarray:
        return ratio(counts_BN @ totals_N, counts_BN @ known_N)[:, None]

    (interval,) = bootstrap(mean, np.ones(len(labels), dtype=np.int64), seed, resamples)
    return interval


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each item; for multi-label tasks the mean over its labels.

    Shapes: float64 (N,).
    """
    logits = logits.astype(np.float64)
    if labels.ndim == 1:
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        loss_N: np.ndarray = total - logits[np.arange(len(labels)), labels]
        return loss_N
    mean_loss_N: np.ndarray = _label_losses(logits, labels).mean(axis=1)
    return mean_loss_N


def _label_losses(logits_NL: np.ndarray, labels_NL: np.ndarray) -> np.ndarray:
    """The binary cross-entropy of each label of each item. Shapes: float64 (N, L)."""
    losses_NL: np.ndarray = np.logaddexp(0, logits_NL) - logits_NL * labels_NL
    return losses_NL


def _summaries(
    params: RobustnessParams,
    subject: Subject,
    settings: Sequence[_Setting],
    labels: np.ndarray,
    seed: int,
) -> Iterator[Measurement]:
    """The summaries of each perturbation, then of all."""
    sizes = [len(series.settings) for series in params.perturbations]
    starts = np.cumsum([0, *sizes[:-1]])

    def statistics(counts_BN: np.ndarray) -> np.ndarray:
        scores_BS = _scores(subject, settings, labels, counts_BN)
        means_BP = np.add.reduceat(scores_BS[:, 1:], starts, axis=1) / sizes
        means_BP = np.column_stack([means_BP, means_BP.mean(axis=1)])
        clean_B1 = scores_BS[:, :1]
        relative_BP = ratio(means_BP, clean_B1)
        corrected_BP = ratio(means_BP - subject.chance, clean_B1 - subject.chance)
        return np.stack([means_BP, relative_BP, corrected_BP], axis=-1).reshape(len(counts_BN), -1)

    if subject.metric == "accuracy":
        hits_NS = _hits(settings, labels)
        bounds = _item_intervals(hits_NS, starts, sizes, subject.chance)
        counts = np.ones(len(hits_NS), np.int64)
        intervals = iter(with_bounds(point_estimates(statistics, counts), bounds))
    else:
        counts = np.ones(len(labels), np.int64)
        intervals = iter(bootstrap(statistics, counts, seed, params.resamples))
    for name in (*(series.name for series in params.perturbations), ALL):
        at = {"test_perturbation": name}
        for metric, unit, undefined in SUMMARIES:
            interval = next(intervals)
            yield measurement(metric, interval, unit, len(labels), at, missing=undefined)


def _hits(settings: Sequence[_Setting], labels: np.ndarray) -> np.ndarray:
    """Of the items with a known label. Shapes: (N, S)."""
    hits_NS = np.stack([hits(setting.logits, labels) for setting in settings], axis=1)
    known_NS: np.ndarray = hits_NS[~np.isnan(hits_NS).any(axis=1)]
    return known_NS


def _item_intervals(
    hits_NS: np.ndarray, starts: np.ndarray, sizes: Sequence[int], chance: float
) -> Iterator[Interval]:
    """Of each perturbation, then of all, in the order of ``SUMMARIES``."""
    mean_NP = np.add.reduceat(hits_NS[:, 1:], starts, axis=1) / sizes
    mean_NP = np.column_stack([mean_NP, mean_NP.mean(axis=1)])
    for mean_N in mean_NP.T:
        yield mean_of_items(mean_N, (0.0, 1.0))
        yield from ratios_of_metrics(mean_N, hits_NS[:, 0], chance)


def _scores(
    subject: Subject, settings: Sequence[_Setting], labels: np.ndarray, counts_BN: np.ndarray
) -> np.ndarray:
    """The metric of each setting on each resample. Shapes: (B, N) to (B, S).

    An accuracy has resamples of the items with a known label.
    """
    metric = subject.metric
    if metric == "accuracy":
        hits_NS = _hits(settings, labels)
        scores_BS: np.ndarray = counts_BN @ hits_NS / len(hits_NS)
        return scores_BS
    outputs = [setting.logits if needs_scores(metric) else predict(setting.logits, labels)
               for setting in settings]  # fmt: skip
    return np.stack([weighted_score(metric, o, labels, counts_BN) for o in outputs], axis=1)


ROBUSTNESS = DiagnosticSpec(
    name="robustness",
    version=2,
    summary="Metric and loss on perturbed test images, by severity, and relative to clean images",
    source="Hendrycks and Dietterich 2019, arXiv 1903.12261",
    license="Apache-2.0",
    params=RobustnessParams,
    tiny={"perturbations": [{"name": "identity", "settings": [{}]}], "limit": 20, "resamples": 100},
    measure=measure,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset(
        {"corrected_relative_metric", "mean_metric", "relative_metric", "test_loss", "test_metric"}
    ),
    ranges={
        **dict.fromkeys(("test_metric", "mean_metric"), (0, 1)),
        **dict.fromkeys(("relative_metric", "test_loss"), (0, math.inf)),
    },
    needs=frozenset({"images", "logits"}),
    cost=lambda params: float(sum(len(series.settings) for series in params.perturbations)),
    limit=lambda params: params.limit,
    perturbations=lambda params: [series.name for series in params.perturbations],
    settings=lambda params: [(s.name, own) for s in params.perturbations for own in s.settings],
    report=ReportPart(
        build=f"{__package__}._robustness_report:robustness",
        metrics=frozenset({"test_metric", "test_loss", *(metric for metric, *_ in SUMMARIES)}),
    ),
)
