"""The submissions of a board: which of each entry is ranked, and why the others are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from transferbench.errors import SubmissionError, UnknownNameError, listing
from transferbench.leaderboard.notes import REPRODUCED_WITHIN
from transferbench.leaderboard.profile import most_severe
from transferbench.leaderboard.scores import SubmissionValues
from transferbench.leaderboard.table import SHORT_ID, Unranked, UnrankedStatus
from transferbench.plan.external_weights import left_out_arms
from transferbench.registry import Registry
from transferbench.submission import Bundle, CheckReport
from transferbench.suite import Suite

__all__ = ["Candidate", "Competition", "Examined", "refused"]


class Examined(NamedTuple):
    """A submission after its check; without a bundle it could not be read."""

    folder: Path
    report: CheckReport
    bundle: Bundle | None


class Candidate(NamedTuple):
    """A submission that passed its check."""

    folder: Path
    bundle: Bundle
    trust: str

    @property
    def entry(self) -> tuple[str, str | None]:
        """A backbone with its weights: it is ranked once on a board."""
        entry = self.bundle.submission.entry
        return entry.name, entry.weights.tag if entry.weights else None

    @property
    def precedence(self) -> tuple[int, str]:
        """The latest MINOR first, of equals the first id."""
        return -self.bundle.submission.minor, self.bundle.submission.id


class Competition:
    """The candidates of a board, ``chosen`` and ``superseded``, and the suite that scores them.

    ``root``: the folder of all submissions. Raises: ``SubmissionError`` where two suites share an
    id.
    """

    def __init__(self, candidates: Sequence[Candidate], root: Path, registry: Registry) -> None:
        self.suite = _latest_suite(candidates)
        self.severe = most_severe(self.suite, candidates[0].bundle.submission.severities)
        self.chosen, self.superseded = _choose(candidates)
        self.registry = registry
        self._root = root
        self._values: dict[Path, SubmissionValues] = {}

    def values(self, candidate: Candidate) -> SubmissionValues:
        """The values of a candidate, scored by the suite of the board."""
        if candidate.folder not in self._values:
            self._values[candidate.folder] = SubmissionValues(self.suite, candidate.bundle)
        return self._values[candidate.folder]

    def folder(self, candidate: Candidate) -> str:
        """Where a candidate's submission is, below the folder of all submissions."""
        return candidate.folder.relative_to(self._root).as_posix()

    def trust(self, candidate: Candidate, arm: str) -> str:
        """Reproduced, where another named submitter's run of this arm has the same score."""
        submitter = candidate.bundle.submission.declaration.submitter
        for other in self.superseded:
            second = other.bundle.submission.declaration.submitter
            if other.entry != candidate.entry or None in {submitter, second} or second == submitter:
                continue
            if self.values(other).missing_scores(arm):
                continue
            scores = [fmean(self.values(c).score(arm).values()) for c in (candidate, other)]
            if abs(scores[0] - scores[1]) <= REPRODUCED_WITHIN:
                return "reproduced"
        return candidate.trust

    def superseded_rows(self) -> list[Unranked]:
        """The superseded candidates."""
        chosen = {candidate.entry: candidate.bundle.submission for candidate in self.chosen}
        return [
            _unranked(candidate, "superseded", f"by {by.id[:SHORT_ID]} for {by.suite}")
            for candidate, by in ((c, chosen[c.entry]) for c in self.superseded)
        ]

    def incomplete(self, candidate: Candidate, arm: str) -> Unranked:
        """Why an arm of a candidate has no row."""
        missing = self.values(candidate).missing_scores(arm)
        of_arms = self.suite.scoring.ranks == "initializations"
        why = f"no score{f' of {arm}' if of_arms else ''} on {listing(missing, 3, '; ')}"
        if of_arms and (needs := self._left_out(candidate).get(arm)):
            why = f"{arm} {needs}, which external weights cannot give"
        return _unranked(candidate, "incomplete", why)

    def _left_out(self, candidate: Candidate) -> dict[str, str]:
        """The arms that external weights cannot start; none where that is not known."""
        try:
            weights = candidate.bundle.submission.entry.weights
            return left_out_arms(self.suite, weights, self.registry)
        except UnknownNameError:
            return {}


def _unranked(candidate: Candidate, status: UnrankedStatus, why: str) -> Unranked:
    head = candidate.bundle.submission
    return Unranked(head.entry.name, head.id[:SHORT_ID], status, why)


def refused(examined: Examined, board: str) -> Unranked:
    """A submission that failed its check, or is for another board."""
    failed = [check for check in examined.report.checks if check.status == "failed"]
    why = "; ".join(f"{check.name}: {check.why[0]}" for check in failed)
    folder, bundle = examined.folder, examined.bundle
    if not why and bundle is not None:
        why = f"it belongs to {bundle.submission.board}, not to {board}"
    entry = bundle.submission.entry.name if bundle else folder.parent.name
    return Unranked(entry, folder.name[:SHORT_ID], "refused", why)


def _latest_suite(candidates: Iterable[Candidate]) -> Suite:
    """The latest MINOR's suite, by which all are scored."""
    digests: dict[str, Candidate] = {}
    for candidate in candidates:
        head = candidate.bundle.submission
        other = digests.setdefault(head.suite, candidate)
        if other.bundle.submission.suite_digest != head.suite_digest:
            raise SubmissionError(
                f"two suites call themselves {head.suite}: those of {other.folder} and"
                f" {candidate.folder}; give one another name or version, or remove it"
            )
    return min(digests.values(), key=lambda c: c.precedence).bundle.plan.suite


def _choose(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The first submission of each entry by precedence, and those that it supersedes."""
    by_entry: dict[tuple[str, str | None], list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: c.precedence):
        by_entry[candidate.entry].append(candidate)
    ordered = [by_entry[key] for key in sorted(by_entry, key=str)]
    return [several[0] for several in ordered], [c for several in ordered for c in several[1:]]
