"""Datasets of torchvision, as ``torchvision/CIFAR10``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.data.folders import printable
from transferbench.errors import DataError, UnknownNameError
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._hash_split import hashed_test
from transferbench_plugins.datasets._paths import required

__all__ = ["TORCHVISION", "TorchvisionParams"]

NAME = "torchvision"


class _Class(NamedTuple):
    """How a class of torchvision is read.

    ``labels``: its attribute with the labels. ``train``, ``test``: the arguments of each split;
    empty where it has one split alone.
    """

    labels: str
    train: Mapping[str, Any] = {}
    test: Mapping[str, Any] = {}


_BOOL = {"train": {"train": True}, "test": {"train": False}}
_TEXT = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAINVAL = {"train": {"split": "trainval"}, "test": {"split": "test"}}
KNOWN_CLASSES: Mapping[str, _Class] = {
    "CIFAR10": _Class("targets", **_BOOL),
    "CIFAR100": _Class("targets", **_BOOL),
    "Caltech101": _Class("y"),
    "Caltech256": _Class("y"),
    "Country211": _Class("targets", **_TEXT),
    "DTD": _Class("_labels", **_TEXT),
    "EuroSAT": _Class("targets"),
    "FGVCAircraft": _Class("_labels", **_TRAINVAL),
    "FashionMNIST": _Class("targets", **_BOOL),
    "Flowers102": _Class("_labels", **_TEXT),
    "Food101": _Class("_labels", **_TEXT),
    "KMNIST": _Class("targets", **_BOOL),
    "MNIST": _Class("targets", **_BOOL),
    "OxfordIIITPet": _Class("_labels", **_TRAINVAL),
    "QMNIST": _Class("targets", **_BOOL),
    "STL10": _Class("labels", **_TEXT),
    "SUN397": _Class("_labels"),
    "SVHN": _Class("labels", **_TEXT),
    "USPS": _Class("targets", **_BOOL),
}
"""Those that classify single pictures; attributes as of torchvision 0.21 to 0.29."""
UNORDERED = {"SUN397": "_image_files"}
"""Those that list pictures in the order of the file system, and the attribute with their paths."""


class TorchvisionParams(Params):
    """The class of torchvision.

    ``dataset``: its name, ``CIFAR10`` in ``torchvision/CIFAR10``.
    ``test_share``: of datasets without a published split, the share of the pictures for testing,
    selected by a hash of their positions.
    """

    dataset: Annotated[str, Field(min_length=1)]
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2


def _class_of(params: TorchvisionParams) -> _Class:
    if params.dataset not in KNOWN_CLASSES:
        raise UnknownNameError("torchvision dataset", params.dataset, KNOWN_CLASSES)
    return KNOWN_CLASSES[params.dataset]


def _opened(params: TorchvisionParams, split: str, root: Path | None) -> Any:
    """The dataset as torchvision opens it. Raises: ``DataError`` where its files are not there."""
    folder = required(root, NAME, f"the files of {params.dataset}", _folder(params))
    arguments = _class_of(params)._asdict()[split]
    import torchvision.datasets as library  # slow to import

    build = getattr(library, params.dataset)
    try:
        return build(str(folder), **arguments)
    except (RuntimeError, OSError, ValueError) as error:
        shown_arguments = "".join(f", {key}={value!r}" for key, value in arguments.items())
        raise DataError(
            f"dataset '{NAME}/{params.dataset}': torchvision does not open it in "
            f"{printable(str(folder))} ({' '.join(str(error).split())}): download it with python "
            f'-c "import torchvision.datasets as d; d.{params.dataset}({str(folder)!r}'
            f'{shown_arguments}, download=True)"'
        ) from error


def _labels(params: TorchvisionParams, opened: Any) -> np.ndarray:
    labels = getattr(opened, _class_of(params).labels, None)
    if labels is None or len(labels) != len(opened):  # of another version: decodes all
        labels = [opened[i][1] for i in range(len(opened))]
    values = np.asarray(labels).astype(np.int64)
    return values[:, 0] if values.ndim == 2 else values  # QMNIST: the class, then the writer, ...


def _classes(params: TorchvisionParams, root: Path | None) -> tuple[str, ...]:
    opened = _opened(params, "train", root)
    names = getattr(opened, "classes", None) or getattr(opened, "categories", None)
    count = 1 + int(_labels(params, opened).max())
    return (
        tuple(map(str, names)) if names and len(names) >= count else tuple(map(str, range(count)))
    )


def _items(params: TorchvisionParams, split: str, root: Path | None) -> DatasetItems:
    opened = _opened(params, split, root)
    labels = _labels(params, opened)
    published = bool(_class_of(params).train)
    keys = [f"{split if published else 'all'}-{i}" for i in range(len(labels))]
    selected = np.arange(len(labels))
    if not published:
        selected = np.flatnonzero(hashed_test(keys, params.test_share) == (split == "test"))
    positions = _order(params, opened)[selected]

    def read(i: int) -> np.ndarray:
        return np.asarray(opened[int(positions[i])][0].convert("RGB"))

    return DatasetItems(labels[positions], np.array(keys, str)[selected], read)


def _order(params: TorchvisionParams, opened: Any) -> np.ndarray:
    """The positions of all pictures, in an order that is not that of the file system."""
    if params.dataset not in UNORDERED:
        return np.arange(len(opened))
    files = getattr(opened, UNORDERED[params.dataset])
    return np.argsort(np.array([path.as_posix() for path in files]))


def _folder(params: TorchvisionParams) -> str:
    return f"{NAME}/{params.dataset}"


TORCHVISION = DatasetSpec(
    name=NAME,
    version=1,
    summary="A dataset of torchvision, as torchvision/CIFAR10, from the files that it downloads",
    source="https://docs.pytorch.org/vision/stable/datasets.html; each has its own",
    license="that of the dataset",
    params=TorchvisionParams,
    tiny={"dataset": "CIFAR10"},
    items=_items,
    classes=_classes,
    channels=3,
    grouping="picture",
    shared_between_splits="published splits are taken as they are, with any equal pictures in both",
    needs_root=True,
    by_params=lambda params: {"folder": _folder(params)},
    member="dataset",
    members=lambda: tuple(KNOWN_CLASSES),
)
