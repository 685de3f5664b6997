"""Accuracy and AUC of predictions, of all images or with equal weight for each class, in numpy.

Labels of a multi-label task that are NaN are unknown and left out.

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
    "balanced_accuracy",
    "chance_level",
    "class_scores",
    "correctness",
    "hits",
    "macro_auc",
    "mean_auc",
    "needs_scores",
    "one_hot",
    "predict",
    "ratio",
    "score",
    "weighted_mean_auc",
    "weighted_score",
]


class Evaluation(NamedTuple):
    """Mean loss in nats and the metric as a fraction; None where not finite or undefined."""

    loss: float | None
    metric: float | None


def score(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The task's metric; None where it is undefined for these items."""
    compute = {
        "accuracy": accuracy,
        "balanced-accuracy": balanced_accuracy,
        "auc": mean_auc,
        "macro-auc": macro_auc,
    }
    return compute[metric](logits, labels)


def needs_scores(metric: Metric) -> bool:
    """Whether the metric ranks the items by their scores, where others need predictions alone."""
    return metric in {"auc", "macro-auc"}


def weighted_score(
    metric: Metric, outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The metric with item n counted ``weights[b, n]`` times, for each row b.

    ``outputs``: logits where the metric ``needs_scores``, else predictions.
    Shapes: outputs (N,), (N, K) or (N, L), weights (B, N); returns (B,), NaN where undefined.
    """
    if metric == "accuracy":
        hits_N = correctness(outputs, labels)
        if (judged_N := ~np.isnan(hits_N)).all():
            return ratio(weights @ hits_N, weights.sum(axis=1, dtype=np.float64))
        weights_BN = np.asarray(weights, dtype=np.float64)[:, judged_N]
        return ratio(weights_BN @ hits_N[judged_N], weights_BN.sum(axis=1))
    if metric == "balanced-accuracy":
        return _weighted_balanced_accuracy(outputs, labels, weights)
    if metric == "macro-auc":
        outputs, labels = class_scores(outputs), one_hot(labels, outputs.shape[1])
    return weighted_mean_auc(outputs, labels, weights)


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

    NaN for an item of which no label is known.
    Shapes: logits (N, K) and labels (N,), or both (N, L) for multi-label; returns float64 (N,).
    """
    return correctness(predict(logits, labels), labels)


def correctness(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``hits`` of predicted classes (N,) or labels (N, L)."""
    if labels.ndim == 1:
        correct_N: np.ndarray = predicted == labels
        return correct_N.astype(np.float64)
    known_NL = ~np.isnan(labels)
    correct_NL: np.ndarray = known_NL & (predicted == (labels > 0.5))
    return ratio(correct_NL.sum(axis=1), known_NL.sum(axis=1))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The fraction of correct predictions. Shapes: as ``hits``. Units: fraction."""
    hits_N = hits(logits, labels)
    hits_N = hits_N[~np.isnan(hits_N)]
    return float(hits_N.mean()) if len(hits_N) else None


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The accuracy on the items of each class, averaged over the classes that have items.

    Multi-label: for each label that has both values the mean accuracy on either, averaged over
    these labels. Shapes: as ``hits``. Units: fraction.
    Source: Brodersen et al. 2010, doi:10.1109/ICPR.2010.764.
    """
    if not len(labels):
        return None
    predicted, once = predict(logits, labels), np.ones((1, len(labels)))
    value = float(_weighted_balanced_accuracy(predicted, labels, once)[0])
    return None if np.isnan(value) else value


def _weighted_balanced_accuracy(
    predicted: np.ndarray, labels: np.ndarray, weights_BN: np.ndarray
) -> np.ndarray:
    """Shapes: predicted and labels (N,) or (N, L), weights (B, N); returns (B,)."""
    if labels.ndim == 1:
        # Labels of a submission may be any integers.
        member_NK = labels[:, None] == np.unique(labels)
        recalls_BK = _recalls(weights_BN, predicted == labels, member_NK)
    else:
        positive_NL = labels > 0.5
        correct_NL = predicted == positive_NL
        sensitivity_BL = _recalls(weights_BN, correct_NL, positive_NL)
        # NaN for a label with a single value.
        recalls_BK = (sensitivity_BL + _recalls(weights_BN, correct_NL, labels <= 0.5)) / 2
    defined_BK = ~np.isnan(recalls_BK)
    return ratio(np.where(defined_BK, recalls_BK, 0.0).sum(axis=1), defined_BK.sum(axis=1))


def _recalls(weights_BN: np.ndarray, correct: np.ndarray, member_NK: np.ndarray) -> np.ndarray:
    """The share of correct items among the members of each class, NaN without members.

    Shapes: correct (N,) or (N, K); returns (B, K).
    """
    hits_NK = member_NK * (correct if correct.ndim == 2 else correct[:, None])
    weights_BN = np.asarray(weights_BN, dtype=np.float64)
    return ratio(weights_BN @ hits_NK, weights_BN @ member_NK)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Whether each item is of each class. Shapes: (N,) to bool (N, K)."""
    member_NK: np.ndarray = labels[:, None] == np.arange(classes)
    return member_NK


def class_scores(logits: np.ndarray) -> np.ndarray:
    """The log odds of each class against the rest, by which ``macro_auc`` ranks the items.

    Probabilities rank alike, except where they are rounded to 0 or 1.
    Shapes: (N, K), float64.
    """
    logits_NK = np.array(logits, dtype=np.float64)
    rows, top_N = np.arange(len(logits_NK)), logits_NK.argmax(axis=1)
    shifted_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    # The sum over the others of a class that is not the largest: no loss of digits.
    others_NK = np.exp(shifted_NK).sum(axis=1, keepdims=True) - np.exp(shifted_NK)
    others_NK[rows, top_N] = 1.0
    scores_NK: np.ndarray = shifted_NK - np.log(others_NK)
    if logits_NK.shape[1] > 1:
        shifted_NK[rows, top_N] = -np.inf
        second_N = shifted_NK.max(axis=1)
        rest_N = np.exp(shifted_NK - second_N[:, None]).sum(axis=1)
        scores_NK[rows, top_N] = -second_N - np.log(rest_N)
    return scores_NK


def macro_auc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The area under the ROC curve of each class against the rest, averaged over the classes.

    Items are ranked by the class's odds; classes without items are left out.
    Shapes: logits (N, K) and labels (N,). Units: fraction.
    Source: as ``mean_auc``.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return None
    return mean_auc(class_scores(logits), one_hot(labels, logits.shape[1]))


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
        [_auc(logits[:, k], labels[:, k], weights_NB) for k in range(labels.shape[1])]
    )
    defined_LB = ~np.isnan(areas_LB)
    total_B = np.where(defined_LB, areas_LB, 0.0).sum(axis=0)
    return ratio(total_B, defined_LB.sum(axis=0))


def chance_level(metric: Metric, labels: np.ndarray) -> float:
    """The metric of the best constant prediction. Units: fraction."""
    if needs_scores(metric):
        return 0.5
    if metric == "balanced-accuracy":
        return 0.5 if labels.ndim == 2 else 1 / max(len(np.unique(labels)), 1)
    if labels.ndim == 1:
        _, counts = np.unique(labels, return_counts=True)
        return float(counts.max() / len(labels))
    if not (known_NL := ~np.isnan(labels)).all():
        return _partly_known_chance(labels > 0.5, known_NL)
    share_L = (labels > 0.5).mean(axis=0, dtype=np.float64)
    return float(np.maximum(share_L, 1 - share_L).mean())


def _partly_known_chance(positive_NL: np.ndarray, known_NL: np.ndarray) -> float:
    """The accuracy of the best constant prediction: an item's known labels share its weight."""
    weight_NL = known_NL / np.maximum(known_NL.sum(axis=1, keepdims=True), 1)
    positive_L = (weight_NL * positive_NL).sum(axis=0)
    best_L = np.maximum(positive_L, weight_NL.sum(axis=0) - positive_L)
    return float(best_L.sum() / max(int(known_NL.any(axis=1).sum()), 1))


def _auc(scores_N: np.ndarray, labels_N: np.ndarray, weights_NB: np.ndarray) -> np.ndarray:
    """AUC of one label for each column of weights, NaN without positives or negatives.

    Shapes: returns (B,).
    """
    positive, negative = np.flatnonzero(labels_N > 0.5), np.flatnonzero(labels_N <= 0.5)
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
