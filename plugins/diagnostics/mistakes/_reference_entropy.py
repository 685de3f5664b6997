"""How ambiguous references find the items that a pair gets wrong: the entropy of their mean.

Mean predictive entropy stands for the ambiguity that the paper judged by looking at images.

Shape letters: B resamples, K classes, L labels (1 where the task is multi-class), M sets, N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from transferbench.metrics import ratio
from transferbench.records import Measurement
from transferbench.statistics import bootstrap
from transferbench_plugins.diagnostics.mistakes._outcomes import (
    ONLY_A_WRONG,
    ONLY_B_WRONG,
    OTHER_WRONG,
    SAME_WRONG,
)
from transferbench_plugins.diagnostics.mistakes._per_label import (
    Column,
    measurements,
    sizes_of,
    with_mean,
)

__all__ = ["reference_entropy"]

SETS = {
    "all": tuple(range(5)),
    "common": (SAME_WRONG, OTHER_WRONG),
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
    """The mean entropy on all items, the common and each of the uncommon mistakes.

    ``references``: logits, whose probabilities are averaged; ``exclusive``: of classes, of which
    one is right, or of labels, each right or wrong.
    Shapes: references (N, K) or (N, L), outcomes (N, L). Units: nats.
    Error: percentile bootstrap over test items, the sizes of the sets varying with them.
    """
    finite = all(np.isfinite(logits).all() for logits in references)
    entropy_of = _class_entropy if exclusive else _label_entropy
    entropy_NL = entropy_of(references) if finite else np.full(outcomes_NL.shape, np.nan)
    members_NLM = np.stack([np.isin(outcomes_NL, chosen) for chosen in SETS.values()], axis=-1)

    def means(counts_BN: np.ndarray) -> np.ndarray:
        total_BLM = np.tensordot(counts_BN, members_NLM * entropy_NL[..., None], axes=1)
        mean_BLM = ratio(total_BLM, np.tensordot(counts_BN, members_NLM * 1.0, axes=1))
        return with_mean(mean_BLM).reshape(len(counts_BN), -1)

    found = bootstrap(means, np.ones(len(entropy_NL), dtype=np.int64), seed, resamples)
    why = "no such items" if finite else "the logits of a reference are not finite"
    columns = [Column("reference_entropy", "nats", why, {"set": name}) for name in SETS]
    yield from measurements(found, sizes_of(members_NLM), columns)


def _class_entropy(references: Sequence[np.ndarray]) -> np.ndarray:
    """Of the mean of the softmaxes. Shapes: (N, K) each to (N, 1)."""
    shifted = [logits - logits.max(axis=1, keepdims=True) for logits in map(_double, references)]
    powers = [np.exp(logits) for logits in shifted]
    mean_NK = np.mean([power / power.sum(axis=1, keepdims=True) for power in powers], axis=0)
    entropy_N1: np.ndarray = _surprise(mean_NK).sum(axis=1, keepdims=True)
    return entropy_N1


def _label_entropy(references: Sequence[np.ndarray]) -> np.ndarray:
    """Of the mean of the sigmoids. Shapes: (N, L) each to (N, L)."""
    # The tanh form of the sigmoid overflows nowhere.
    mean_NL = np.mean([(1 + np.tanh(_double(logits) / 2)) / 2 for logits in references], axis=0)
    entropy_NL: np.ndarray = _surprise(mean_NL) + _surprise(1 - mean_NL)
    return entropy_NL


def _double(logits: np.ndarray) -> np.ndarray:
    return logits.astype(np.float64)


def _surprise(probability: np.ndarray) -> np.ndarray:
    """-p log p, 0 at p = 0."""
    surprise: np.ndarray = -probability * np.log(np.where(probability == 0, 1.0, probability))
    return surprise
