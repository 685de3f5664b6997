"""The submissions of a board: which of each entry is ranked, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from itertools import chain
from statistics import fmean
from types import MappingProxyType
from typing import TypeAlias

from transferbench.errors import UnknownNameError, listing
from transferbench.leaderboard.notes import REPRODUCED_WITHIN
from transferbench.leaderboard.profile import most_severe
from transferbench.leaderboard.scores import Candidate, EntryKey, compared_arms
from transferbench.leaderboard.table import SHORT_ID, Unranked, UnrankedStatus
from transferbench.plan.resolve import left_out_arms, reasons_text, unmeasured_diagnoses
from transferbench.registry import Registry
from transferbench.streams import one_line
from transferbench.submission import CheckReport, Submission
from transferbench.submission.certificate import is_another
from transferbench.submission.withdrawal import Withdrawal
from transferbench.suite.ranges import metric_ranges

__all__ = ["Arm", "Competition", "refused", "withdrawn"]

LONGEST_WHY = 300
"""Characters of a reason."""

Arm: TypeAlias = tuple[Candidate, str]
"""An arm of a candidate."""


class Competition:
    """The ``candidates`` of a board, ``chosen`` and ``superseded``, and the suite that scores them.

    ``names``: of the entries, no two alike. ``accepted``: the reports on submissions of known
    suites of one MAJOR. ``dates``: the day on which each was first on a board, by its folder.
    """

    def __init__(
        self,
        accepted: Sequence[CheckReport],
        registry: Registry,
        dates: Mapping[str, date] = MappingProxyType({}),
    ) -> None:
        bundles = [report.content for report in accepted]
        # Of equal ids the suites are equal: they are known by their digests.
        latest = max(bundles, key=lambda bundle: bundle.submission.minor)
        self.suite = latest.plan.suite
        self.severe = most_severe(self.suite, latest.submission.severities)
        ranges = metric_ranges(self.suite, registry.diagnostics)
        candidates = [Candidate(report, self.suite, ranges) for report in accepted]
        self._dates = dates
        candidates.sort(key=lambda c: (str(c.entry), self.precedence(c)))
        self.chosen: dict[EntryKey, Candidate] = {}
        for candidate in candidates:
            self.chosen.setdefault(candidate.entry, candidate)
        self.superseded = [c for c in candidates if self.chosen[c.entry] is not c]
        self.candidates = [*self.chosen.values(), *self.superseded]
        self.names = _names(self.chosen)
        self.registry = registry

    def precedence(self, candidate: Candidate) -> tuple[int, date, str]:
        """The latest MINOR first, of equals what was first on the board, of one day the first id.

        An id can be tried until it is the first one, a day cannot.
        """
        head = candidate.head
        return -head.minor, self._dates.get(candidate.folder, date.max), head.id

    def trust(self, candidate: Candidate, arm: str) -> str:
        """Reproduced, where another named submitter's own run of this arm has the same score.

        That run must be spot-checked by another than its submitter, and no copy: its predictions
        are not equal to this one's in every bit.
        """
        submitter = candidate.head.declaration.submitter
        for other in self.superseded:
            second = other.head.declaration.submitter
            if other.entry != candidate.entry or not is_another(second, submitter):
                continue
            if other.trust != "spot-checked" or _has_equal_outputs(candidate, other):
                continue
            if other.missing_scores(arm):
                continue
            scores = [fmean(c.score(arm).values()) for c in (candidate, other)]
            if abs(scores[0] - scores[1]) <= REPRODUCED_WITHIN:
                return "reproduced"
        return candidate.trust

    def copies(self) -> Iterator[str]:
        """A warning on each superseded submission with predictions of the ranked one."""
        for other in self.superseded:
            chosen = self.chosen[other.entry]
            if _has_equal_outputs(chosen, other):
                yield (
                    f"{other.head.entry.label}: the submissions {chosen.head.id[:SHORT_ID]} and "
                    f"{other.head.id[:SHORT_ID]} have predictions that are equal bit for bit: "
                    "one may be a copy, and neither reproduces the other."
                )

    def groups(self) -> list[list[Arm]]:
        """The arms that are ranked together."""
        scoring, chosen = self.suite.scoring, self.chosen.values()
        if scoring.ranks == "entries":
            return [[(candidate, scoring.initialization) for candidate in chosen]]
        return [[(candidate, arm) for arm in compared_arms(self.suite)] for candidate in chosen]

    def unranked(self) -> list[Unranked]:
        """The arms that lack a score, and the superseded candidates."""
        rows = [
            _unranked(candidate, "incomplete", self._incomplete(candidate, arm, missing))
            for candidate, arm in chain(*self.groups())
            if (missing := candidate.missing_scores(arm))
        ]
        for candidate in self.superseded:
            head = self.chosen[candidate.entry].head
            why = f"by {head.id[:SHORT_ID]} for {head.suite}"
            rows.append(_unranked(candidate, "superseded", why))
        return rows

    def unmeasured(self) -> Iterator[str]:
        """A line on each entry whose external weights do not allow all diagnoses of P."""
        for candidate in self.chosen.values():
            entry = candidate.head.entry
            with suppress(UnknownNameError):
                reasons = unmeasured_diagnoses(self.suite, entry.weights, self.registry)
                if reasons:
                    yield f"{entry.label}: not measured of P: {reasons_text(reasons)}."

    def _incomplete(self, candidate: Candidate, arm: str, missing: Sequence[str]) -> str:
        """Why an arm of a candidate has no row."""
        of_arms = self.suite.scoring.ranks == "initializations"
        if of_arms:
            weights = candidate.head.entry.weights
            with suppress(UnknownNameError):
                if needs := left_out_arms(self.suite, weights, self.registry).get(arm):
                    return f"{arm} {needs}, which external weights cannot give"
        return f"no score{f' of {arm}' if of_arms else ''} on {listing(missing, 3, '; ')}"


def _names(chosen: Mapping[EntryKey, Candidate]) -> dict[EntryKey, str]:
    """The label of each entry, with the id of its submission where two have one label.

    A label holds part of the digest of external weights, or their tag in other letters.
    """
    heads = {entry: candidate.head for entry, candidate in chosen.items()}
    labels = Counter(head.entry.label for head in heads.values())
    return {
        entry: f"{head.entry.label}{f' ({head.id[:SHORT_ID]})' * (labels[head.entry.label] > 1)}"
        for entry, head in heads.items()
    }


def _unranked(candidate: Candidate, status: UnrankedStatus, why: str) -> Unranked:
    return Unranked(candidate.head.entry.label, candidate.head.id[:SHORT_ID], status, why)


def refused(report: CheckReport) -> Unranked:
    """A submission that failed its check, or is of no known suite."""
    failed = [check for check in report.checks if check.status == "failed"]
    why = "; ".join(f"{check.name}: {_shown(check.why[0])}" for check in failed)
    head = report.bundle and report.bundle.submission
    if not why and head is not None:
        why = (
            f"{head.suite} is not a known suite: a board is of a suite of the package, or of one "
            f"in the folder suites beside that of the submissions, as {head.suite}.yaml"
        )
    entry = head.entry.label if head else report.path.parent.name
    return Unranked(entry, report.path.name[:SHORT_ID], "refused", why)


def _shown(why: str) -> str:
    """A line of limited length, whatever a submission says."""
    line = one_line(why)
    return line if len(line) <= LONGEST_WHY else f"{line[:LONGEST_WHY]}..."


def withdrawn(head: Submission, withdrawal: Withdrawal) -> Unranked:
    """A submission that was taken back."""
    return Unranked(head.entry.label, head.id[:SHORT_ID], "withdrawn", withdrawal.text)


def _has_equal_outputs(first: Candidate, second: Candidate) -> bool:
    """Whether some trial has the same logits in two submissions, bit by bit, as in a copy."""
    outputs = first.head.outputs, second.head.outputs
    shared = outputs[0].keys() & outputs[1].keys()
    return any(outputs[0][job] == outputs[1][job] for job in shared)
