"""Images and group keys that two splits, or two datasets, have in common.

Two images are the same where all their decoded values are: as a network sees them.

Shape letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "DIGEST_BYTES",
    "Common",
    "common_images",
    "common_keys",
    "copied_images",
    "image_digests",
    "is_blank",
    "joined_groups",
    "repeated_images",
]

DIGEST_BYTES = 16
"""Of the sha256 of an image: among 10 million images two differ and agree with p < 1e-24."""


class Common(NamedTuple):
    """What of one array of values is also in another.

    ``total``: of its entries that are in the other. ``here``, ``there``: the positions of the first
    of them, and of the same in the other; -1 where there is none.
    """

    total: int
    here: int = -1
    there: int = -1


def image_digests(images: np.ndarray) -> np.ndarray:
    """A digest of the values of each image.

    Shapes: uint8 (N, H, W, C) to bytes of DIGEST_BYTES (N,).
    """
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    joined = b"".join(hashlib.sha256(row.data).digest()[:DIGEST_BYTES] for row in rows)
    return np.frombuffer(joined, f"S{DIGEST_BYTES}")


def common_images(
    digests: np.ndarray, others: np.ndarray, image_shape: Iterable[int]
) -> tuple[Common, int]:
    """The images that are also among ``others``, and how many blank ones are, which it leaves out.

    An image whose values are all the same is an empty page or a lost tile: that two are equal says
    nothing. Shapes: digests (N,), of images of shape ``image_shape`` (H, W, C).
    """
    shared = _among(digests, others)
    left_out = shared & is_blank(digests, image_shape)
    return _first(digests, others, shared & ~left_out), int(left_out.sum())


def copied_images(
    groups: np.ndarray, digests: np.ndarray, image_shape: Iterable[int]
) -> np.ndarray:
    """Which images are equal to one of another group; blank ones never are.

    Shapes: groups (N,), digests (N,), of images of shape ``image_shape`` (H, W, C), to bool (N,).
    """
    _, image_of, counts = np.unique(digests, return_inverse=True, return_counts=True)
    repeated = (counts > 1)[image_of]
    if repeated.any():
        repeated &= ~is_blank(digests, image_shape)
    keys_of: defaultdict[int, set[object]] = defaultdict(set)
    for position in np.flatnonzero(repeated):
        keys_of[int(image_of[position])].add(groups[position].item())
    several = [image for image, keys in keys_of.items() if len(keys) > 1]
    return np.isin(image_of, several)


def repeated_images(digests: np.ndarray, image_shape: Iterable[int]) -> int:
    """How many images are equal to an earlier one; blank ones never are.

    Shapes: digests (N,), of images of shape ``image_shape`` (H, W, C).
    """
    images, counts = np.unique(digests, return_counts=True)
    if not (counts > 1).any():
        return 0
    counts = counts[~is_blank(images, image_shape)]
    return int((counts - 1).sum())


def joined_groups(
    groups: np.ndarray, digests: np.ndarray, image_shape: Iterable[int]
) -> np.ndarray:
    """The groups, where those that have an equal image are one, called as the first of them.

    Shapes: as ``copied_images``, to (N,).
    """
    parents: dict[Any, Any] = {}

    def root(key: Any) -> Any:
        while parents.get(key, key) != key:
            key = parents[key]
        return key

    first: dict[bytes, Any] = {}
    for position in np.flatnonzero(copied_images(groups, digests, image_shape)):
        key = groups[position].item()
        pair = root(key), root(first.setdefault(digests[position], key))
        parents[max(pair)] = min(pair)
    return np.array([root(key) for key in groups.tolist()], groups.dtype)


def common_keys(keys: np.ndarray, others: np.ndarray) -> Common:
    """The distinct keys that are also among ``others``, compared as text."""
    texts, other_texts = keys.astype(str, copy=False), others.astype(str, copy=False)
    common = _first(texts, other_texts, _among(texts, other_texts))
    both = set(texts.tolist()).intersection(other_texts.tolist()) if common.total else ()
    return common._replace(total=len(both))


def is_blank(digests: np.ndarray, image_shape: Iterable[int]) -> np.ndarray:
    """Which images, of shape ``image_shape`` (H, W, C), have one value. Shapes: (N,) to (N,)."""
    return np.isin(digests, _blank_digests(tuple(image_shape)))


def _among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of ``values`` is among ``others``. Rejected: ``np.isin``, slower for text."""
    available = set(others.tolist())
    return np.array([value in available for value in values.tolist()])


@cache
def _blank_digests(image_shape: tuple[int, ...]) -> np.ndarray:
    blank = (np.full((1, *image_shape), value, np.uint8) for value in range(256))
    return np.concatenate([image_digests(image) for image in blank])


def _first(values: np.ndarray, others: np.ndarray, shared: np.ndarray) -> Common:
    positions = np.flatnonzero(shared)
    if not len(positions):
        return Common(0)
    there = np.flatnonzero(others == values[positions[0]])
    return Common(len(positions), int(positions[0]), int(there[0]))
