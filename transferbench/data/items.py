"""The images of a dataset whose pictures the framework decodes, in blocks of bounded size.

Shape letters: M images of a block, N images, S side, C channels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from transferbench.data.decoded import ImageBlock, with_channels
from transferbench.data.folders import printable
from transferbench.data.picture_formats import picture_endings
from transferbench.data.pictures import Fit, PictureError, decode
from transferbench.errors import DataError, listing
from transferbench.interrupts import thread_pool
from transferbench.registry import blamed
from transferbench.specs import DatasetItems, DatasetSpec, DatasetSplit, LoadDataset

__all__ = ["decoded_blocks", "decoded_split"]

BLOCK_BYTES = 2**26
"""Of decoded images, about: the memory of decoding, whatever the size of the dataset."""
LISTED_FAULTS = 10
NEXT_LINE = "\n  "


def decoded_split(
    spec: DatasetSpec, params: Any, split: str, root: Path | None, image_size: int
) -> DatasetSplit:
    """One split of centre squares in memory.

    Raises: ``DataError``, and what the plugin raises.
    """
    if spec.items is None:
        return cast("LoadDataset", spec.load)(params, split, root, image_size)
    items = spec.items(params, split, root)
    none = np.empty((0, image_size, image_size, spec.channels), np.uint8)
    blocks = decoded_blocks(spec, split, items, image_size)
    images = np.concatenate([none, *(block.images for block in blocks)])
    return DatasetSplit(images, items.labels, items.groups)


def decoded_blocks(
    spec: DatasetSpec,
    split: str,
    items: DatasetItems,
    image_size: int,
    fit: Fit = "crop",
    start: int = 0,
) -> Iterator[ImageBlock]:
    """The images from position ``start`` on, as many at a time as take ``BLOCK_BYTES``.

    Raises: ``DataError`` with all pictures that cannot be read, after
    the last; ``PluginError`` for what else ``read`` raises.
    """
    picture_endings()  # imports Pillow's plugins, which threads should not do at once
    image_bytes = image_size**2 * 3
    step = max(BLOCK_BYTES // image_bytes, os.cpu_count() or 1)
    faults = list[str]()
    with thread_pool() as pool:
        for first in range(start, len(items.labels), step):
            positions = range(first, min(first + step, len(items.labels)))
            images = np.empty((len(positions), image_size, image_size, 3), np.uint8)
            aspects = np.ones((len(positions), 1), np.float32)
            with (
                blamed(f"dataset {spec.name!r}", part=f", split {split!r},"),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # of odd metadata and of many pixels
                read = partial(_decode, items, fit)
                faults += filter(None, pool.map(read, positions, images, aspects))
            if not faults:
                yield ImageBlock(with_channels(images, spec.channels), aspects[:, 0])
    if faults:
        raise DataError(f"dataset {spec.name!r}: {_unreadable(faults)}")


def _unreadable(faults: Sequence[str]) -> str:
    way_on = "replace or remove " + ("it" if len(faults) == 1 else "them")
    return f"{listing(faults, LISTED_FAULTS, NEXT_LINE)}: {way_on}"


def _decode(
    items: DatasetItems, fit: Fit, position: int, square: np.ndarray, aspect: np.ndarray
) -> str | None:
    """Write a picture and its aspect to the arrays, or say why it cannot be read."""
    name = f"picture {position} ({items.groups[position]})"
    try:
        picture = items.read(position)
        if isinstance(picture, Path):
            name = printable(str(picture))
        square[:], aspect[:] = decode(picture, len(square), fit)
    except (OSError, PictureError) as error:
        return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    return None
