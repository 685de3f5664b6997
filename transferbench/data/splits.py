"""Selection of the training, validation and test images of a replicate.

Groups take precedence over stratification: images of one group are never on both sides of a split.

Shape letters: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from transferbench.data.decoded import PreparedSplit
from transferbench.data.duplicates import joined_groups
from transferbench.data.every_class import at_least_one, select_every_class
from transferbench.data.strata import draw_positives, grouped, quotas_of, sample, strata_of
from transferbench.errors import SelectionError, listing
from transferbench.identity import derive_seed

__all__ = [
    "EVERY_CLASS",
    "TrainingSelection",
    "planned_training",
    "select_test",
    "select_training",
    "shuffled_labels",
]

EVERY_CLASS = "every-class"
"""How a target asks that every class is in each of its selections."""

LISTED = 10
"""Classes that an error names."""


class TrainingSelection(NamedTuple):
    """Positions in the training split, sorted. Shapes: int64 (N_train,) and (N_validation,)."""

    train: np.ndarray
    validation: np.ndarray


def select_training(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    labels_per_class: int | None,
    validation: float,
    validation_limit: int | None,
    classes: Sequence[str] = (),
) -> TrainingSelection:
    """The training and validation images of one replicate; no group is in both.

    First a fraction ``validation`` of the images is held out in complete groups: stratified by
    class for groups inside one class (exactly, where each image is its own group), otherwise as
    many groups as come closest. Of the held-out images a random stratified subset of at most
    ``validation_limit`` is used. Then ``labels_per_class`` images of each class are drawn from the
    rest; with the same seed a larger draw contains a smaller one. For a multi-label task each label
    gets at least that many positives, rarest label first, and an image counts for all its labels.

    Raises: ``SelectionError`` where a class has too few images, nothing can be held out, or one of
    ``classes`` is left without a training image.
    """
    rest, validating = _hold_out(labels, groups, validation, np.random.default_rng([seed, 0]))
    if labels.ndim == 1:
        # A dataset may be published without images of a class.
        present = np.bincount(labels, minlength=len(classes)) > 0
    if labels_per_class is not None:
        generator = np.random.default_rng([seed, 1])
        if labels.ndim == 1:
            rest = rest[_draw_images(labels[rest], labels_per_class, present, generator, classes)]
        else:
            rest = rest[_draw_positives(labels[rest], labels_per_class, generator, classes)]
    elif labels.ndim == 1:
        _refuse_empty(labels[rest], present, validation, classes)
    if validation_limit is not None and len(validating) > validation_limit:
        strata = strata_of(labels[validating])
        quotas = quotas_of(np.bincount(strata), validation_limit)
        validating = validating[sample(strata, quotas, np.random.default_rng([seed, 2]))]
    return TrainingSelection(rest, validating)


def planned_training(
    split: PreparedSplit, selection: Mapping[str, Any], classes: Sequence[str]
) -> TrainingSelection:
    """``select_training`` as the payload of a job asks for it. Raises: as that does."""
    groups = split.groups
    if "copies" in selection:
        groups = joined_groups(groups, split.digests, split.images.shape[1:])
    if selection.get("stratify") == EVERY_CLASS:
        chosen = select_every_class(
            split.labels,
            groups,
            seed=selection["seed"],
            labels_per_class=selection.get("labels_per_class"),
            validation=selection["validation"],
            validation_limit=selection.get("validation_limit"),
        )
        return TrainingSelection(*chosen)
    return select_training(
        split.labels,
        groups,
        seed=selection["seed"],
        labels_per_class=selection.get("labels_per_class"),
        validation=selection["validation"],
        validation_limit=selection.get("validation_limit"),
        classes=classes,
    )


def select_test(
    labels: np.ndarray, limit: int | None, fingerprint: str, stratify: str | None = None
) -> np.ndarray:
    """Sorted int64 positions of the test images that all trials are evaluated on.

    The subset is stratified by class (by combination of labels for a multi-label task) and depends
    only on the ``fingerprint`` of the data, not on a trial's seed. ``stratify``: ``EVERY_CLASS``
    for one image of each class at least, where there is any.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    strata = strata_of(labels)
    seed, counts = derive_seed("test-subset", {"fingerprint": fingerprint}), np.bincount(strata)
    quotas = quotas_of(counts, limit)
    if limit and stratify == EVERY_CLASS and labels.ndim == 1:
        quotas = at_least_one(quotas)
    return sample(strata, quotas, np.random.default_rng(seed))


def shuffled_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """``labels``, randomly permuted (random-label control)."""
    return np.random.default_rng(seed).permutation(labels, axis=0)


def _hold_out(
    labels: np.ndarray, groups: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(positions left, positions held out), split by groups; no stratum is held out completely."""
    if not share:
        return np.arange(len(labels), dtype=np.int64), np.empty(0, np.int64)
    group_of, sizes, stratum_of = grouped(labels, groups)
    per_stratum = np.bincount(stratum_of, weights=sizes).astype(np.int64)
    quotas = quotas_of(per_stratum, round(share * len(labels)))
    order = generator.permutation(len(sizes))
    held_out = np.zeros(len(sizes), dtype=bool)
    by_stratum = order[np.argsort(stratum_of[order], kind="stable")]
    strata = np.split(by_stratum, np.cumsum(np.bincount(stratum_of))[:-1])
    for members, quota in zip(strata, quotas, strict=True):
        totals = np.concatenate([[0], np.cumsum(sizes[members][:-1])])
        held_out[members[: np.abs(totals - quota).argmin()]] = True
    if not held_out.any():
        raise SelectionError(
            f"a validation share of {share:g} of {len(labels)} images in {len(sizes)} group(s) "
            "holds out none: raise it, or set it to 0",
            "validation", "SHARE",
        )  # fmt: skip
    mask = held_out[group_of]
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _draw_images(
    labels: np.ndarray,
    count: int,
    present: np.ndarray,
    generator: np.random.Generator,
    classes: Sequence[str],
) -> np.ndarray:
    counts = np.bincount(labels, minlength=len(present))
    _check_enough(np.where(present, counts, count), count, "images of each class", "class", classes)
    return sample(labels, count * present, generator)


def _draw_positives(
    labels: np.ndarray, count: int, generator: np.random.Generator, classes: Sequence[str]
) -> np.ndarray:
    counts = (labels == 1).sum(axis=0)
    _check_enough(counts, count, "positives of each label", "label", classes)
    return draw_positives(labels, count, generator)


def _check_enough(
    counts: np.ndarray, count: int, items: str, kind: str, classes: Sequence[str]
) -> None:
    if len(counts) and counts.min() < count:
        rarest = int(counts.argmin())
        name = repr(classes[rarest]) if classes else rarest
        left = int(counts[rarest])
        message = (
            f"labels_per_class requests {count} {items}; {kind} {name} has {left} left after the"
            " validation split"
        )
        if not left:
            raise SelectionError(f"{message}: hold out less", "validation", "SHARE")
        message += f": request at most {left}, or hold out less"
        raise SelectionError(message, "labels_per_class", left)


def _refuse_empty(
    labels: np.ndarray, present: np.ndarray, validation: float, classes: Sequence[str]
) -> None:
    emptied = present & (np.bincount(labels, minlength=len(present)) == 0)
    if empty := [name for name, lost in zip(classes, emptied, strict=False) if lost]:
        raise SelectionError(
            f"a validation share of {validation:g} in whole groups leaves no training image of "
            f"{listing(empty, LISTED)}: hold out less, or divide the groups more finely",
            "validation", "SHARE",
        )  # fmt: skip
