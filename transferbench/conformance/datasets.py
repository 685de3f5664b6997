"""The checks of a dataset: splits, sizes, classes, order, groups and files as declared.

Shape letters: N images, H height, W width, C channels, K classes, L labels.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import numpy as np

from transferbench.conformance import cases
from transferbench.conformance.cases import Case, Observation
from transferbench.conformance.checks import Violation, defined_in, shared
from transferbench.data.cache import StoredForm, missing, prepare, read_file, root_of
from transferbench.data.duplicates import common_images, common_keys, image_digests
from transferbench.data.items import decoded_split
from transferbench.errors import listing
from transferbench.specs import DatasetSpec, DatasetSplit

__all__ = ["CASE", "CHECKS"]

SIZES = (16, 24)
"""Two image sizes that the small networks of this field take."""
LISTED = 10
"""Classes that a violation names."""


class DatasetCase(Case[DatasetSpec]):
    """A dataset with its parameters."""

    draw_advice = "draw from numpy.random.default_rng(seed)"
    network_advice = "read from root; declare files with their sha256 and origin instead"
    repeated = "loading it again"

    def __init__(self, spec: DatasetSpec, params: Any, *where: Any) -> None:
        with suppress(Exception):  # raised again, and reported, where its splits are loaded
            spec = spec.with_params(params)
        super().__init__(spec, params, *where)

    @shared(reported_by="every-split-is-loaded")
    def splits(self) -> dict[str, DatasetSplit]:
        """All splits by name."""
        splits = {name: self.load(name, SIZES[0]) for name in self.spec.splits}
        for name, split in splits.items():
            if not isinstance(split, DatasetSplit) or not all(
                isinstance(array, np.ndarray) for array in split
            ):
                raise Violation(
                    f"load({name!r}) returned {type(split).__name__}",
                    "return transferbench.specs.DatasetSplit(images, labels, groups), three arrays",
                )
        return splits

    @shared(reported_by="a-second-load-needs-no-network")
    def again(self) -> Observation[dict[str, DatasetSplit]]:
        """A second load of the splits."""
        names = tuple(self.splits)
        return self.observed(lambda: {name: self.load(name, SIZES[0]) for name in names})

    @shared(reported_by="classes-are-named-once")
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.spec.classes(self.params, self.root())

    def root(self) -> Path | None:
        """The folder of its files. Raises: ``SkipTest`` where this machine lacks them."""
        if lacking := missing(self.spec, self.data_root):
            raise SkipTest("; ".join(lacking))
        root = self.data_root if self.spec.needs_root else None
        return root and root_of(self.spec, root)

    def load(self, split: str, image_size: int) -> DatasetSplit:
        """One split, decoded on each call."""
        return decoded_split(
            self.spec.with_params(self.params), self.params, split, self.root(), image_size
        )


# --- the checks -------------------------------------------------------------------------------


def check_every_split_is_loaded(case: DatasetCase) -> None:
    """``load`` returns a ``DatasetSplit`` of arrays for train, test and all declared splits."""
    if absent := {"train", "test"} - case.splits.keys():
        raise Violation(
            f"it declares the splits {', '.join(case.splits) or 'none'}, without "
            f"{' and '.join(sorted(absent))}",
            "every dataset has train and test: declare and load them",
        )


def check_a_run_can_prepare_it(case: DatasetCase) -> None:
    """What ``plan`` and ``run`` refuse in the data, and what their notes find, is refused here."""
    if not case.splits:  # what cannot be loaded is another check's
        return
    form = StoredForm(SIZES[0], case.spec.channels)
    with TemporaryDirectory() as cache:
        prepare(case.spec, case.params, form, cache=Path(cache), data_root=case.data_root)


def check_images_are_uint8_of_the_declared_channels(case: DatasetCase) -> None:
    """(N, H, W, C) with the C of ``channels``, and at least one image."""
    for name, split in case.splits.items():
        images, side, channels = split.images, SIZES[0], case.spec.channels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
            raise Violation(
                f"split {name!r} has images of {images.dtype} {images.shape}",
                f"give uint8 (N, {side}, {side}, {channels}), or declare other channels",
            )
        if not len(images):
            raise Violation(f"split {name!r} has no images", "drop the split, or fill it")


def check_the_image_size_is_honoured(case: DatasetCase) -> None:
    """Square images of the requested side, for any side."""
    for name, side in product(case.splits, SIZES):
        split = case.splits[name] if side == SIZES[0] else case.load(name, side)
        if split.images.shape[1:3] != (side, side):
            raise Violation(
                f"split {name!r} was requested at {side} px and has shape {split.images.shape}",
                "resize to image_size in load",
            )


def check_images_differ_from_each_other(case: DatasetCase) -> None:
    """A decoder that fails silently returns the same grey image many times."""
    for name, split in case.splits.items():
        count = len(split.images)
        if count > 1 and len(set(image_digests(split.images).tolist())) == 1:
            raise Violation(f"all {count} images of split {name!r} are equal",
                            "look at what the decoder reads")  # fmt: skip


def check_arrays_of_a_split_are_of_one_length(case: DatasetCase) -> None:
    """Image i, label i and group i belong together."""
    for name, split in case.splits.items():
        lengths = {field: len(array) for field, array in split._asdict().items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} {field}" for field, count in lengths.items())
            raise Violation(f"split {name!r} has {counts}", "give one of each for every image")
        if split.groups.ndim != 1 or split.groups.dtype.kind not in "Uiu":
            form = f"{split.groups.dtype} {split.groups.shape}"
            raise Violation(f"the groups of split {name!r} are {form}",
                            "give one string or integer an image")  # fmt: skip


def check_labels_are_in_the_range_of_the_classes(case: DatasetCase) -> None:
    """int64 (N,) in 0..K-1, or float32 (N, K) of 0, 1 and NaN for several labels an image."""
    count = len(case.classes)
    for name, split in case.splits.items():
        labels = split.labels
        if case.spec.task == "multi-class":
            expected, fits = "int64 (N,)", labels.dtype == np.int64 and labels.ndim == 1
            legal = f"0 to {count - 1}"
        else:
            expected = f"float32 (N, {count})"
            fits = labels.dtype == np.float32 and labels.shape[1:] == (count,)
            legal = "0, 1, and NaN where one is unknown"
        if not fits:
            raise Violation(f"the labels of split {name!r} are {labels.dtype} {labels.shape}",
                            f"a {case.spec.task} task has {expected} labels")  # fmt: skip
        several = case.spec.task == "multi-label"
        is_legal = np.isin(labels, (0, 1)) | np.isnan(labels) if several else (
            (labels >= 0) & (labels < count))  # fmt: skip
        if (bad := labels[~is_legal]).size:
            raise Violation(f"split {name!r} has the label {bad.flat[0]}",
                            f"{count} classes allow {legal}")  # fmt: skip


def check_every_class_is_learnable(case: DatasetCase) -> None:
    """Every split has images of every class, and there are at least two classes.

    Of several labels an image, and of files of the user's own, the training split alone.
    """
    classes, several = case.classes, case.spec.task == "multi-label"
    if reason := case.spec.absent_classes:
        raise SkipTest(f"it declares that it is published so: {reason}")
    if len(classes) < (1 if several else 2):
        raise Violation(f"it has {len(classes)} class(es)", "a task needs something to tell apart")
    for name in ("train",) if several or case.spec.reads_users_folder else case.splits:
        labels = case.splits[name].labels
        present = np.asarray(
            (labels == 1).any(axis=0) if several else np.isin(np.arange(len(classes)), labels)
        )
        if absent := [of for of, has in zip(classes, present, strict=False) if not has]:
            kind = "training" if name == "train" else name
            raise Violation(
                f"no {kind} image is of class {listing(absent, LISTED)}",
                f"drop the class, or put images of it into {name}",
            )


def check_classes_are_named_once(case: DatasetCase) -> None:
    """``classes`` is a tuple of different, non-empty strings."""
    classes = case.classes
    named = isinstance(classes, tuple) and all(isinstance(n, str) and n.strip() for n in classes)
    if not named:
        raise Violation(f"classes() returned {classes!r}",
                        "give a tuple of names, one for each label")  # fmt: skip
    if repeated := sorted({name for name in classes if classes.count(name) > 1}):
        raise Violation(f"two classes are called {', '.join(repeated)}", "give each its own name")


def check_no_image_is_in_two_splits(case: DatasetCase) -> None:
    """Splits are disjoint by content: equal decoded pixels under two file names leak.

    Blank images, of one value alone, are left out.
    """
    _skip_declared(case)
    digests = {name: image_digests(split.images) for name, split in case.splits.items()}
    for name, other in combinations(digests, 2):
        shape = case.splits[name].images.shape[1:]
        common, _ = common_images(digests[name], digests[other], shape)
        if common.total:
            raise Violation(
                f"splits {name!r} and {other!r} share {common.total} image(s) pixel by pixel, such "
                f"as number {common.here} of {name!r} and number {common.there} of {other!r}",
                "keep one of each, or put both copies into one split",
            )


def check_no_group_is_in_two_splits(case: DatasetCase) -> None:
    """No writer, patient or font (whatever ``grouping`` names) is in two splits."""
    _skip_declared(case)
    for name, other in combinations(case.splits, 2):
        groups = case.splits[name].groups
        common = common_keys(groups, case.splits[other].groups)
        if common.total:
            raise Violation(
                f"splits {name!r} and {other!r} share {common.total} group(s) by "
                f"{case.spec.grouping}, such as {str(groups[common.here])!r}",
                "split by groups, not by images",
            )


def _skip_declared(case: DatasetCase) -> None:
    if reason := case.spec.shared_between_splits:
        raise SkipTest(f"it declares that it is published so: {reason}")


def check_the_same_call_gives_the_same_pixels(case: DatasetCase) -> None:
    """Same pixels, labels and groups in the same order: they are part of every id."""
    again = case.again.result
    for name, split in case.splits.items():
        for field, before, after in zip(split._fields, split, again[name], strict=True):
            if not np.array_equal(before, after):
                raise Violation(
                    f"two loads of split {name!r} gave other {field}",
                    "sort what is listed, and seed what is drawn from the parameters",
                )


def check_a_second_load_needs_no_network(case: DatasetCase) -> None:
    """``prepare`` fetches files; afterwards they are read from disk."""
    cases.check_no_network_is_used(case)


def check_files_are_as_declared(case: DatasetCase) -> None:
    """Each declared file exists below the root, with the declared size and sha256."""
    spec = case.spec
    paths = [file.path for file in spec.files]
    if len(set(paths)) < len(paths):
        raise Violation("it declares one file twice", "declare each file once")
    for path in paths:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise Violation(f"it declares the file {path!r}", "give paths below the root")
    root = case.root()
    if not spec.files or root is None:
        raise SkipTest("it declares no files below a root")
    for file in spec.files:
        read_file(root, file)


CASE = DatasetCase
CHECKS = (
    *defined_in(__name__),
    cases.check_global_randomness_is_untouched,
    cases.check_nothing_is_printed,
    cases.check_what_everybody_shares_is_kept,
)
