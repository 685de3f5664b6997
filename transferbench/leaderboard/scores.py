"""The values of a submission on the scoring targets of a suite, and the scores from them."""

from __future__ import annotations

from transferbench.measurements import Measurements, ReplicateValues, mean_of
from transferbench.submission import Bundle
from transferbench.suite import TRIAL, Suite

__all__ = ["SubmissionValues", "compared_arms"]


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


class SubmissionValues:
    """The values of one submission, a series over replicates for each arm.

    ``suite``: the one that scores the board, which may have another MINOR than the submission's.
    """

    def __init__(self, suite: Suite, bundle: Bundle) -> None:
        self.suite = suite
        self._rows = Measurements.of_records(
            record
            for record in bundle.records
            if record.target in suite.scoring.chance and not record.coordinates
        )

    def series(self, diagnostic: str, metric: str, arm: str, perturbation: str) -> ReplicateValues:
        """The mean over the scoring targets, at each replicate that has a value on all of them."""
        return mean_of(self._by_target(diagnostic, metric, arm, perturbation))

    def score(self, arm: str) -> ReplicateValues:
        """For each replicate the mean over targets of (value - chance) / (reference - chance)."""
        scoring = self.suite.scoring
        return mean_of(
            [
                {
                    k: (value - scoring.chance[target])
                    / (scoring.reference[target] - scoring.chance[target])
                    for k, value in values.items()
                }
                for target, values in zip(scoring.chance, self._scored(arm), strict=True)
            ]
        )

    def missing_scores(self, arm: str) -> list[str]:
        """The targets and replicates at which an arm has no score."""
        targets, replicates = self.suite.scoring.chance, range(self.suite.replicates)
        return [
            f"{target}, replicate {k}"
            for target, values in zip(targets, self._scored(arm), strict=True)
            for k in replicates
            if k not in values
        ]

    def _scored(self, arm: str) -> list[ReplicateValues]:
        scoring = self.suite.scoring
        return self._by_target(TRIAL, scoring.metric, arm, scoring.perturbation)

    def _by_target(
        self, diagnostic: str, metric: str, arm: str, perturbation: str
    ) -> list[ReplicateValues]:
        rows = self._rows.select(
            diagnostic=diagnostic, metric=metric, initialization=arm, perturbation=perturbation
        )
        return [rows.select(target=target).by_replicate() for target in self.suite.scoring.chance]
