"""The overlap of the targets of a submission with its pre-training, as far as it was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from transferbench.data.perceptual import NearDuplicates, near_duplicates
from transferbench.records import Overlap
from transferbench.submission.bundle import IMAGES, Bundle, Problem
from transferbench.submission.images import ImageSet
from transferbench.submission.integrity import scored_rows
from transferbench.suite.published import KnownSuites

__all__ = ["Shared", "check_overlap_is_computed", "near_sentence", "overlaps_of", "shared_images"]


class Shared(NamedTuple):
    """What the test images of a target have in common with the training images of the sources.

    ``images``: of ``tested`` images, those that are training images, pixel by pixel. ``groups``:
    groups of test images with training images. ``near``: of the other test images.
    """

    tested: int
    images: int
    groups: int
    near: NearDuplicates

    @property
    def leaks(self) -> bool:
        """Whether a test image, or a group of some, was trained on."""
        return self.images + self.groups > 0

    @property
    def text(self) -> str:
        """A sentence on a target."""
        groups = f", and other images of {self.groups} of their groups" if self.groups else ""
        return f"{self.images} of its {self.tested} test images are in the pre-training{groups}"


def shared_images(bundle: Bundle) -> dict[str, Shared]:
    """Target -> what its test images share with the sources; by the submission's own digests.

    Nothing where the submission holds no images, or not those of all that it was trained on.
    """
    training = [bundle.images.get((source, False)) for source in sorted(_sources(bundle))]
    if not training or None in training:
        return {}
    sources = [each for each in training if each is not None]
    tested = {name: bundle.images.get((data, True)) for name, data in _targets(bundle).items()}
    return {name: _shared(own, sources) for name, own in sorted(tested.items()) if own is not None}


def _shared(own: ImageSet, sources: Iterable[ImageSet]) -> Shared:
    among = np.zeros(len(own.items), bool)
    groups: set[int] = set()
    hashes = []
    for source in sources:
        among |= np.isin(own.images, source.images)
        hashes.append(source.hashes)
        if own.groups is not None and source.groups is not None:
            groups.update(np.intersect1d(own.groups, source.groups).tolist())
    near = near_duplicates(own.hashes[~among], np.concatenate(hashes))
    return Shared(len(own.items), int(among.sum()), len(groups), near)


def near_sentence(shared: Mapping[str, Shared]) -> str:
    """How many of the test images that are not equal to any have a near duplicate."""
    counts = (f"{own.near.near} of {own.near.compared} of {target}"
              for target, own in shared.items())  # fmt: skip
    return f"test images with a near duplicate in the pre-training: {', '.join(counts)}"


def check_overlap_is_computed(
    bundle: Bundle, suites: KnownSuites, shared: Callable[[], Mapping[str, Shared]]
) -> Iterator[Problem]:
    """No overlap is denied that the datasets have; a "no" that nobody computed is told.

    What external weights were trained on only the submitter knows.
    """
    yield from _other_images(bundle)
    if bundle.submission.entry.weights is not None:
        return
    declared = bundle.submission.declaration.overlap
    computed, own = _computed(bundle, suites), shared()
    for target, word in sorted(declared.items()):
        if target in own and own[target].leaks:
            why, denied = f"{target}: {own[target].text}", word != "yes"
            yield Problem(f"{why}; its overlap is declared {word}" if denied else why,
                          warning=not denied)  # fmt: skip
        elif computed.get(target) == "yes" != word:
            yield Problem(
                f"overlap with {target} is declared {word}, but its images or groups are among the"
                " training images of a source"
            )
        elif word == "no" and computed.get(target, "unknown") == "unknown":
            why = (
                f"no overlap with {target} is declared, and was not computed from datasets that are"
                " known here: it counts as unknown"
            )
            yield Problem(why, warning=True)


def _other_images(bundle: Bundle) -> Iterator[Problem]:
    """Images of other data than that of the plan, or that no trial was tested on."""
    predicted: dict[str, list[np.ndarray]] = {}
    for row in scored_rows(bundle.records):
        job, trial = bundle.plan.by_id.get(row.job), bundle.predictions.get(row.job)
        if job is not None and trial is not None:
            predicted.setdefault(job.payload["dataset"]["fingerprint"], []).append(trial.items)
    sources = _sources(bundle)
    for (data, test), own in sorted(bundle.images.items()):
        if data not in (predicted if test else sources):
            what = "tests on" if test else "trains its sources on"
            yield Problem(f"{IMAGES} has images of {data[:12]!a}, which no job {what}")
        elif test and not np.isin(own.items, np.concatenate(predicted[data])).all():
            yield Problem(f"{IMAGES} has test images of {data[:12]} that no trial was tested on")


def overlaps_of(
    bundle: Bundle, suites: KnownSuites, shared: Mapping[str, Shared] | None = None
) -> dict[str, Overlap]:
    """Target -> what a board says: with the suite's sources as computed, else as declared.

    The digests of a submission show an overlap; that there is none they show of honest ones only.
    """
    declared = bundle.submission.declaration.overlap
    if bundle.submission.entry.weights is not None:
        return dict(declared)
    computed, own = _computed(bundle, suites), shared or {}
    return {
        target: "yes" if word == "yes" or (target in own and own[target].leaks)
        else computed.get(target, "unknown")
        for target, word in declared.items()
    }  # fmt: skip


def _sources(bundle: Bundle) -> set[str]:
    """The fingerprints of the data that sources were trained on."""
    return {job.payload["dataset"]["fingerprint"]
            for job in bundle.plan.jobs if job.kind == "pretrain"}  # fmt: skip


def _targets(bundle: Bundle) -> dict[str, str]:
    """Target -> the fingerprint of its data."""
    data = {}
    for row in scored_rows(bundle.records):
        if (job := bundle.plan.by_id.get(row.job)) is not None:
            data[row.target] = str(job.payload["dataset"]["fingerprint"])
    return data


def _computed(bundle: Bundle, suites: KnownSuites) -> dict[str, Overlap]:
    """Target -> ``yes`` or ``no`` where it is pinned for all sources of the plan, else unknown."""
    sources = _sources(bundle)
    words: dict[str, Overlap] = {}
    for target, own in _targets(bundle).items():
        pinned = suites.overlaps(bundle.submission.board, target)
        answers = {pinned.get((own, source)) for source in sources}
        words[target] = "yes" if "yes" in answers else "no" if answers == {"no"} else "unknown"
    return words
