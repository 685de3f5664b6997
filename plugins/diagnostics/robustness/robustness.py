"""Robustness: how the test metric and loss fall as the test images are perturbed ever more.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, for the mean over severities and what is
lost relative to clean images; without their division by AlexNet's errors.

Shape letters: B resamples, C classes or labels, N test items, S settings, P perturbations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from transferbench.metrics import hits, ratio, weighted_mean_auc
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import Interval, bootstrap, bootstrap_mean, wilson

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["ROBUSTNESS", "RobustnessParams", "Series"]

UNPERTURBED, ALL = "none", "all"

SUMMARIES = (
    ("mean_metric", "the metric is not defined on these items"),
    ("relative_metric", "there is no score to keep on unperturbed images"),
    ("corrected_relative_metric", "the network is not above chance on unperturbed images"),
)
"""Metric, and why it may be without a value."""


class Series(Params):
    """One perturbation at several settings, the weakest first, as ``seed`` draws it."""

    name: str
    settings: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class RobustnessParams(Params):
    """What to perturb the test images with, how many of them, and how often to resample them."""

    perturbations: Annotated[tuple[Series, ...], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 256
    resamples: Annotated[int, Field(ge=100)] = 1000

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [series.name for series in self.perturbations]
        for name in names:
            if names.count(name) > 1 or name in {UNPERTURBED, ALL}:
                raise ValueError(
                    f"perturbation {name!r} could not be told apart in the measurements; name "
                    "each once, and measure other settings of it as another diagnostic"
                )
        return self


class _Setting(NamedTuple):
    """One perturbation at one severity; ``logits`` (N, C) of the network under it."""

    perturbation: str
    severity: int
    logits: np.ndarray

    @property
    def coordinates(self) -> dict[str, str | int | float]:
        return {"test_perturbation": self.perturbation, "severity": self.severity}


def measure(
    params: RobustnessParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The final network on the test images of its own trial and under each setting instead.

    ``test_perturbation`` is one of the settings, beside the trial's own ``perturbation``.
    ``severity`` counts the settings of a perturbation from 1; 0 of ``none`` are the images that
    the trial was tested on. Over the severities of a perturbation, and as ``all`` over all
    perturbations alike: mean_metric; relative_metric = mean_metric / metric at 0;
    corrected_relative_metric = (mean_metric - chance) / (metric at 0 - chance).
    Units: metrics as fractions, loss in nats, relative ones as ratios.
    Error: Wilson for an accuracy, else percentile bootstrap over test items; summaries by
    bootstrap with all settings on the same draw of items.
    """
    (subject,) = subjects
    labels = subject.labels[: params.limit]
    settings = list(_settings(params, subject))
    for setting in settings:
        yield _metric(subject, setting, labels, params, context.seed)
        yield _loss(setting, labels, params, context.seed)
    yield from _summaries(params, subject, settings, labels, context.seed)


def _settings(params: RobustnessParams, subject: Subject) -> Iterator[_Setting]:
    yield _Setting(UNPERTURBED, 0, subject.logits[: params.limit])
    net = subject.network("final")
    for series in params.perturbations:
        for place, chosen in enumerate(series.settings, start=1):
            images = subject.perturbed(series.name, chosen, series.seed, "test", params.limit)
            yield _Setting(series.name, place, _answers(net, images, params.batch))


def _answers(net: Module, images: Tensor, batch: int) -> np.ndarray:
    """The logits of a network in eval mode. Shapes: (N, C, H, W) to float32 (N, C)."""
    import torch

    with torch.no_grad():
        pieces = [net(piece).float().cpu() for piece in torch.split(images, batch)]
    logits: np.ndarray = torch.cat(pieces).numpy()
    return logits


def _metric(
    subject: Subject,
    setting: _Setting,
    labels: np.ndarray,
    params: RobustnessParams,
    seed: int,
) -> Measurement:
    n = len(labels)
    if subject.metric == "auc":
        (interval,) = bootstrap(
            lambda counts_BN: weighted_mean_auc(setting.logits, labels, counts_BN)[:, None],
            np.ones(n, dtype=np.int64),
            seed,
            params.resamples,
        )
    else:
        hits_N = hits(setting.logits, labels)
        whole = labels.ndim == 1
        interval = (
            wilson(hits_N.sum(), n) if whole else bootstrap_mean(hits_N, seed, params.resamples)
        )
    return _measurement(
        "test_metric", interval, setting.coordinates, "the metric is not defined on these items"
    )


