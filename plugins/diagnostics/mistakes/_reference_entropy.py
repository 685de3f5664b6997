"""Ambiguity of the items that a pair gets wrong: predictive entropy of reference networks.

It is a proxy for the ambiguity of common and uncommon mistakes, which the paper judged by
inspecting images.

Shape letters: B resamples, K classes, L labels (1 for multi-class tasks), M sets, N items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from transferbench.metrics import ratio
from transferbench.records import Measurement
from transferbench.statistics import Interval, bootstrap, mean_of_items, point_estimates
from transferbench_plugins.diagnostics._measurement import with_bounds
from transferbench_plugins.diagnostics.mistakes._outcomes import (
    ANY,
    BOTH_WRONG,
    ONLY_A_WRONG,
    ONLY_B_WRONG,
    Statistic,
    append_label_mean,
    label_measurements,
    members_of,
)

__all__ = ["reference_entropy"]

SETS = {
    "all": ANY,
    "common": BOTH_WRONG,
    "uncommon_a": (ONLY_A_WRONG,),
    "uncommon_b": (ONLY_B_WRONG,),
}


def reference_entropy(
    references: Sequence[np.ndarray],
    outcomes_NL: np.ndarray,
    *,
    exclusive: bool,
    seed: int,
    resamples: int,
) -> Iterator[Measurement]:
    """Mean entropy over all items, the common mistakes and the uncommon mistakes of a and of b.

    ``references``: logits, whose probabilities are averaged. ``exclusive``: softmax over classes,
    else a sigmoid per label.
    Shapes: references (N, K) or (N, L), outcomes (N, L). Units: nats.
    Error: that of the mean over the items of a set; for a mean over labels percentile bootstrap
    over test items, with which the sets are resampled.
    """
    finite = all(np.isfinite(logits).all() for logits in references)
    entropy_of = _class_entropy if exclusive else _label_entropy
    entropy_NL = entropy_of(references) if finite else np.full(outcomes_NL.shape, np.nan)
    undefined = "no such items" if finite else "the logits of a reference are not finite"
    statistics = [
        Statistic("reference_entropy", "nats", among, undefined, name)
        for name, among in SETS.items()
    ]
    members_NLM = members_of(outcomes_NL, statistics)

    def means(counts_BN: np.ndarray) -> np.ndarray:
        total_BLM = np.tensordot(counts_BN, members_NLM * entropy_NL[..., None], axes=1)
        mean_BLM = ratio(total_BLM, np.tensordot(counts_BN, members_NLM * 1.0, axes=1))
        return append_label_mean(mean_BLM).reshape(len(counts_BN), -1)

    several = entropy_NL.shape[1] > 1
    resampled = partial(bootstrap, seed=seed, resamples=resamples) if several else point_estimates
    intervals: Sequence[Interval] = resampled(means, np.ones(len(entropy_NL), dtype=np.int64))
    if finite:
        most = math.log(references[0].shape[1] if exclusive else 2)
        intervals = with_bounds(intervals, _means(entropy_NL, members_NLM, most))
    yield from label_measurements(intervals, members_NLM, statistics)


def _means(entropy_NL: np.ndarray, members_NLM: np.ndarray, most: float) -> Iterator[Interval]:
    """Of each set, label by label; ``most``: the largest entropy."""
    for entropy_N, members_NM in zip(entropy_NL.T, members_NLM.swapaxes(0, 1), strict=True):
        for members_N in members_NM.T:
            yield mean_of_items(entropy_N[members_N], (0.0, most))


def _class_entropy(references: Sequence[np.ndarray]) -> np.ndarray:
    """Entropy of the mean softmax. Shapes: (N, K) each to (N, 1)."""
    shifted = [logits - logits.max(axis=1, keepdims=True) for logits in map(_float64, references)]
    exponentials = [np.exp(logits) for logits in shifted]
    mean_NK = np.mean([e / e.sum(axis=1, keepdims=True) for e in exponentials], axis=0)
    entropy_N1: np.ndarray = _entropy_term(mean_NK).sum(axis=1, keepdims=True)
    return entropy_N1


def _label_entropy(references: Sequence[np.ndarray]) -> np.ndarray:
    """Entropy of the mean sigmoid. Shapes: (N, L) each to (N, L)."""
    # The tanh form of the sigmoid cannot overflow.
    mean_NL = np.mean([(1 + np.tanh(_float64(logits) / 2)) / 2 for logits in references], axis=0)
    entropy_NL: np.ndarray = _entropy_term(mean_NL) + _entropy_term(1 - mean_NL)
    return entropy_NL


def _float64(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float64)


def _entropy_term(probability: np.ndarray) -> np.ndarray:
    """-p log p, 0 at p = 0."""
    term: np.ndarray = -probability * np.log(np.where(probability == 0, 1.0, probability))
    return term
