"""A submission on a board: its values on the scoring targets of the suite, and its scores."""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import numpy as np

from transferbench.measurements import Measurements, MetricRanges, ReplicateValues, mean_of
from transferbench.statistics import Range, covered
from transferbench.submission import CheckReport, chance_levels
from transferbench.suite import TRIAL, Suite

__all__ = ["Candidate", "EntryKey", "compared_arms"]

EntryKey: TypeAlias = tuple[str, str | None]
"""A backbone, and the digest of its external weights, or their tag: ranked once on a board."""


def compared_arms(suite: Suite) -> tuple[str, ...]:
    """The arms that a board of ``suite`` compares, the scored one and its baseline at least."""
    scoring = suite.scoring
    if scoring.ranks == "entries":
        return scoring.initialization, scoring.baseline
    # Sorted: the suite of a submission has lost its own order.
    return tuple(
        arm
        for arm in sorted(suite.initializations)
        if all(suite.trains(target, scoring.perturbation, arm) for target in scoring.chance)
    )


class Candidate:
    """A submission that passed its check.

    ``suite``: the one that scores the board, which may have another MINOR than the submission's.
    ``ranges``: of what it measures.
    """

    def __init__(self, report: CheckReport, suite: Suite, ranges: MetricRanges) -> None:
        bundle, trust = report.content, report.trust
        self.bundle = bundle
        self.folder = report.folder
        self.origins = report.origins
        self.overlaps = report.overlaps
        self.shared = report.shared
        self.head = bundle.submission
        self.trust = trust
        self.suite = suite.with_chance(chance_levels(bundle))
        self._ranges = ranges

    @property
    def entry(self) -> EntryKey:
        """The entry that it is a submission of."""
        entry = self.head.entry
        weights = entry.weights
        return entry.weightless_name, (weights.sha256 or weights.tag) if weights else None

    def series(self, diagnostic: str, metric: str, arm: str, perturbation: str) -> ReplicateValues:
        """The mean over the scoring targets, at each replicate that has a value on all of them."""
        return mean_of(self.by_target(diagnostic, metric, arm, perturbation))

    def networks(self, diagnostic: str, metric: str, *arms: str) -> int:
        """The source networks that the replicates of these arms start from; 1 of a single one."""
        rows = self._rows.select(diagnostic=diagnostic, metric=metric, initialization=arms)
        return rows.networks

    def ends(self, diagnostic: str, metric: str) -> Range | None:
        """The least and the largest value of a metric, where they are known."""
        return self._rows.select(diagnostic=diagnostic, metric=metric).bounds

    def covers(self, arm: str) -> str:
        """What the intervals of an arm cover; ``given P`` where it starts from one network."""
        scoring, jobs = self.suite.scoring, self.bundle.plan.by_id
        networks = self.networks(TRIAL, scoring.metric, arm)
        words = covered(sorted(self.score(arm)), networks)
        rows = self._rows.select(diagnostic=TRIAL, metric=scoring.metric, initialization=arm)
        starts = [jobs[job].payload["initialization"] for job in rows.distinct("job")]
        one_p = networks == 1 and any({"source", "weights"} & start.keys() for start in starts)
        return f"{words}, given P" if one_p else words

    def score(self, arm: str) -> ReplicateValues:
        """For each replicate the mean over targets of (value - chance) / (reference - chance)."""
        scoring = self.suite.scoring
        scores = []
        for target, values in zip(scoring.chance, self._scored(arm), strict=True):
            chance, reference = scoring.chance_of(target), scoring.reference[target]
            if chance is None or chance == reference:
                return {}
            scores.append({k: (v - chance) / (reference - chance) for k, v in values.items()})
        return mean_of(scores)

    @property
    def score_ends(self) -> Range | None:
        """The least and the largest score, of a metric that has them."""
        scoring, metric = self.suite.scoring, self.ends(TRIAL, self.suite.scoring.metric)
        if metric is None:
            return None
        scores = []
        for target in scoring.chance:
            chance, reference = scoring.chance_of(target), scoring.reference[target]
            if chance is None or chance == reference:
                return None
            scores.append(sorted((end - chance) / (reference - chance) for end in metric))
        least, largest = np.mean(scores, axis=0)
        return float(least), float(largest)

    def missing_scores(self, arm: str) -> list[str]:
        """The targets and replicates at which an arm has no score."""
        suite, perturbation = self.suite, self.suite.scoring.perturbation
        return [
            f"{target}, replicate {k}"
            for target, values in zip(suite.scoring.chance, self._scored(arm), strict=True)
            # Where the suite does not train the arm, all of its replicates are missing.
            for k in range(suite.replicates_in(target, perturbation, arm) or suite.replicates)
            if k not in values
        ]

    def _scored(self, arm: str) -> list[ReplicateValues]:
        scoring = self.suite.scoring
        return self.by_target(TRIAL, scoring.metric, arm, scoring.perturbation)

    def by_target(
        self, diagnostic: str, metric: str, arm: str, perturbation: str
    ) -> list[ReplicateValues]:
        """The values on each scoring target, in the order of the suite."""
        rows = self._rows.select(
            diagnostic=diagnostic, metric=metric, initialization=arm, perturbation=perturbation
        )
        return [rows.select(target=target).by_replicate() for target in self.suite.scoring.chance]

    @cached_property
    def _rows(self) -> Measurements:
        return Measurements.of_records(
            (
                record
                for record in self.bundle.records
                if record.target in self.suite.scoring.chance and not record.coordinates
            ),
            self._ranges,
        )
