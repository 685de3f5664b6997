"""Validation of decoded splits: form, classes, and nothing in two splits.

A wrong form is the plugin's fault. Wrong content is too, unless it lies in a folder of the user's.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transferbench.data.decoded import PreparedSplit, SplitContent
from transferbench.data.duplicates import common_images, common_keys
from transferbench.errors import DataError, PluginError, TransferbenchError, listing
from transferbench.specs import DatasetSpec, DatasetSplit, Task

__all__ = [
    "SharedContent",
    "check_form",
    "content_error",
    "name_faults",
    "shared_content",
    "split_faults",
]

LARGEST_KEY = 2**53
"""Larger integers are not one number in every reader of JSON."""
LISTED = 10


class SharedContent(NamedTuple):
    """What ``split`` has in common with ``other``, a split before it.

    ``images``: how many of its ``size`` images are in ``other``, with an ``example`` of both;
    ``blank``: how many more are there of one value alone. ``keys``: how many groups
    are in both, such as ``key``.
    """

    split: str
    other: str
    size: int
    images: int
    example: str
    blank: int
    keys: int
    key: str

    def text(self, grouping: str) -> str:
        """As the end of a sentence; ``grouping`` says what a group is."""
        pair, parts = f"splits {self.other!r} and {self.split!r}", []
        if self.keys:
            parts.append(f"share {self.keys} group(s) by {grouping}, the first is {self.key!r}")
        if self.images:
            parts.append(
                f"share images pixel by pixel: {self.images} of {self.size} in {self.split!r}, "
                f"such as {self.example}"
            )
        if self.blank:
            parts.append(f"share {self.blank} blank image(s), of one value alone")
        return f"{pair} {', and '.join(parts)}"


def content_error(
    spec: DatasetSpec, faults: Iterable[str], root: Path | None
) -> TransferbenchError:
    """An error about the content, which blames the plugin only for what is its own."""
    if spec.reads_users_folder:
        return DataError("\n".join(f"dataset {spec.name!r} in {root}{fault}" for fault in faults))
    return PluginError("\n".join(f"dataset {spec.name!r}{fault}" for fault in faults))


# --- form -------------------------------------------------------------------------------------


def check_form(
    spec: DatasetSpec, name: str, split: DatasetSplit, classes: tuple[str, ...], image_size: int
) -> None:
    """Raises: ``PluginError`` where arrays have another type or shape than promised."""
    faults = itertools.chain(
        _array_faults(split, (image_size, image_size, spec.channels)),
        _label_faults(split.labels, classes, spec.task),
    )
    if fault := next(faults, None):
        raise PluginError(f"dataset {spec.name!r}, split {name!r}: {fault}")


def _array_faults(split: DatasetSplit, shape: tuple[int, int, int]) -> Iterator[str]:
    images, _, groups = split
    if images.dtype != np.uint8:
        yield f"images are {images.dtype}, expected uint8"
    if images.ndim != 4 or images.shape[1:] != shape:
        yield f"images have shape {images.shape}, expected (N, {', '.join(map(str, shape))})"
    if not len(images):
        yield "there are no images"
    lengths = [len(array) for array in split]
    if len(set(lengths)) > 1:
        yield f"images, labels and groups have different lengths: {lengths}"
    if groups.ndim != 1 or groups.dtype.kind not in "Uiu":
        yield f"groups are {groups.dtype}, expected one string or integer per image"
    if groups.dtype.kind in "iu" and np.abs(groups.astype(np.float64)).max() >= LARGEST_KEY:
        yield "groups are integers of 2**53 or more: give them as strings"


def _label_faults(labels: np.ndarray, classes: tuple[str, ...], task: Task) -> Iterator[str]:
    count, several = len(classes), task == "multi-label"
    dtype, ndim = ("float32", 2) if several else ("int64", 1)
    if labels.dtype != dtype or labels.ndim != ndim:
        yield f"labels are {labels.dtype} of {labels.ndim} axes, expected {dtype} of {ndim}"
    if several:
        valid = (labels == 0) | (labels == 1) | np.isnan(labels)
        values = "0 and 1 (or NaN where one is unknown)"
    else:
        valid, values = (labels >= 0) & (labels < count), f"0 to {count - 1}"
    if not valid.all():
        yield f"labels are not all in range: expected {values} for {count} classes"
    if several and labels.shape[1] != count:
        yield f"labels have {labels.shape[1]} columns, expected one for each of {count} classes"


# --- content ----------------------------------------------------------------------------------


def name_faults(classes: tuple[str, ...], task: Task) -> Iterator[str]:
    """What is wrong with the names of the classes."""
    if len(set(classes)) < len(classes):
        yield f"two classes have one name: {sorted(classes)}"
    elif len(classes) < (2 if task == "multi-class" else 1):
        yield f"it has {len(classes)} class(es), too few to classify"
    alike = defaultdict(list)
    for name in sorted(set(classes)):
        alike[_visible(name)].append(name)
    for name, spellings in alike.items():
        if not name:
            yield (f"a class is called {spellings[0]!a}, which shows nothing: name it, or leave "
                   "its images out")  # fmt: skip
        elif len(spellings) > 1:
            written = " and ".join(map(ascii, spellings))
            yield f"two classes are called {name}, written {written}: make them one, or rename one"
    yield from _text_faults("the class", classes)


def _visible(name: str) -> str:
    """What is seen of a name: composed, without characters that have no width."""
    letters = unicodedata.normalize("NFC", name)
    return "".join(c for c in letters if unicodedata.category(c) != "Cf").strip()


def split_faults(spec: DatasetSpec, classes: tuple[str, ...], split: SplitContent) -> Iterator[str]:
    """What is wrong with the content of one split."""
    if spec.task == "multi-class" and not spec.absent_classes:
        counts = np.bincount(split.labels, minlength=len(classes))
        if empty := [classes[index] for index in np.flatnonzero(counts == 0)]:
            yield (
                f"there are {len(classes)} classes, but no image of {listing(empty, LISTED)}: "
                "put images of each class into each split, or remove the class"
            )
    if spec.task == "multi-label" and np.isnan(split.labels).all():
        yield "no label of any image is known: give some, or another policy for uncertain values"
    if split.groups.dtype.kind == "U":
        yield from _text_faults("the group", split.groups.tolist())


def _text_faults(kind: str, names: Iterable[str]) -> Iterator[str]:
    """Names of files come as lone surrogates where they are not UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            yield f"{kind} {name!a} is not text in UTF-8: rename it"
            return


# --- splits -----------------------------------------------------------------------------------


def shared_content(splits: Mapping[str, PreparedSplit]) -> Iterator[SharedContent]:
    """What each two splits have in common."""
    for (other_name, other), (name, split) in itertools.combinations(splits.items(), 2):
        images, blank = common_images(split.digests, other.digests, split.images.shape[1:])
        keys = common_keys(split.groups, other.groups)
        if images.total or blank or keys.total:
            yield SharedContent(
                name,
                other_name,
                size=len(split.images),
                images=images.total,
                example=f"{_image(name, split, images.here)} and "
                f"{_image(other_name, other, images.there)}",
                blank=blank,
                keys=keys.total,
                key=str(split.groups[keys.here]),
            )


def _image(name: str, split: PreparedSplit, position: int) -> str:
    """An image by its position and its group, which for many datasets is its file."""
    return f"number {position} of {name!r} ({split.groups[position]})"
