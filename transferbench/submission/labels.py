"""The true labels of test images: pinned for the suites of boards, by their digest.

A line of the file ``TEST_LABELS`` is ``BOARD TARGET FINGERPRINT DIGEST``: of a target of a suite,
on the decoded data of this fingerprint, the digest of the items and labels of its test subset. It
comes from the dataset itself, as ``transferbench leaderboard labels SUITE`` prints it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.integrity import scored_rows
from transferbench.suite.published import KnownSuites

__all__ = ["check_labels_are_pinned", "labels_digest"]


def labels_digest(items: np.ndarray, labels: np.ndarray) -> str:
    """The sha256 of the positions and labels of test images.

    Shapes: items (N,), labels (N,) of classes, or (N, L) of 0, 1 and NaN or -1 for unknown.
    """
    if labels.dtype.kind == "f":
        labels = np.nan_to_num(labels, nan=-1)
    content = hashlib.sha256(np.ascontiguousarray(items, "<i8").tobytes())
    content.update(str(labels.shape).encode())
    content.update(np.ascontiguousarray(labels, "<i4").tobytes())
    return content.hexdigest()


def check_labels_are_pinned(bundle: Bundle, suites: KnownSuites) -> Iterator[Problem]:
    """The test items and labels of each target are those of its dataset, as pinned."""
    board, digests = bundle.submission.board, {}
    for row in scored_rows(bundle.records):
        job, trial = bundle.plan.by_id.get(row.job), bundle.predictions.get(row.job)
        if job is not None and trial is not None and row.target not in digests:
            data = job.payload["dataset"]["fingerprint"]
            digests[row.target] = data, labels_digest(trial.items, trial.labels)
    for target, (data, digest) in sorted(digests.items()):
        pinned = suites.labels(board, target).get(data)
        if pinned is None:
            why = f"the labels of {target} are not pinned for the data {data[:12]}: only reported"
            yield Problem(why, warning=True)
        elif pinned != digest:
            yield Problem(f"the labels of {target} are not those of its dataset")
