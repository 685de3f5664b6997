"""The statement of scope: what the verdicts and intervals of a suite hold for, and what not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from transferbench.claims.families import family_of
from transferbench.measurements import Measurements
from transferbench.suite import TRIAL, Suite

__all__ = ["image_counts", "scope_of"]

TEST_METRIC = "test_metric"

LEVELS = (
    "Levels: a claim is decided by a two-sided 95% interval, 2.5% on each side; a control within a "
    "margin by two one-sided tests at 2.5%; the families of one entry after Holm's correction at "
    "5%, without a correction for the number of entries."
)


def image_counts(measurements: Measurements) -> dict[str, int]:
    """The number of test images of each target, from the trials' test metrics."""
    rows = measurements.select(diagnostic=TRIAL, metric=TEST_METRIC)
    return {
        str(target): max(int(n) for n in group.labels("n"))
        for (target,), group in rows.groups("target").items()
    }


def scope_of(suite: Suite, images: Mapping[str, int], external: Collection[str]) -> Iterator[str]:
    """Source networks, test sets, replicates, what an interval covers, levels and families.

    ``images``: the test images of each target. ``external``: the entries with external weights.
    """
    yield _sources(suite, external)
    yield _test_sets(suite, images)
    yield _replicates(suite)
    yield _coverage(suite)
    yield LEVELS
    if suite.claims:
        yield _claims(suite)


def _sources(suite: Suite, external: Collection[str]) -> str:
    used = {use.source for use in suite.initializations.values()}
    parts = []
    for label, source in sorted(suite.sources.items()):
        if label in used:
            count = source.networks
            networks = (
                "one network, shared by all replicates" if count == 1
                else f"{count} networks, of which replicate k starts from number k modulo {count}"
            )  # fmt: skip
            parts.append(f"{label} ({source.dataset.name}): {networks}")
    text = f"Source networks: {'; '.join(parts) or 'none'}."
    if external:
        names = ", ".join(sorted(external))
        text += f" External weights are one network each, which no interval covers: {names}."
    return text


def _test_sets(suite: Suite, images: Mapping[str, int]) -> str:
    parts = []
    for label, target in sorted(suite.targets.items()):
        count = f", {images[label]:,} images" if label in images else ""
        parts.append(f"{label} ({target.dataset.name}{count})")
    return f"Test sets: {'; '.join(parts)}; the same images for every network of a target."


def _replicates(suite: Suite) -> str:
    own = sorted({grid.replicates for grid in suite.trials if grid.replicates is not None})
    more = f"; {', '.join(map(str, own))} of some rows" if own else ""
    return f"Replicates: {suite.replicates} of every trial{more}, each with its own seeds."


def _coverage(suite: Suite) -> str:
    over = "what other seeds of the target trainings would give"
    fixed = "the one source network and the test images"
    if suite.networks > 1:
        over += ", and another pre-training where arms start from several source networks"
        fixed = "the test images"
    return (
        f"Intervals: 95%; they cover {over}. They are conditional on {fixed}, and say nothing of "
        "other datasets, backbones or recipes."
    )


def _claims(suite: Suite) -> str:
    own = {label: claim for label, claim in suite.claims.items() if not claim.control}
    families = {family_of(label, claim.family, claim.source) for label, claim in own.items()}
    controls = len(suite.claims) - len(own)
    return f"Claims: {len(own)} in {len(families)} families; controls: {controls}."
