"""Accuracy and AUC of predictions, in numpy.

Rejected: ``sklearn.metrics.roc_auc_score``, which takes one weighting per call where a bootstrap
has a thousand.

Shape letters: B weightings, K classes, L labels, N items, P positive items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transferbench.specs import Metric

__all__ = [
    "Evaluation",
    "accuracy",
    "chance_level",
    "correctness",
    "hits",
    "mean_auc",
    "predict",
    "ratio",
    "score",
    "weighted_mean_auc",
]


class Evaluation(NamedTuple):
    """Mean loss in nats and the metric as a fraction; None where not finite or undefined."""

    loss: float | None
    metric: float | None


def score(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The task's metric; None where it is undefined for these items."""
    return accuracy(logits, labels) if metric == "accuracy" else mean_auc(logits, labels)


def predict(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The predicted classes, or the predicted labels of a multi-label task.

    The predicted class is the largest logit, the first of equal ones; a label is predicted where
    its logit is above 0, its probability above one half.

    Shapes: logits (N, K) and labels (N,) give int64 (N,); both (N, L) give bool (N, L).
    """
    predicted: np.ndarray = logits.argmax(axis=1) if labels.ndim == 1 else logits > 0
    return predicted


def hits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The accuracy of each item: 0 or 1, or the fraction of correct labels for multi-label tasks.

    Shapes: logits (N, K) and labels (N,), or both (N, L) for multi-label; returns float64 (N,).
    """
    return correctness(predict(logits, labels), labels)


def correctness(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``hits`` of predicted classes (N,) or labels (N, L)."""
    if labels.ndim == 1:
        correct_N: np.ndarray = predicted == labels
        return correct_N.astype(np.float64)
    correct_NL: np.ndarray = predicted == (labels > 0.5)
    fraction_N: np.ndarray = correct_NL.mean(axis=1, dtype=np.float64)
    return fraction_N


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The fraction of correct predictions. Shapes: as ``hits``. Units: fraction."""
    return float(hits(logits, labels).mean()) if len(labels) else None


def mean_auc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The area under the ROC curve, averaged over the labels that have both values.

    Shapes: logits and labels (N, L). Units: fraction.
    Source: the Mann-Whitney statistic, the fraction of (positive, negative) pairs in order.
    """
    if not len(labels):
        return None
    value = float(weighted_mean_auc(logits, labels, np.ones((1, len(labels))))[0])
    return None if np.isnan(value) else value


def weighted_mean_auc(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``mean_auc`` with item n counted ``weights[b, n]`` times, for each row b.

    Shapes: logits and labels (N, L), weights (B, N); returns (B,), NaN where it is undefined:
    where no label has both values, or where logits are not finite.
    """
    weights_BN = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(logits).all():
        return np.full(len(weights_BN), np.nan)
    # Items along the first axis, which is indexed and summed over below.
    weights_NB = np.ascontiguousarray(weights_BN.T)
    areas_LB = np.stack(
        [_auc(logits[:, k], labels[:, k] > 0.5, weights_NB) for k in range(labels.shape[1])]
    )
    defined_LB = ~np.isnan(areas_LB)
    total_B = np.where(defined_LB, areas_LB, 0.0).sum(axis=0)
    return ratio(total_B, defined_LB.sum(axis=0))


def chance_level(metric: Metric, labels: np.ndarray) -> float:
    """The metric of the best constant prediction. Units: fraction."""
    if metric == "auc":
        return 0.5
    if labels.ndim == 1:
        return float(np.bincount(labels).max() / len(labels))
    share_L = (labels > 0.5).mean(axis=0, dtype=np.float64)
    return float(np.maximum(share_L, 1 - share_L).mean())


def _auc(scores_N: np.ndarray, positive_N: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """AUC of one label for each column of weights, NaN without positives or negatives.

    Shapes: returns (B,).
    """
    positive, negative = np.flatnonzero(positive_N), np.flatnonzero(~positive_N)
    negative = negative[np.argsort(scores_N[negative])]
    ranked = scores_N[negative]
    sums_NB = np.zeros((len(negative) + 1, weights_NB.shape[1]))
    np.cumsum(weights_NB[negative], axis=0, out=sums_NB[1:])
    # Twice the negatives below each positive; pairs of equal scores count one half.
    below_PB = sums_NB[np.searchsorted(ranked, scores_N[positive], "left")]
    below_PB += sums_NB[np.searchsorted(ranked, scores_N[positive], "right")]
    positive_PB = weights_NB[positive]
    ordered_B = np.einsum("pb,pb->b", positive_PB, below_PB) / 2
    return ratio(ordered_B, positive_PB.sum(axis=0) * sums_NB[-1])


def ratio(numerator: np.ndarray, denominator: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    """``numerator / denominator``; ``undefined`` where the denominator is not positive.

    Shapes: that of ``numerator``, to which ``denominator`` is broadcast; float64.
    """
    quotient = np.full(numerator.shape, undefined, dtype=np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
