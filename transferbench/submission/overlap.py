"""The overlap of the targets of a submission with its pre-training, as far as it was computed."""

from __future__ import annotations

from collections.abc import Iterator

from transferbench.records import Overlap
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.integrity import scored_rows
from transferbench.suite.published import KnownSuites

__all__ = ["check_overlap_is_computed", "overlaps_of"]


def check_overlap_is_computed(bundle: Bundle, suites: KnownSuites) -> Iterator[Problem]:
    """No overlap is denied that the datasets have; a "no" that nobody computed is told.

    What external weights were trained on only the submitter knows.
    """
    if bundle.submission.entry.weights is not None:
        return
    declared, computed = bundle.submission.declaration.overlap, _computed(bundle, suites)
    for target, word in sorted(declared.items()):
        if computed.get(target) == "yes" != word:
            yield Problem(
                f"overlap with {target} is declared {word}, but its images or groups are among the"
                " training images of a source"
            )
        elif word == "no" and computed.get(target, "unknown") == "unknown":
            why = (
                f"no overlap with {target} is declared, and was not computed: it counts as unknown"
            )
            yield Problem(why, warning=True)


def overlaps_of(bundle: Bundle, suites: KnownSuites) -> dict[str, Overlap]:
    """Target -> what a board says: with the suite's sources as computed, else as declared."""
    declared = bundle.submission.declaration.overlap
    if bundle.submission.entry.weights is not None:
        return dict(declared)
    computed = _computed(bundle, suites)
    return {
        target: "yes" if word == "yes" else computed.get(target, "unknown")
        for target, word in declared.items()
    }


def _computed(bundle: Bundle, suites: KnownSuites) -> dict[str, Overlap]:
    """Target -> ``yes`` or ``no`` where it is pinned for all sources of the plan, else unknown."""
    sources = {job.payload["dataset"]["fingerprint"]
               for job in bundle.plan.jobs if job.kind == "pretrain"}  # fmt: skip
    data = {}
    for row in scored_rows(bundle.records):
        if (job := bundle.plan.by_id.get(row.job)) is not None:
            data[row.target] = job.payload["dataset"]["fingerprint"]
    words: dict[str, Overlap] = {}
    for target, own in data.items():
        pinned = suites.overlaps(bundle.submission.board, target)
        answers = {pinned.get((own, source)) for source in sources}
        words[target] = "yes" if "yes" in answers else "no" if answers == {"no"} else "unknown"
    return words
