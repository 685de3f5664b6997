"""Warnings on the data of entries: leaks, and submissions that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.table import SHORT_ID
from transferbench.submission.images import differing
from transferbench.submission.integrity import scored_rows
from transferbench.submission.overlap import near_sentence
from transferbench.submission.predictions import Predictions

__all__ = ["contradictions", "leaks"]


def leaks(candidates: Iterable[Candidate]) -> Iterator[str]:
    """A line on each target whose test images, or groups, an entry was trained on before."""
    for candidate in candidates:
        label, shared = candidate.head.entry.label, candidate.shared
        for target, own in shared.items():
            if own.leaks:
                yield f"{label}, {target}: {own.text}."
        near = {target: own for target, own in shared.items() if own.near.near}
        if near:
            yield f"{label}: {near_sentence(near)}."


def contradictions(candidates: Sequence[Candidate]) -> Iterator[str]:
    """A line on two submissions that say different things of the same images of a dataset.

    One of them is not what its datasets give; where labels are pinned, such a one is refused.
    """
    tested = {candidate.head.id: _tested(candidate) for candidate in candidates}
    for first, second in combinations(candidates, 2):
        pair = (
            f"{first.head.entry.label} ({first.head.id[:SHORT_ID]}) and "
            f"{second.head.entry.label} ({second.head.id[:SHORT_ID]})"
        )
        own, other = tested[first.head.id], tested[second.head.id]
        for target, data in sorted(own.keys() & other.keys()):
            if not _same_labels(own[target, data], other[target, data]):
                yield f"{pair} have different true labels of {target}: one of them is wrong."
        for data in differing(first.bundle.images, second.bundle.images):
            yield f"{pair} have different images of the data {data[:12]}: one of them is wrong."


def _tested(candidate: Candidate) -> dict[tuple[str, str], Predictions]:
    """By target and fingerprint of its data, the predictions of one trial."""
    bundle = candidate.bundle
    return {
        (row.target, str(bundle.plan.by_id[row.job].payload["dataset"]["fingerprint"])): trial
        for row in scored_rows(bundle.records)
        if (trial := bundle.predictions.get(row.job)) is not None
    }


def _same_labels(first: Predictions, second: Predictions) -> bool:
    _, here, there = np.intersect1d(first.items, second.items, return_indices=True)
    own, other = (np.nan_to_num(trial.labels.astype(np.float64), nan=-1)[rows]
                  for trial, rows in ((first, here), (second, there)))  # fmt: skip
    return np.array_equal(own, other)
