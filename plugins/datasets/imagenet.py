"""ImageNet, and the test sets that were made for its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from transferbench.data.folders import is_folder, listed, printable
from transferbench.data.picture_formats import picture_endings
from transferbench.errors import DataError, listing
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._imagenet_lists import synset_list
from transferbench_plugins.datasets._paths import (
    BelowRoot,
    content_of_folder,
    group_text,
    refuse_missing,
    required,
)

__all__ = ["IMAGENET", "ImageNetParams"]

NAME = "imagenet"
CHALLENGE = "ILSVRC/Data/CLS-LOC"
"""Where the archive of the challenge has the folders train and val."""
LISTED = 10

Variant: TypeAlias = Literal["val", "r", "a", "sketch", "v2", "c"]
FOLDERS: dict[str, str] = {
    "val": "val", "r": "imagenet-r", "a": "imagenet-a", "sketch": "sketch",
    "v2": "imagenetv2-matched-frequency-format-val", "c": "imagenet-c",
}  # fmt: skip
"""The folder of each test set, as its archive unpacks."""
SUBSETS: dict[str, str] = {"r": "imagenet-r", "a": "imagenet-a"}
"""Test sets of 200 classes of their own."""
NUMBERED = "v2"
"""The test set whose folders are the indices of the classes."""
Corruption: TypeAlias = Literal[
    "brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur",
    "gaussian_noise", "glass_blur", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate",
    "saturate", "shot_noise", "snow", "spatter", "speckle_noise", "zoom_blur",
]  # fmt: skip


class ImageNetParams(Params):
    """The test set, and where the folders are.

    ``test``: ``val`` of ImageNet itself; ``r``, ``a``, ``sketch``, ``v2`` or ``c`` for ImageNet-R,
    -A, -Sketch, -V2 and -C. R and A have 200 classes of their own, and the training split has these
    alone.
    ``train``, ``test_folder``: folders below the root, by default ``train`` and as the archive of
    the test set unpacks.
    ``val_list``: for a flat ``val``, the file with the class of each picture, such as
    ``ILSVRC2012_validation_ground_truth.txt`` (with ``meta_list``), Caffe's ``val.txt`` or
    a list of synsets. ``meta_list``: the synsets in the order of the challenge's numbers, one a
    line.
    ``corruption``, ``severity``: of ImageNet-C.
    """

    test: Variant = "val"
    train: BelowRoot = "train"
    test_folder: BelowRoot | None = None
    val_list: BelowRoot | None = None
    meta_list: BelowRoot | None = None
    corruption: Corruption | None = None
    severity: Annotated[int, Field(ge=1, le=5)] = 3

    @model_validator(mode="after")
    def _corruption_of_c(self) -> ImageNetParams:
        if (self.test == "c") != (self.corruption is not None):
            raise ValueError("corruption goes with test: c, and test: c needs one")
        if self.val_list is not None and self.test != "val":
            raise ValueError("val_list goes with test: val; the other test sets have class folders")
        return self


class _Pictures(NamedTuple):
    """The paths of pictures, and the index of the class of each."""

    paths: list[Path]
    labels: list[int]


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: ImageNetParams, root: Path | None) -> tuple[str, ...]:
    """The synsets, sorted, which is the order of the outputs of published networks."""
    root = _required(root)
    synsets = _synsets(root / params.train)
    if params.test not in SUBSETS:
        return synsets
    subset = _synsets(_test_folder(params, root))
    if absent := sorted(set(subset) - set(synsets)):
        raise DataError(
            f"dataset {NAME!r}: {printable(str(_test_folder(params, root)))} has the classes "
            f"{listing(absent, LISTED)}, which {printable(str(root / params.train))} does not "
            "have: add them"
        )
    return subset


def _items(params: ImageNetParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    synsets = _classes(params, root)
    pictures = _split(params, split, root, synsets)
    groups = [group_text(path.relative_to(root).as_posix()) for path in pictures.paths]
    labels = np.array(pictures.labels, np.int64)
    return DatasetItems(labels, np.array(groups, str), pictures.paths.__getitem__)


def _notes(params: ImageNetParams, root: Path | None) -> list[str]:
    """How many pictures and classes were read."""
    root = _required(root)
    synsets = _classes(params, root)
    counts = {split: len(_split(params, split, root, synsets).paths) for split in ("train", "test")}
    texts = [f"{count:,} for {split}" for split, count in counts.items()]
    return [f"{len(synsets):,} classes; pictures: {', '.join(texts)}"]


# --- pictures -----------------------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, NAME, "the folders train and val of ImageNet")


def _test_folder(params: ImageNetParams, root: Path) -> Path:
    folder = root / (params.test_folder or FOLDERS[params.test])
    if params.test != "c":
        return folder
    level = Path(str(params.corruption)) / str(params.severity)
    nested = [folder / kind / level for kind in ("blur", "digital", "extra", "noise", "weather")]
    return next((path for path in nested if path.is_dir()), folder / level)


def _split(params: ImageNetParams, split: str, root: Path, synsets: Sequence[str]) -> _Pictures:
    if split == "train":
        return _in_folders(root / params.train, synsets)
    folder = _test_folder(params, root)
    if params.val_list is not None:
        names, labels = synset_list(root, params.val_list, params.meta_list, folder, synsets)
        paths = [folder / name for name in names]
        refuse_missing(NAME, paths, f"put the pictures that {params.val_list} names there")
        return _Pictures(paths, labels)
    numbered = params.test == NUMBERED
    return _in_folders(folder, list(map(str, range(len(synsets)))) if numbered else synsets)


def _synsets(folder: Path) -> tuple[str, ...]:
    """The class folders, sorted. Raises: ``DataError`` where there are none."""
    names = _folders(folder)
    synsets = tuple(name for name in names if name[:1] == "n" and name[1:].isdigit())
    if len(synsets) < 2:
        raise DataError(
            f"dataset {NAME!r}: expected class folders such as n01440764 in "
            f"{printable(str(folder))}; {content_of_folder(folder)}{_nested(folder)}"
        )
    return synsets


def _folders(folder: Path) -> list[str]:
    return [e.name for e in listed(str(folder)) if is_folder(e)] if folder.is_dir() else []


def _nested(folder: Path) -> str:
    """Where the class folders are deeper, or still packed."""
    if (folder.parent / CHALLENGE / folder.name).is_dir():
        return (
            f", but {CHALLENGE}/{folder.name}: give the parameters train: {CHALLENGE}/train and "
            f"test_folder: {CHALLENGE}/val, or make {NAME} a link to {CHALLENGE}"
        )
    for name in _folders(folder):
        if any(inner[:1] == "n" and inner[1:].isdigit() for inner in _folders(folder / name)):
            return f": those in {name}/ belong one level up"
    if folder.is_dir() and any(e.name.endswith(".tar") for e in listed(str(folder))):
        return ": unpack the archive of each class into a folder of its name"
    return ""


def _in_folders(folder: Path, names: Sequence[str]) -> _Pictures:
    """The pictures in the folders ``names``, in this order, sorted inside.

    Raises: ``DataError`` where a folder is missing, or has no picture.
    """
    present = set(_folders(folder))
    absent = [name for name in names if name not in present]
    if absent:
        flat = folder.is_dir() and not present and any(folder.iterdir())
        way_on = (
            "its pictures are in no class folders: name the list of their classes in val_list"
            if flat
            else "add them, or correct the folder"
        )
        raise DataError(
            f"dataset {NAME!r}: {len(absent)} of {len(names)} class folders are not in "
            f"{printable(str(folder))}, such as {absent[0]}; {content_of_folder(folder)}: {way_on}"
        )
    paths, labels = list[Path](), list[int]()
    for label, name in enumerate(names):
        files = [Path(e.path) for e in listed(str(folder / name)) if _is_picture(e.name)]
        if not files:
            raise DataError(
                f"dataset {NAME!r}: {printable(str(folder / name))} has no pictures: add them"
            )
        paths += files
        labels += [label] * len(files)
    return _Pictures(paths, labels)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in picture_endings()


IMAGENET = DatasetSpec(
    name=NAME,
    version=1,
    summary="ImageNet-1k, and its test sets R, A, Sketch, V2 and C",
    source="Russakovsky et al., IJCV 2015, arXiv 1409.0575; R: 2006.16241; A: 1907.07174; Sketch: "
    "1905.13549; V2: 1902.10811; C: 1903.12261; files of ImageNet, after registration, at "
    "https://image-net.org/download.php",
    license="ImageNet's terms of access, for research; the test sets have their own",
    params=ImageNetParams,
    items=_items,
    classes=_classes,
    channels=3,
    grouping="file",
    shared_between_splits="the web searches that it was collected from return some pictures twice, "
    "and some are in both published splits",
    needs_root=True,
    notes=_notes,
)
