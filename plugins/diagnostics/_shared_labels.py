"""The labels of the test set that a pair of trials must share to be compared item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transferbench.errors import SuiteError
from transferbench.specs import Subject, SubmittedTrial

__all__ = ["shared_labels"]


def shared_labels(subjects: Sequence[Subject | SubmittedTrial]) -> np.ndarray:
    """The test labels of all subjects: int64 (N,), or float32 (N, L) with NaN for unknown ones.

    Raises: ``SuiteError`` naming the two jobs whose labels differ.
    """
    first, *rest = subjects
    for subject in rest:
        if not np.array_equal(first.labels, subject.labels, equal_nan=True):
            raise SuiteError(
                f"jobs {first.job} and {subject.job} were tested on different items "
                f"({len(first.labels)} and {len(subject.labels)}, or other labels); compare trials "
                "of one target and one perturbation"
            )
    return first.labels
