"""The submissions of a board: which of each entry is ranked, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeAlias

from transferbench.errors import SubmissionError, UnknownNameError, listing
from transferbench.leaderboard.notes import REPRODUCED_WITHIN
from transferbench.leaderboard.profile import most_severe
from transferbench.leaderboard.scores import SubmissionValues, compared_arms
from transferbench.leaderboard.table import SHORT_ID, Unranked, UnrankedStatus
from transferbench.plan.external_weights import left_out_arms
from transferbench.registry import Registry
from transferbench.submission import Bundle, CheckReport, Submission
from transferbench.suite import Suite

__all__ = ["Arm", "Candidate", "Competition", "refused"]

EntryKey: TypeAlias = tuple[str, str | None]
"""A backbone, and the tag of its external weights: ranked once on a board."""


class Candidate(NamedTuple):
    """A submission that passed its check."""

    bundle: Bundle
    trust: str

    @property
    def head(self) -> Submission:
        """The head of the submission."""
        return self.bundle.submission

    @property
    def entry(self) -> EntryKey:
        """The entry that it is a submission of."""
        entry = self.head.entry
        return entry.name, entry.weights.tag if entry.weights else None

    @property
    def precedence(self) -> tuple[int, str]:
        """The latest MINOR first, of equals the first id."""
        return -self.head.minor, self.head.id


Arm: TypeAlias = tuple[Candidate, str]
"""An arm of a candidate."""


class Competition:
    """The candidates of a board, ``chosen`` and ``superseded``, and the suite that scores them.

    ``root``: the folder of all submissions. Raises: ``SubmissionError`` where two suites share an
    id.
    """

    def __init__(self, candidates: Sequence[Candidate], root: Path, registry: Registry) -> None:
        self.suite = _latest_suite(candidates)
        self.severe = most_severe(self.suite, candidates[0].head.severities)
        ordered = sorted(candidates, key=lambda c: (str(c.entry), c.precedence))
        self.chosen: dict[EntryKey, Candidate] = {}
        for candidate in ordered:
            self.chosen.setdefault(candidate.entry, candidate)
        self.superseded = [c for c in ordered if self.chosen[c.entry] is not c]
        self.registry = registry
        self._root = root
        self._values: dict[Path, SubmissionValues] = {}

    def values(self, candidate: Candidate) -> SubmissionValues:
        """The values of a candidate, scored by the suite of the board."""
        path = candidate.bundle.path
        if path not in self._values:
            self._values[path] = SubmissionValues(self.suite, candidate.bundle)
        return self._values[path]

    def folder(self, candidate: Candidate) -> str:
        """The folder of a candidate, relative to that of all submissions."""
        return candidate.bundle.path.relative_to(self._root).as_posix()

    def trust(self, candidate: Candidate, arm: str) -> str:
        """Reproduced, where another named submitter's run of this arm has the same score."""
        submitter = candidate.head.declaration.submitter
        for other in self.superseded:
            second = other.head.declaration.submitter
            if other.entry != candidate.entry or None in {submitter, second} or second == submitter:
                continue
            if self.values(other).missing_scores(arm):
                continue
            scores = [fmean(self.values(c).score(arm).values()) for c in (candidate, other)]
            if abs(scores[0] - scores[1]) <= REPRODUCED_WITHIN:
                return "reproduced"
        return candidate.trust

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
            if (missing := self.values(candidate).missing_scores(arm))
        ]
        for candidate in self.superseded:
            head = self.chosen[candidate.entry].head
            why = f"by {head.id[:SHORT_ID]} for {head.suite}"
            rows.append(_unranked(candidate, "superseded", why))
        return rows

    def _incomplete(self, candidate: Candidate, arm: str, missing: Sequence[str]) -> str:
        """Why an arm of a candidate has no row."""
        of_arms = self.suite.scoring.ranks == "initializations"
        if of_arms:
            weights = candidate.head.entry.weights
            with suppress(UnknownNameError):
                if needs := left_out_arms(self.suite, weights, self.registry).get(arm):
                    return f"{arm} {needs}, which external weights cannot give"
        return f"no score{f' of {arm}' if of_arms else ''} on {listing(missing, 3, '; ')}"


def _unranked(candidate: Candidate, status: UnrankedStatus, why: str) -> Unranked:
    return Unranked(candidate.head.entry.name, candidate.head.id[:SHORT_ID], status, why)


def refused(report: CheckReport, board: str) -> Unranked:
    """A submission that failed its check, or is for another board."""
    failed = [check for check in report.checks if check.status == "failed"]
    why = "; ".join(f"{check.name}: {check.why[0]}" for check in failed)
    head = report.bundle and report.bundle.submission
    if not why and head is not None:
        why = f"it belongs to {head.board}, not to {board}"
    entry = head.entry.name if head else report.path.parent.name
    return Unranked(entry, report.path.name[:SHORT_ID], "refused", why)


def _latest_suite(candidates: Iterable[Candidate]) -> Suite:
    """The latest MINOR's suite, by which all are scored."""
    digests: dict[str, Candidate] = {}
    for candidate in candidates:
        head = candidate.head
        other = digests.setdefault(head.suite, candidate)
        if other.head.suite_digest != head.suite_digest:
            raise SubmissionError(
                f"two suites call themselves {head.suite}: those of {other.bundle.path} and"
                f" {candidate.bundle.path}; give one another name or version, or remove it"
            )
    return min(digests.values(), key=lambda c: c.precedence).bundle.plan.suite
