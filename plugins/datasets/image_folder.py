"""Your own images in class folders, as in the layouts of ImageNet and DomainNet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, permutations
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from transferbench.errors import DataError, listing
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._class_folders import (
    ClassFolders,
    class_names,
    composed,
    name_differences,
    survey,
)
from transferbench_plugins.datasets._group_keys import (
    group_keys,
    one_group,
    refuse_classes_as_groups,
)
from transferbench_plugins.datasets._hash_split import hashed_split
from transferbench_plugins.datasets._paths import BelowRoot, group_text, required

__all__ = ["IMAGE_FOLDER", "ImageFolderParams"]

LISTED = 10


class ImageFolderParams(Params):
    r"""The folders of the splits, and the groups of files.

    ``train``, ``test``: folders below the root. Without ``test``, ``test_share`` of the groups of
    ``train``, selected by a hash of their keys, are the test split.
    ``group``: a regular expression whose first group, searched in the file's name, is the key,
    such as ``^([^_]+)_``; files with one key are one group, also across classes. Without it each
    file is a group of its own.
    """

    train: BelowRoot = "."
    test: BelowRoot | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    group: Annotated[str, AfterValidator(one_group)] | None = None

    @model_validator(mode="after")
    def _two_folders(self) -> Self:
        if self.test is not None and PurePosixPath(self.test) == PurePosixPath(self.train):
            raise ValueError("train and test are the same folder: leave test out to split it")
        return self


class Picture(NamedTuple):
    """A file, the index of its class and the key of its group."""

    path: Path
    label: int
    group: str


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: ImageFolderParams, root: Path | None) -> tuple[str, ...]:
    """The names of the class folders in ``train``, sorted; those in ``test`` read the same."""
    folders = _class_folders(params, _required(root))
    if differences := name_differences(folders):
        train, test = folders
        unpaired = set(map(composed, folders[train])) ^ set(map(composed, folders[test]))
        raise DataError(
            f"folders {train!r} and {test!r} must have the same class folders; only one has: "
            f"{listing(sorted(unpaired), LISTED)} ({listing(differences, LISTED, '; ')})"
        )
    return folders[params.train]


def _items(params: ImageFolderParams, split: str, root: Path | None) -> DatasetItems:
    folder = params.test if split == "test" and params.test is not None else params.train
    pictures = _pictures(params, _required(root), folder)
    if params.test is None:
        pictures = [picture for picture in pictures if _split_of(picture, params) == split]
    labels = np.array([picture.label for picture in pictures], np.int64)
    groups = np.array([picture.group for picture in pictures], str)
    return DatasetItems(labels, groups, lambda i: pictures[i].path)


def _notes(params: ImageFolderParams, root: Path | None) -> list[str]:
    """How many files were taken and ignored, and which names are written in two ways.

    Raises: ``DataError`` where the hash leaves a split without pictures of a class.
    """
    root = _required(root)
    folders = _class_folders(params, root)
    if params.test is None:
        _check_shares(params, root)
    written = defaultdict(set)
    for name in chain(*folders.values()):
        written[composed(name)].add(ascii(name))
    twice = [
        f"class {name!r} is written {' and '.join(sorted(ways))}: taken as the same"
        for name, ways in written.items()
        if len(ways) > 1
    ]
    contents = [survey(root, folder) for folder in folders]
    return [*map(str, contents), *twice, *filter(None, (_as_domains(root, c) for c in contents))]


def _as_domains(root: Path, content: ClassFolders) -> str | None:
    """That the folders may be domains of classes, which have the same folders inside."""
    depth = len((root / content.name).parts) + 1
    inside = [{path.parts[depth:-1][:1] for path in files} for files in content.pictures.values()]
    shared = sorted(name[0] for name in set.intersection(*inside) if name)
    if len(inside) < 2 or len(shared) < 2 or any(() in names for names in inside):
        return None
    return (
        f"each class of {content.name!r} has the folders {listing(shared, LISTED)} inside, as "
        "domains of classes have: if these are the classes, name one domain in train"
    )


# --- the pictures of a split --------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, "image-folder", "a folder of class folders")


def _class_folders(params: ImageFolderParams, root: Path) -> dict[str, tuple[str, ...]]:
    """The names of the class folders in ``train`` and in ``test``, where that is a folder."""
    folders = [params.train] if params.test is None else [params.train, params.test]
    names = {folder: class_names(root, folder) for folder in folders}
    real = [(root / folder).resolve() for folder in folders]
    if any(a.is_relative_to(b) for a, b in permutations(real, 2)):
        raise DataError(
            f"dataset 'image-folder': folders {params.train!r} and {params.test!r} are the same "
            "or one contains the other, so that pictures would be in both: keep them apart"
        )
    return names


def _pictures(params: ImageFolderParams, root: Path, folder: str) -> list[Picture]:
    """The pictures in a folder in the order of the classes, then of their paths."""
    labels = {composed(name): label for label, name in enumerate(_classes(params, root))}
    classes = survey(root, folder).pictures
    files = sorted((labels[composed(name)], path) for name in classes for path in classes[name])
    groups = _groups(params, root, [path for _, path in files])
    if params.group is not None:
        own, paths = zip(*files, strict=True) if files else ((), ())
        refuse_classes_as_groups(params.group, paths, own, groups)
    return [Picture(path, label, group) for (label, path), group in zip(files, groups, strict=True)]


def _split_of(picture: Picture, params: ImageFolderParams) -> str:
    """The split of a picture where there is no folder for testing."""
    return hashed_split(picture.group, params.test_share)


def _check_shares(params: ImageFolderParams, root: Path) -> None:
    """Raises: ``DataError`` where a split got no picture of a class."""
    pictures = _pictures(params, root, params.train)
    filled = {(_split_of(picture, params), picture.label) for picture in pictures}
    classes = _classes(params, root)
    for split in ("train", "test"):
        absent = [repr(n) for label, n in enumerate(classes) if (split, label) not in filled]
        if absent:
            raise DataError(
                f"dataset 'image-folder': with test_share {params.test_share} no picture of class "
                f"{listing(absent, LISTED)} is in the split {split!r}: add pictures, choose "
                "another share, or put the test pictures into a folder of their own"
            )


def _groups(params: ImageFolderParams, root: Path, paths: Sequence[Path]) -> list[str]:
    """The key of each picture. Bytes of a name that are not UTF-8 become escapes."""
    if params.group is None:
        keys = [path.relative_to(root).as_posix() for path in paths]
    else:
        keys = group_keys(params.group, paths)
    return list(map(group_text, keys))


IMAGE_FOLDER = DatasetSpec(
    name="image-folder",
    version=1,
    summary="Your own images in class folders, with or without a folder for testing",
    source="your own files",
    license="that of your files",
    params=ImageFolderParams,
    items=_items,
    classes=_classes,
    channels=3,
    grouping="file, or the key that the parameter group matches in its name",
    needs_root=True,
    notes=_notes,
)
