"""The test items that several networks answered: a pair is compared item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transferbench.errors import SuiteError
from transferbench.specs import Subject

__all__ = ["shared_labels"]


def shared_labels(subjects: Sequence[Subject]) -> np.ndarray:
    """The labels that all subjects have: int64 (N,) or float32 (N, L).

    Raises: ``SuiteError`` naming the two jobs whose labels differ.
    """
    first, *others = subjects
    for other in others:
        if not np.array_equal(first.labels, other.labels):
            raise SuiteError(
                f"jobs {first.job} and {other.job} were tested on different items "
                f"({len(first.labels)} and {len(other.labels)}, or other labels); compare trials "
                "of one target and one perturbation"
            )
    return first.labels
