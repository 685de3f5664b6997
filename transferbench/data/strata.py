"""Random draws from strata of images: classes, or combinations of labels.

Shape letters: N images, L labels.
"""

from __future__ import annotations

import numpy as np

__all__ = ["draw_positives", "grouped", "quotas_of", "sample", "strata_of"]


def grouped(labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The group of each image, and the size and the stratum of each group.

    The stratum of a group is its class; groups of several classes form one more stratum.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    strata = strata_of(labels)
    lowest = np.full(len(sizes), strata.max())
    highest = np.zeros(len(sizes), dtype=np.int64)
    np.minimum.at(lowest, group_of, strata)
    np.maximum.at(highest, group_of, strata)
    mixed = strata.max() + 1
    _, stratum_of = np.unique(np.where(lowest == highest, lowest, mixed), return_inverse=True)
    return group_of, sizes, stratum_of


def strata_of(labels: np.ndarray) -> np.ndarray:
    """A code 0, 1, ... for each image: its class, or its combination of labels.

    That a label is unknown is a third value of it.
    """
    # NaN equals nothing, so that each image would be alone.
    values = np.nan_to_num(labels, nan=2) if labels.ndim == 2 else labels
    _, codes = np.unique(values, axis=0, return_inverse=True)
    return codes.reshape(-1).astype(np.int64)


def quotas_of(counts: np.ndarray, total: int) -> np.ndarray:
    """``total`` apportioned to ``counts`` by largest remainder, the first of equals."""
    quotas, remainder = np.divmod(counts.astype(np.int64) * total, counts.sum())
    first = np.argsort(-remainder, kind="stable")[: total - quotas.sum()]
    quotas[first] += 1
    return quotas


def sample(strata: np.ndarray, quotas: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sorted random positions, ``quotas[s]`` of each stratum s."""
    order = generator.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    counts = np.bincount(strata, minlength=len(quotas))
    rank = np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < quotas[strata[order]]])


def draw_positives(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Positions with ``count`` positives of each label, or all that there are; rarest label first.

    Shapes: labels (N, L).
    """
    counts = (labels == 1).sum(axis=0)
    order = generator.permutation(len(labels))
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.argsort(counts, kind="stable"):
        positives = order[labels[order, label] == 1]
        missing = max(count - int(drawn[positives].sum()), 0)
        drawn[positives[~drawn[positives]][:missing]] = True
    return np.flatnonzero(drawn)
