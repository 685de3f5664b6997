"""A test split selected by a hash of the groups' keys, so that new pictures move no other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["hashed_split", "hashed_test"]


def hashed_split(group: str, test_share: float) -> str:
    """The split of a group where no split is published: ``train`` or ``test``."""
    return "test" if _hash_fraction(group) < test_share else "train"


def hashed_test(groups: Sequence[str], test_share: float) -> np.ndarray:
    """Which pictures are for testing. Shapes: bool (N,) for N keys."""
    splits = {group: hashed_split(group, test_share) == "test" for group in set(groups)}
    return np.array([splits[group] for group in groups], bool)


def _hash_fraction(group: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:13], 16) / 16**13
