"""Images in one file of NumPy's, in the layout of MedMNIST."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from transferbench.data.folders import printable
from transferbench.errors import DataError
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._paths import BelowRoot, content_of_folder, required

__all__ = ["NPZ", "NpzParams"]

NAME = "npz"
Part = Literal["train", "val", "test"]


class NpzParams(Params):
    """The file, and which of its arrays are which split.

    ``file``: below the root; arrays ``train_images``, ``train_labels`` and so on, images uint8
    (N, H, W) or (N, H, W, C), labels (N,) or (N, 1), or (N, L) of 0 and 1 for several labels.
    ``several``: whether labels are (N, L), the task then multi-label.
    ``train``, ``test``: the arrays of each split; ``val`` may be part of ``train``.
    ``classes``: the names of the classes, in the order of the indices; numbers without it.
    """

    file: BelowRoot = "dataset.npz"
    several: bool = False
    train: tuple[Part, ...] = ("train",)
    test: tuple[Part, ...] = ("test",)
    classes: tuple[str, ...] = ()


class _Arrays(NamedTuple):
    """The images and labels of one split."""

    images: np.ndarray
    labels: np.ndarray


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: NpzParams, root: Path | None) -> tuple[str, ...]:
    labels = [_labels(params, part, _required(root)) for part in (*params.train, *params.test)]
    count = labels[0].shape[1] if params.several else 1 + max(int(a.max()) for a in labels)
    if params.classes and len(params.classes) != count:
        raise DataError(
            f"dataset {NAME!r}: {len(params.classes)} classes are named, and {params.file} has "
            f"{count}: name each, in the order of the indices"
        )
    return params.classes or tuple(map(str, range(count)))


def _items(params: NpzParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    parts: Sequence[Part] = params.train if split == "train" else params.test
    arrays = [_arrays(params, part, root) for part in parts]
    images = [image for array in arrays for image in array.images]
    keys = [f"{part}-{i}" for part, array in zip(parts, arrays, strict=True)
            for i in range(len(array.labels))]  # fmt: skip
    labels = np.concatenate([array.labels for array in arrays])
    return DatasetItems(labels, np.array(keys, str), images.__getitem__)


def _by_params(params: NpzParams) -> dict[str, Any]:
    return {"task": "multi-label", "metric": "auc"} if params.several else {}


# --- arrays -------------------------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, NAME, "a folder with a file of NumPy's, such as pathmnist.npz")


def _arrays(params: NpzParams, part: Part, root: Path) -> _Arrays:
    labels = _labels(params, part, root)
    images = _array(params, f"{part}_images", root)
    if images.dtype != np.uint8 or images.ndim not in {3, 4} or images.shape[3:] not in (
        (), (1,), (3,), (4,),
    ):  # fmt: skip
        raise DataError(
            f"dataset {NAME!r}: {part}_images of {params.file} is {images.dtype} {images.shape}, "
            "expected uint8 (N, H, W) or (N, H, W, C) with C of 1, 3 or 4; volumes are not images"
        )
    if len(images) != len(labels):
        raise DataError(
            f"dataset {NAME!r}: {params.file} has {len(images)} {part}_images and {len(labels)} "
            f"{part}_labels: one label an image"
        )
    return _Arrays(images, labels)


def _labels(params: NpzParams, part: Part, root: Path) -> np.ndarray:
    """Labels int64 (N,), or float32 (N, L) where an image has several."""
    labels = _array(params, f"{part}_labels", root)
    columns = labels.shape[1] if labels.ndim == 2 else 1
    if labels.ndim not in {1, 2} or not labels.size or labels.dtype.kind not in "iufb":
        raise DataError(
            f"dataset {NAME!r}: {part}_labels of {params.file} is {labels.dtype} {labels.shape}, "
            "expected numbers (N,), (N, 1) or (N, L)"
        )
    if columns > 1 and not params.several:
        raise DataError(
            f"dataset {NAME!r}: {part}_labels of {params.file} has {columns} columns: set several "
            "to true, where each is a label of 0 or 1"
        )
    if params.several:
        if not np.isin(labels, (0, 1)).all():
            raise DataError(
                f"dataset {NAME!r}: {part}_labels of {params.file} has other values than 0 and 1: "
                "set several to false, where they are indices of classes"
            )
        return labels.reshape(len(labels), -1).astype(np.float32)
    indices = labels.reshape(-1)
    if (indices < 0).any() or (indices != np.floor(indices)).any():
        raise DataError(
            f"dataset {NAME!r}: {part}_labels of {params.file} has other values than 0, 1, 2, ...: "
            "classes are counted from 0"
        )
    return indices.astype(np.int64)


def _array(params: NpzParams, name: str, root: Path) -> np.ndarray:
    path = root / params.file
    if not path.is_file():
        raise DataError(
            f"dataset {NAME!r}: there is no file {printable(str(path))}; "
            f"{content_of_folder(path.parent)}"
        )
    try:
        # Not by its path: of a broken file NumPy would leave it open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if name in arrays:
                array: np.ndarray = arrays[name]
                return array
            present = ", ".join(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"dataset {NAME!r}: {printable(str(path))} cannot be read ({error}): get it again"
        ) from error
    raise DataError(f"dataset {NAME!r}: {params.file} has no {name}; it has {present}")


NPZ = DatasetSpec(
    name=NAME,
    version=1,
    summary="A .npz file with train, val and test images and labels, as MedMNIST's",
    source="your own file; MedMNIST: Yang et al., Scientific Data 2023, arXiv 2110.14795, files at "
    "https://medmnist.com",
    license="that of your file; most of MedMNIST is CC-BY-4.0",
    params=NpzParams,
    items=_items,
    classes=_classes,
    channels=3,
    grouping="image",
    needs_root=True,
    by_params=_by_params,
)
