"""Scans of handwritten digits, 8x8 in 17 greys, that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transferbench.specs import DatasetSpec, DatasetSplit, NoParams
from transferbench_plugins.datasets._resample import resize_grey

__all__ = ["DIGITS"]

TEST_IMAGES = 360
"""The last 360 of 1,797 in scikit-learn's order.

Who wrote what is not kept, but neighbours in that order are often of one hand: of two images of a
class, next ones differ 14 to 30% less (Euclidean) than random ones. So a tail, not a draw.
"""

EMPTY_CELLS = 2
"""On each side: a scan fills its 8x8 cells, and 8 of 12 is near the frame of MNIST (20 of 28)."""


def _classes(params: NoParams, root: Path | None) -> tuple[str, ...]:  # noqa: ARG001  # protocol
    return tuple("0123456789")


def _load(params: NoParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    from sklearn.datasets import load_digits  # listing plugins stays fast

    bunch = load_digits()
    border = len(bunch.target) - TEST_IMAGES
    chosen = slice(border, None) if split == "test" else slice(border)
    grey = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    framed = np.pad(grey, [(0, 0), (EMPTY_CELLS, EMPTY_CELLS), (EMPTY_CELLS, EMPTY_CELLS)])
    labels = bunch.target[chosen].astype(np.int64)
    groups = np.arange(len(bunch.target), dtype=np.int64)[chosen]
    return DatasetSplit(resize_grey(framed, image_size), labels, groups)


DIGITS = DatasetSpec(
    name="digits",
    version=1,
    summary="1,797 scans of handwritten digits, 8x8 grey in a frame, resized bicubically",
    source="E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; "
    "the copy in scikit-learn",
    license="BSD-3-Clause (scikit-learn); CC-BY-4.0 (UCI)",
    load=_load,
    classes=_classes,
    channels=1,
    grouping="image (the writers are not known)",
)
