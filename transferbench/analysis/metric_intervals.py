"""Intervals of a network's metric over its test items, on the metric's own scale.

Shape letters: N items, K classes, L labels.
"""

from __future__ import annotations

import numpy as np

from transferbench.metrics import class_scores, correctness, needs_scores, one_hot, predict
from transferbench.specs import Metric
from transferbench.statistics import (
    Interval,
    effective_wilson,
    exact_share,
    mean_of_shares,
)

__all__ = ["metric_interval"]


def metric_interval(metric: Metric, logits: np.ndarray, labels: np.ndarray) -> Interval | None:
    """The metric over test items; None where it has no interval in closed form or is undefined.

    Accuracies of a multi-label task have none, since an image counts for several labels. Labels
    that are NaN are unknown and left out.
    Shapes: logits (N, K) and labels (N,), or both (N, L).
    Error: exact for an accuracy; of a balanced accuracy, the intervals of the classes combined;
    for an AUC, Wilson with the effective number of items. None leaves [0, 1], none has width 0.
    """
    if not len(labels):
        return None
    if metric == "macro-auc":
        classes = logits.shape[1]
        return _mean_auc_interval(class_scores(logits), one_hot(labels, classes), classes / 2)
    if needs_scores(metric):
        return _mean_auc_interval(logits, labels, 1.0)
    if labels.ndim == 2:
        return None
    hits_N = correctness(predict(logits, labels), labels)
    if metric == "accuracy":
        return exact_share(float(hits_N.sum()), len(labels))
    counts_K = np.bincount(labels)
    hits_K, occurs_K = np.bincount(labels, weights=hits_N), counts_K > 0
    return mean_of_shares(hits_K[occurs_K], counts_K[occurs_K])


def _mean_auc_interval(
    scores_NL: np.ndarray, labels_NL: np.ndarray, independent: float
) -> Interval | None:
    """The AUC averaged over the labels that have both values.

    The variance is that of DeLong, of which an item has a part for each label. Near 1 it is too
    small, and 0 where all pairs are in order. The effective number of items is therefore at most
    that of scores without information, 3 m n / (m + n) for m positive and n negative items (the
    harmonic mean over the labels), times how many labels count as ``independent``: half of the
    classes, which share items; one of several labels of an image, which may all say the same.
    Chosen by simulation: with DeLong's variance alone 39% are covered for 5 of 50 items and an AUC
    of 0.99, with it 98%; with half of 14 equal labels 81% for 5 of 300 items and an AUC of 0.9,
    with one 97%.
    Source: DeLong, DeLong, Clarke-Pearson 1988, doi:10.2307/2531595; Birnbaum and Klose 1957 for
    the largest variance.
    """
    if not np.isfinite(scores_NL).all():
        return None
    areas, rarer, inverse_sizes, influence_N = [], [], [], np.zeros(len(scores_NL))
    for scores_N, labels_N in zip(scores_NL.T, labels_NL.T, strict=True):
        positive_N, negative_N = labels_N > 0.5, labels_N <= 0.5
        if not positive_N.any() or not negative_N.any():
            continue
        above, below = scores_N[positive_N], scores_N[negative_N]
        won, lost = _share_below(above, below), 1 - _share_below(below, above)
        areas.append(float(won.mean()))
        rarer.append(min(len(above), len(below)))
        inverse_sizes.append((1 / len(above) + 1 / len(below)) / 3)
        influence_N[positive_N] += _influence(won)
        influence_N[negative_N] += _influence(lost)
    if not areas:
        return None
    value, labels = float(np.mean(areas)), len(areas)
    variance = float((influence_N**2).sum()) / labels**2
    most = max(min(independent, labels / 2), 1.0) / float(np.mean(inverse_sizes))
    spread = value * (1 - value)
    size = min(max(spread / variance, min(rarer)), most) if variance else most
    return effective_wilson(value, size, len(scores_NL))


def _share_below(scores_N: np.ndarray, others_M: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, equal ones counted half. Shapes: (N,)."""
    ranked = np.sort(others_M)
    sides = (np.searchsorted(ranked, scores_N, side) for side in ("left", "right"))
    share_N: np.ndarray = np.sum(list(sides), axis=0) / (2 * len(others_M))
    return share_N


def _influence(share_N: np.ndarray) -> np.ndarray:
    """What each item of one side adds to the error; of a single item the most that is possible."""
    n, mean = len(share_N), float(share_N.mean())
    if n == 1:
        return np.array([np.sqrt(mean * (1 - mean))])
    influence_N: np.ndarray = (share_N - mean) / np.sqrt(n * (n - 1))
    return influence_N
