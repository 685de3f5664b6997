"""A dataset in one file: striped images, lying or standing."""

import numpy as np

from transferbench.hookspecs import hookimpl
from transferbench.specs import DatasetSpec, DatasetSplit


def load(params, split, root, image_size):  # noqa: ARG001  # what every loader is given
    size = {"train": 64, "test": 32}[split]
    random = np.random.default_rng(size)
    labels = random.integers(0, 2, size)
    phase = random.integers(0, 4, (size, 1, 1))
    rows, columns = np.indices((image_size, image_size))
    across = np.where(labels[:, None, None] == 0, rows, columns)
    ink = random.integers(128, 256, (size, image_size, image_size))
    images = np.where((across + phase) // 2 % 2, ink, 0).astype(np.uint8)[..., None]
    return DatasetSplit(images, labels, np.array([f"{split}-{item}" for item in range(size)]))


@hookimpl
def transferbench_datasets():
    about = {"summary": "stripes that lie or stand", "source": "drawn here", "license": "CC0-1.0"}
    names = ("lying", "standing")
    shape = {"channels": 1, "grouping": "each image alone"}
    yield DatasetSpec(
        name="my-data", version=1, **about, **shape, load=load, classes=lambda params, root: names
    )
