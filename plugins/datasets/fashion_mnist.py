"""Fashion-MNIST: 70,000 images of clothes, from the four idx files of its official layout."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from transferbench.data.cache import read_file
from transferbench.errors import DataError
from transferbench.specs import DataFile, DatasetSpec, DatasetSplit, NoParams
from transferbench_plugins.datasets._paths import required
from transferbench_plugins.datasets._resample import resize_grey

__all__ = ["FASHION_MNIST", "load_idx", "parse_idx"]

ORIGIN = (
    "https://github.com/zalandoresearch/fashion-mnist (data/fashion), or from Debian's package "
    "dataset-fashion-mnist, which puts them in /usr/share/datasets/fashion-mnist "
    "(apt-get install dataset-fashion-mnist, then --data-root /usr/share/datasets)"
)


def _file(path: str, size_bytes: int, sha256: str) -> DataFile:
    """``sha256`` is of the uncompressed content: Debian compresses the files again."""
    return DataFile(path=path, sha256=sha256, size_bytes=size_bytes, origin=ORIGIN)


TRAIN_FILES = (
    _file(
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    _file(
        "train-labels-idx1-ubyte",
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
)
TEST_FILES = (
    _file(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    _file(
        "t10k-labels-idx1-ubyte",
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def parse_idx(data: bytes, axes: int, name: str) -> np.ndarray:
    """The unsigned bytes of an idx file with ``axes`` axes.

    Source: http://yann.lecun.com/exdb/mnist, "the idx file format": two zero bytes, the type
    (8: unsigned byte), the number of axes, each length as a big-endian 32-bit integer, values.
    """
    magic = bytes([0, 0, 8, axes])
    header = 4 + 4 * axes
    if data[:4] != magic:
        raise DataError(f"{name}: expected the idx magic {magic.hex()}, found {data[:4].hex()!r}")
    if len(data) < header:
        raise DataError(
            f"{name}: expected a header of {header} bytes, found {len(data)}: truncated"
        )
    shape = np.frombuffer(data, ">u4", axes, offset=4).tolist()
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"{name}: expected {expected} bytes for shape {tuple(shape)}, found {len(data)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def load_idx(root: Path, images: DataFile, labels: DataFile) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and labels of one split. Shapes: uint8 (N, H, W), int64 (N,)."""
    pixels = parse_idx(read_file(root, images), 3, images.path)
    classes = parse_idx(read_file(root, labels), 1, labels.path).astype(np.int64)
    if len(pixels) != len(classes):
        raise DataError(
            f"{images.path} has {len(pixels)} images, but {labels.path} has {len(classes)} labels"
        )
    return pixels, classes


def _load(params: NoParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    root = required(root, "fashion-mnist", f"its four files, from {ORIGIN}")
    train = split == "train"
    pixels, labels = load_idx(root, *(TRAIN_FILES if train else TEST_FILES))
    # Counted over both splits, so that no group occurs in both.
    groups = np.arange(len(labels), dtype=np.int64) + (0 if train else 60_000)
    return DatasetSplit(resize_grey(pixels, image_size), labels, groups)


FASHION_MNIST = DatasetSpec(
    name="fashion-mnist",
    version=1,
    summary="70,000 images of clothes, 28x28 grey, in 10 classes with the official split",
    source="H. Xiao, K. Rasul, R. Vollgraf (2017), Fashion-MNIST, arXiv 1708.07747",
    license="MIT",
    load=_load,
    classes=lambda params, root: CLASSES,
    channels=1,
    grouping="image (the articles are not known; no two images are equal)",
    files=(*TRAIN_FILES, *TEST_FILES),
    needs_root=True,
)
