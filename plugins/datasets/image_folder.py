"""Your own images in class folders, as in the layouts of ImageNet and DomainNet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from transferbench.errors import DataError
from transferbench.specs import DatasetSpec, DatasetSplit, Params

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["IMAGE_FOLDER", "ImageFolderParams"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".webp"})
OPAQUE_MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr"})
ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "P"})


def _below_root(folder: str) -> str:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{folder!r} must lie below the dataset's root")
    return folder


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if groups < 1:
        raise ValueError(f"{pattern!r} needs a group (...) that matches the grouping key")
    return pattern


class ImageFolderParams(Params):
    r"""The folders of the splits, and the groups of files.

    ``train``, ``test``: folders below the root. Without ``test``, ``test_share`` of the groups of
    ``train``, selected by a hash of their keys, are the test split.
    ``group``: a regular expression whose first group, searched in the file's name, is the key,
    such as ``^([^_]+)_``; files with one key are one group, also across classes. Without it each
    file is a group of its own.
    """

    train: Annotated[str, AfterValidator(_below_root)] = "."
    test: Annotated[str, AfterValidator(_below_root)] | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    group: Annotated[str, AfterValidator(_one_group)] | None = None

    @model_validator(mode="after")
    def _two_folders(self) -> Self:
        if self.test is not None and PurePosixPath(self.test) == PurePosixPath(self.train):
            raise ValueError("train and test are the same folder: leave test out to split it")
        return self


class ImageFile(NamedTuple):
    """A file, the index of its class and the key of its group."""

    path: Path
    label: int
    group: str


def _classes(params: ImageFolderParams, root: Path | None) -> tuple[str, ...]:
    """The names of the class folders, sorted; the same in both folders."""
    names = _folder_names(_below(root, params.train))
    if params.test is not None:
        test_names = _folder_names(_below(root, params.test))
        if names != test_names:
            different = sorted(set(names) ^ set(test_names))
            raise DataError(
                f"folders {params.train!r} and {params.test!r} must have the same class folders; "
                f"only one has: {', '.join(different)}"
            )
    return names


def _below(root: Path | None, folder: str) -> Path:
    if root is None:
        raise DataError(
            "dataset 'image-folder' needs a folder of class folders: put it in "
            "FOLDER/image-folder and pass --data-root FOLDER"
        )
    return root / folder


def _folder_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"dataset 'image-folder': there is no folder {folder}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise DataError(f"dataset 'image-folder': expected class folders in {folder}, found none")
    return tuple(names)


def _load(
    params: ImageFolderParams, split: str, root: Path | None, image_size: int
) -> DatasetSplit:
    folder = params.test if split == "test" and params.test is not None else params.train
    files = _image_files(params, _below(root, folder), folder, _classes(params, root))
    if params.test is None:
        files = [
            file
            for file in files
            if (_hash_fraction(file.group) < params.test_share) == (split == "test")
        ]
    images = _decode_all([file.path for file in files], image_size)
    labels = np.array([file.label for file in files], np.int64)
    return DatasetSplit(images, labels, np.array([file.group for file in files], str))


def _image_files(
    params: ImageFolderParams, folder: Path, name: str, classes: Sequence[str]
) -> list[ImageFile]:
    """All images below the class folders, in the order of their names."""
    return [
        ImageFile(path, label, _group_of(params, path, folder, name))
        for label, class_name in enumerate(classes)
        for path in sorted((folder / class_name).rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


def _group_of(params: ImageFolderParams, path: Path, folder: Path, name: str) -> str:
    if params.group is None:
        return (PurePosixPath(name) / path.relative_to(folder).as_posix()).as_posix()
    match = re.search(params.group, path.name)
    if match is None or match[1] is None:
        raise DataError(
            f"dataset 'image-folder': the group pattern {params.group!r} matches no key in the "
            f"name of {path}: change the pattern or the name"
        )
    return match[1]


def _hash_fraction(group: str) -> float:
    """A number in [0, 1) that depends only on the key, so that new files move no other file."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:13], 16) / 16**13


def _decode_all(paths: Sequence[Path], image_size: int) -> np.ndarray:
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        decoded = pool.map(lambda path: _decode(path, image_size), paths)
        for index, image in enumerate(decoded):
            images[index] = image
    return images


def _decode(path: Path, image_size: int) -> np.ndarray:
    """The centre crop of an image, resized by its short side with an antialiased bilinear filter.

    Shapes: uint8 (image_size, image_size, 3).
    """
    from PIL import Image  # slow to import

    try:
        with Image.open(path) as picture:
            flat = _on_white(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"dataset 'image-folder': {path} cannot be read ({error}): replace or remove it"
        ) from error
    short = min(flat.size)
    width, height = (round(side * image_size / short) for side in flat.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    resized = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + image_size, top + image_size)))


def _on_white(picture: Picture) -> Picture:
    from PIL import Image  # slow to import

    if picture.mode in OPAQUE_MODES:
        return picture.convert("RGB")
    if picture.mode not in ALPHA_MODES:
        raise ValueError(f"mode {picture.mode} has no 8-bit form")
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


IMAGE_FOLDER = DatasetSpec(
    name="image-folder",
    version=1,
    summary="Your own images in class folders, with or without a folder for testing",
    source="your own files",
    license="that of your files",
    params=ImageFolderParams,
    load=_load,
    classes=_classes,
    channels=3,
    grouping="file, or the key that the parameter group matches in its name",
    needs_root=True,
)
