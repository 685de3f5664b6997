"""The promises of a dataset: splits, sizes, classes, order, groups and files as declared.

Shape letters: N images, H height, W width, C channels, K classes, L labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np

from transferbench.conformance.checks import Broken, Once
from transferbench.conformance.isolation import (
    moved_since,
    offline,
    randomness,
    refuse_moved,
)
from transferbench.data.cache import missing, read_file, root_of
from transferbench.specs import DatasetSpec, DatasetSplit

__all__ = ["CHECKS", "DatasetCase"]

SIZES = (16, 24)
"""Two image sizes that the small networks of this field take."""

Splits = Mapping[str, DatasetSplit]


class Again(NamedTuple):
    """A second load: what it gave, asked of the network, and moved of the global generators."""

    splits: Splits
    asked: list[str]
    moved: list[str]


class DatasetCase:
    """A dataset with its parameters, decoded once at each size.

    ``data_root``: the folder that holds the folders of datasets' files, as in ``--data-root``.
    """

    def __init__(self, spec: DatasetSpec, params: Any, data_root: Path | None) -> None:
        self.spec = spec
        self.params = params
        self._data_root = data_root
        self.splits = Once(lambda: self._load(SIZES[0]), told_by="every-split-is-loaded")
        self.again = Once(self._again, told_by="a-second-load-needs-no-network")
        self.classes = Once(self._classes, told_by="classes-are-named-once")

    def root(self) -> Path | None:
        """The folder of its files. Raises: ``SkipTest`` where this machine lacks them."""
        if lacking := missing(self.spec, self._data_root):
            raise SkipTest("; ".join(lacking))
        if not self.spec.needs_root or self._data_root is None:
            return None
        return root_of(self.spec, self._data_root)

    def load(self, split: str, image_size: int) -> DatasetSplit:
        """One split, decoded now."""
        return self.spec.load(self.params, split, self.root(), image_size)

    def _load(self, image_size: int) -> dict[str, DatasetSplit]:
        return {name: self.load(name, image_size) for name in self.spec.splits}

    def _again(self) -> Again:
        self.splits()
        before = randomness()
        with offline() as asked:
            splits = self._load(SIZES[0])
        return Again(splits, asked, moved_since(before))

    def _classes(self) -> tuple[str, ...]:
        return self.spec.classes(self.params, self.root())


def _of_splits(case: DatasetCase) -> Iterator[tuple[str, DatasetSplit]]:
    """Every split; what is no split at all is told by the first check."""
    for name, split in case.splits().items():
        if not _is_split(split):
            raise SkipTest("there is nothing to look at, see every-split-is-loaded")
        yield name, split


def _is_split(split: object) -> bool:
    return isinstance(split, DatasetSplit) and all(isinstance(one, np.ndarray) for one in split)


# --- the checks -------------------------------------------------------------------------------


def check_every_split_is_loaded(case: DatasetCase) -> None:
    """``load`` gives a ``DatasetSplit`` of arrays for train, test and whatever it declares."""
    if absent := {"train", "test"} - set(case.spec.splits):
        raise Broken(
            f"it declares the splits {', '.join(case.spec.splits) or 'none'}, without "
            f"{' and '.join(sorted(absent))}",
            "every dataset has train and test: declare and load them",
        )
    for name, split in case.splits.told().items():
        if not _is_split(split):
            raise Broken(
                f"load({name!r}) gave {type(split).__name__}",
                "return transferbench.specs.DatasetSplit(images, labels, groups), three arrays",
            )


def check_images_are_uint8_of_the_declared_channels(case: DatasetCase) -> None:
    """(N, H, W, C) with the C of ``channels``, and at least one image."""
    for name, split in _of_splits(case):
        side, channels = SIZES[0], case.spec.channels
        images = split.images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
            raise Broken(
                f"split {name!r} has images of {images.dtype} {images.shape}",
                f"give uint8 (N, {side}, {side}, {channels}), or declare other channels",
            )
        if not len(images):
            raise Broken(f"split {name!r} has no images", "drop the split, or fill it")


def check_the_image_size_is_honoured(case: DatasetCase) -> None:
    """Square images of the side asked for, whichever is asked for."""
    for side in SIZES:
        for name in case.spec.splits:
            images = (case.splits()[name] if side == SIZES[0] else case.load(name, side)).images
            if images.shape[1:3] != (side, side):
                raise Broken(
                    f"split {name!r} was asked for at {side} px and came with shape {images.shape}",
                    "resize to image_size in load",
                )


def check_images_differ_from_each_other(case: DatasetCase) -> None:
    """A decoder that fails silently gives one grey image many times."""
    for name, split in _of_splits(case):
        if len(split.images) > 1 and len(_contents(split.images)) == 1:
            raise Broken(f"all {len(split.images)} images of split {name!r} are equal",
                         "look at what the decoder reads")  # fmt: skip


def check_arrays_of_a_split_are_of_one_length(case: DatasetCase) -> None:
    """Image i, label i and group i belong together."""
    for name, split in _of_splits(case):
        lengths = {field: len(array) for field, array in split._asdict().items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{count} {field}" for field, count in lengths.items())
            raise Broken(f"split {name!r} has {told}", "give one of each for every image")
        if split.groups.ndim != 1 or split.groups.dtype.kind not in "Uiu":
            raise Broken(f"the groups of split {name!r} are {split.groups.dtype} "
                         f"{split.groups.shape}",
                         "give one string or integer an image")  # fmt: skip


def check_labels_are_in_the_range_of_the_classes(case: DatasetCase) -> None:
    """int64 (N,) in 0..K-1, or float32 (N, K) of 0 and 1 for several labels an image."""
    count = len(case.classes())
    for name, split in _of_splits(case):
        labels = split.labels
        if case.spec.task == "multi-class":
            wanted, fits = "int64 (N,)", labels.dtype == np.int64 and labels.ndim == 1
            legal = f"0 to {count - 1}"
            bad = labels[(labels < 0) | (labels >= count)]
        else:
            wanted = f"float32 (N, {count})"
            fits = labels.dtype == np.float32 and labels.shape[1:] == (count,)
            legal, bad = "0 and 1", labels[(labels != 0) & (labels != 1)]
        if not fits:
            raise Broken(f"the labels of split {name!r} are {labels.dtype} {labels.shape}",
                         f"a {case.spec.task} task has {wanted} labels")  # fmt: skip
        if bad.size:
            raise Broken(f"split {name!r} has the label {bad.flat[0]}",
                         f"{count} classes allow {legal}")  # fmt: skip


def check_every_class_is_learnable(case: DatasetCase) -> None:
    """The training split has images of every class, and there are classes to tell apart."""
    classes, labels = case.classes(), case.splits()["train"].labels
    if len(classes) < (2 if case.spec.task == "multi-class" else 1):
        raise Broken(f"it has {len(classes)} class(es)", "a task needs something to tell apart")
    if case.spec.task == "multi-class":
        seen = set(np.unique(labels).tolist())
        absent = [name for index, name in enumerate(classes) if index not in seen]
    else:
        absent = [name for name, column in zip(classes, labels.T, strict=True) if not column.any()]
    if absent:
        raise Broken(
            f"no training image is of class {', '.join(absent)}",
            "drop the class, or put images of it into train",
        )


def check_classes_are_named_once(case: DatasetCase) -> None:
    """``classes`` is a tuple of different, non-empty strings."""
    classes = case.classes.told()
    if not isinstance(classes, tuple) or not all(
        isinstance(one, str) and one.strip() for one in classes
    ):
        raise Broken(f"classes() gave {classes!r}", "give a tuple of names, one for each label")
    twice = sorted({one for one in classes if classes.count(one) > 1})
    if twice:
        raise Broken(f"two classes are called {', '.join(twice)}", "give each its own name")


def check_no_image_is_in_two_splits(case: DatasetCase) -> None:
    """Splits are disjoint by content: equal decoded pixels under two file names leak."""
    contents = {name: _contents(split.images) for name, split in _of_splits(case)}
    for one, other in combinations(contents, 2):
        shared = contents[one].keys() & contents[other].keys()
        if shared:
            first = min((contents[one][content], contents[other][content]) for content in shared)
            raise Broken(
                f"splits {one!r} and {other!r} share {len(shared)} image(s) pixel by pixel, such "
                f"as number {first[0]} of the one and number {first[1]} of the other",
                "keep one of each, or put both copies into one split",
            )


def _contents(images: np.ndarray) -> dict[bytes, int]:
    """The digest of every different image, and where it first stands."""
    places: dict[bytes, int] = {}
    for place, image in enumerate(images):
        places.setdefault(hashlib.sha256(image.tobytes()).digest(), place)
    return places


def check_no_group_is_in_two_splits(case: DatasetCase) -> None:
    """A writer, a patient, a font: what ``grouping`` names is never in two splits."""
    groups = {name: set(split.groups.astype(str).tolist()) for name, split in _of_splits(case)}
    for one, other in combinations(groups, 2):
        if shared := sorted(groups[one] & groups[other]):
            raise Broken(
                f"splits {one!r} and {other!r} share {len(shared)} group(s) by "
                f"{case.spec.grouping}, such as {shared[0]!r}",
                "split by groups, not by images",
            )


def check_the_same_call_gives_the_same_pixels(case: DatasetCase) -> None:
    """Same pixels, labels and groups in the same order: they are part of every id."""
    again = case.again().splits
    for name, split in _of_splits(case):
        for field, before, after in zip(split._fields, split, again[name], strict=True):
            if before.shape != after.shape or not np.array_equal(before, after):
                raise Broken(
                    f"two loads of split {name!r} gave other {field}",
                    "sort what is listed, and seed what is drawn from the parameters",
                )


def check_a_second_load_needs_no_network(case: DatasetCase) -> None:
    """``prepare`` fetches; what is there is read from there."""
    case.splits()
    if asked := case.again.told().asked:
        raise Broken(
            f"loading it again asked the network for {asked[0]}",
            "read from root; declare files with their sha256 and origin instead",
        )


def check_global_randomness_is_untouched(case: DatasetCase) -> None:
    """Whoever loads it must draw the same numbers afterwards."""
    refuse_moved(case.again().moved, "draw from numpy.random.default_rng(seed)")


def check_files_are_as_declared(case: DatasetCase) -> None:
    """Each declared file is there, of the declared size and sha256, and stays below the root."""
    spec = case.spec
    paths = [file.path for file in spec.files]
    if len(set(paths)) < len(paths):
        raise Broken("it declares one file twice", "declare each file once")
    for path in paths:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise Broken(f"it declares the file {path!r}", "give paths below the root")
    root = case.root()
    if not spec.files or root is None:
        raise SkipTest("it declares no files below a root")
    for file in spec.files:
        read_file(root, file)


CHECKS = (
    check_every_split_is_loaded,
    check_images_are_uint8_of_the_declared_channels,
    check_the_image_size_is_honoured,
    check_images_differ_from_each_other,
    check_arrays_of_a_split_are_of_one_length,
    check_labels_are_in_the_range_of_the_classes,
    check_every_class_is_learnable,
    check_classes_are_named_once,
    check_no_image_is_in_two_splits,
    check_no_group_is_in_two_splits,
    check_the_same_call_gives_the_same_pixels,
    check_a_second_load_needs_no_network,
    check_global_randomness_is_untouched,
    check_files_are_as_declared,
)
