"""Scans of handwritten digits, 8x8 in 17 grey levels, from scikit-learn."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from transferbench.errors import DataError
from transferbench.specs import DatasetSpec, DatasetSplit, NoParams
from transferbench_plugins.datasets._resample import resize_grey

__all__ = ["DIGITS"]

TEST_IMAGES = 360
"""The last 360 of 1,797 in scikit-learn's order, not a random draw.

The writers are unknown, but neighbours in that order often have the same writer: consecutive images
of a class differ 14 to 30% less (Euclidean) than random ones.
"""

PADDING = 2
"""Pixels on each side: a scan fills its 8x8 pixels; 8 of 12 is close to MNIST's 20 of 28."""


def _load(params: NoParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    from sklearn.datasets import load_digits  # slow to import

    try:
        bunch = load_digits()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"dataset 'digits': the copy in scikit-learn cannot be read ({error}): reinstall "
            "scikit-learn"
        ) from error
    border = len(bunch.target) - TEST_IMAGES
    rows = slice(border, None) if split == "test" else slice(border)
    grey = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    padded = np.pad(grey, [(0, 0), (PADDING, PADDING), (PADDING, PADDING)])
    labels = bunch.target[rows].astype(np.int64)
    groups = np.arange(len(bunch.target), dtype=np.int64)[rows]
    return DatasetSplit(resize_grey(padded, image_size), labels, groups)


DIGITS = DatasetSpec(
    name="digits",
    version=1,
    summary="1,797 scans of handwritten digits, 8x8 grey with padding, resized bicubically",
    source="E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; "
    "the copy in scikit-learn",
    license="BSD-3-Clause (scikit-learn); CC-BY-4.0 (UCI)",
    load=_load,
    classes=lambda params, root: tuple("0123456789"),
    channels=1,
    grouping="image (the writers are not known)",
)