def _loss(
    setting: _Setting, labels: np.ndarray, params: RobustnessParams, seed: int
) -> Measurement:
    losses_N = _losses(setting.logits, labels)
    if not np.isfinite(losses_N).all():
        interval = Interval(None, None, None, len(labels), "")
    else:
        interval = bootstrap_mean(losses_N, seed, params.resamples)
    why = "not finite: the network diverged"
    return _measurement("test_loss", interval, setting.coordinates, why, unit="nats")


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each item, a mean over its labels where there are several.

    Shapes: float64 (N,).
    """
    logits = logits.astype(np.float64)
    if labels.ndim == 1:
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        loss_N: np.ndarray = total - logits[np.arange(len(labels)), labels]
        return loss_N
    several_N: np.ndarray = (np.logaddexp(0, logits) - logits * labels).mean(axis=1)
    return several_N


def _summaries(
    params: RobustnessParams,
    subject: Subject,
    settings: Sequence[_Setting],
    labels: np.ndarray,
    seed: int,
) -> Iterator[Measurement]:
    """What is kept of the metric under each perturbation, then under all."""
    sizes = [len(series.settings) for series in params.perturbations]
    starts = np.cumsum([0, *sizes[:-1]])

    def statistics(counts_BN: np.ndarray) -> np.ndarray:
        scores_BS = _scores(subject, settings, labels, counts_BN)
        means_BP = np.add.reduceat(scores_BS[:, 1:], starts, axis=1) / sizes
        means_BP = np.column_stack([means_BP, means_BP.mean(axis=1)])
        clean_B1 = scores_BS[:, :1]
        kept = [means_BP, ratio(means_BP, clean_B1)]
        kept.append(ratio(means_BP - subject.chance, clean_B1 - subject.chance))
        return np.stack(kept, axis=-1).reshape(len(counts_BN), -1)

    found = iter(bootstrap(statistics, np.ones(len(labels), np.int64), seed, params.resamples))
    for name in (*(series.name for series in params.perturbations), ALL):
        for metric, why in SUMMARIES:
            unit = "fraction" if metric == "mean_metric" else "ratio"
            yield _measurement(metric, next(found), {"test_perturbation": name}, why, unit=unit)


def _scores(
    subject: Subject, settings: Sequence[_Setting], labels: np.ndarray, counts_BN: np.ndarray
) -> np.ndarray:
    """The metric of each setting on each resample. Shapes: (B, N) to (B, S)."""
    if subject.metric == "auc":
        areas = [weighted_mean_auc(setting.logits, labels, counts_BN) for setting in settings]
        return np.stack(areas, axis=1)
    hits_NS = np.stack([hits(setting.logits, labels) for setting in settings], axis=1)
    scores_BS: np.ndarray = counts_BN @ hits_NS / len(labels)
    return scores_BS


def _measurement(
    metric: str,
    interval: Interval,
    coordinates: dict[str, str | int | float],
    why: str,
    unit: str = "fraction",
) -> Measurement:
    return Measurement(
        metric=metric,
        value=interval.value,
        unit=unit,
        n=interval.n,
        coordinates=coordinates,
        flag=why if interval.value is None else None,
        **interval.fields(),
    )


ROBUSTNESS = DiagnosticSpec(
    name="robustness",
    version=2,
    summary="Metric and loss on perturbed test images, by severity, and what is kept of the metric",
    source="Hendrycks and Dietterich 2019, arXiv 1903.12261",
    license="Apache-2.0",
    params=RobustnessParams,
    tiny={
        "perturbations": [{"name": "identity", "settings": [{}]}],
        "limit": 20,
        "resamples": 100,
    },
    measure=measure,
    subjects="one",
    needs=frozenset({"images", "logits"}),
    cost=lambda params: float(sum(len(series.settings) for series in params.perturbations)),
    limit=lambda params: params.limit,
    perturbations=lambda params: [series.name for series in params.perturbations],
)
