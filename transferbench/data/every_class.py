"""Selections of small and unbalanced data in which every class has its images.

Proportional strata give a class of few images none for validation, and combinations of labels of
which each occurs once can not be divided at all. Here the rarest class, or label, is divided first.

Shape letters: G groups, L classes or labels, N images.
"""

from __future__ import annotations

import numpy as np

from transferbench.data.strata import draw_positives, quotas_of, sample
from transferbench.errors import SelectionError

__all__ = ["at_least_one", "select_every_class"]


def select_every_class(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    labels_per_class: int | None,
    validation: float,
    validation_limit: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of the training and the validation images; no group is in both.

    A class with two groups of its own is on both sides; of a multi-label task each label with two
    groups, as far as the other labels of these images allow. Of a class with fewer than
    ``labels_per_class`` images all are taken. ``validation_limit`` is kept unless there are more
    classes.

    Shapes: labels (N,) or (N, L), groups (N,); returns int64 (N_train,) and (N_validation,).
    Raises: ``SelectionError`` where nothing can be held out.
    """
    classes_NL = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.unique(labels)
    held_out_N = _hold_out(classes_NL, groups, validation, np.random.default_rng([seed, 0]))
    rest, validating = np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)
    if labels_per_class is not None:
        generator = np.random.default_rng([seed, 1])
        if labels.ndim == 2:
            rest = rest[draw_positives(labels[rest], labels_per_class, generator)]
        else:
            counts = np.bincount(labels[rest])
            drawn = sample(labels[rest], np.minimum(counts, labels_per_class), generator)
            rest = rest[drawn]
    if validation_limit is not None and len(validating) > validation_limit:
        generator = np.random.default_rng([seed, 2])
        if labels.ndim == 2:
            validating = np.sort(generator.permutation(validating)[:validation_limit])
        else:
            _, class_N = np.unique(labels[validating], return_inverse=True)
            quotas = at_least_one(quotas_of(np.bincount(class_N), validation_limit))
            validating = validating[sample(class_N, quotas, generator)]
    return rest, validating


def at_least_one(quotas: np.ndarray) -> np.ndarray:
    """The quotas with 1 for 0, taken from the largest ones where these have more than 1."""
    raised: np.ndarray = np.maximum(quotas, 1)
    for _ in range(int(raised.sum() - quotas.sum())):
        largest = int(raised.argmax())
        if raised[largest] > 1:
            raised[largest] -= 1
    return raised


def _hold_out(
    classes_NL: np.ndarray, groups: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """Whether each image is held out: iterative stratification of groups. Shapes: (N,).

    Source: Sechidis, Tsoumakas, Vlahavas 2011, doi:10.1007/978-3-642-23808-6_10.
    """
    if not share:
        return np.zeros(len(groups), dtype=bool)
    _, group_of, size_G = np.unique(groups, return_inverse=True, return_counts=True)
    images_GL = np.zeros((len(size_G), classes_NL.shape[1]))
    np.add.at(images_GL, group_of, classes_NL)
    total_L = images_GL.sum(axis=0)
    # One group at least, where there are two.
    held_L = np.where((images_GL > 0).sum(axis=0) > 1, np.maximum(share * total_L, 1), 0)
    kept_L, order = total_L - held_L, generator.permutation(len(size_G))
    is_free_G, is_held_G = np.ones(len(size_G), dtype=bool), np.zeros(len(size_G), dtype=bool)
    while (free_L := images_GL[is_free_G].sum(axis=0)).any():
        rarest = int(np.where(free_L > 0, free_L, np.inf).argmin())
        for group in order[is_free_G[order] & (images_GL[order, rarest] > 0)]:
            # To the side that lacks more of it.
            is_held_G[group] = held_L[rarest] >= kept_L[rarest]
            (held_L if is_held_G[group] else kept_L)[:] -= images_GL[group]
            is_free_G[group] = False
    # Images without any label.
    others = order[is_free_G[order]]
    wanting = round(share * len(groups)) - int(size_G[is_held_G].sum())
    is_held_G[others[: np.searchsorted(np.cumsum(size_G[others]), wanting, "right")]] = True
    if not is_held_G.any():
        raise SelectionError(
            f"a validation share of {share:g} of {len(groups)} images in {len(size_G)} group(s) "
            "holds out none: no class has two groups; set it to 0",
            "validation", 0,
        )  # fmt: skip
    held_out_N: np.ndarray = is_held_G[group_of]
    return held_out_N
