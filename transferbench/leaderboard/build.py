"""From a folder of submissions to its boards: check, choose, rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from transferbench.claims import Verdict
from transferbench.errors import SubmissionError, UnknownNameError, listing
from transferbench.leaderboard.arm_scores import Arm, ranked_arms
from transferbench.leaderboard.arm_table import (
    RankedArm,
    arm_columns,
    arm_row,
    described_arms,
    flags_of_arms,
    needs_of,
)
from transferbench.leaderboard.entry_scores import most_severe, stand
from transferbench.leaderboard.formats import write_board, write_index
from transferbench.leaderboard.notes import REPRODUCED_WITHIN, flags_of, notes_of
from transferbench.leaderboard.scores import (
    compared_arms,
    missing_scores,
    score_series,
    values_of,
)
from transferbench.leaderboard.table import (
    SHORT_ID,
    BoardTable,
    Column,
    Ranked,
    Row,
    Unranked,
    columns_of,
    row_of,
    without_empty,
)
from transferbench.plan.external_weights import left_out_arms
from transferbench.registry import Registry, load_registry
from transferbench.statistics import rank_intervals
from transferbench.submission import Bundle, CheckReport, examine
from transferbench.suite import Suite

__all__ = ["boards", "build"]


class _Examined(NamedTuple):
    folder: Path
    report: CheckReport
    bundle: Bundle | None


class _Candidate(NamedTuple):
    """An accepted submission."""

    folder: Path
    bundle: Bundle
    trust: str

    @property
    def entry(self) -> tuple[str, str | None]:
        """What stands once on a board: a backbone with its weights."""
        entry = self.bundle.submission.entry
        return entry.name, entry.weights.tag if entry.weights else None

    @property
    def precedence(self) -> tuple[int, str]:
        """The latest MINOR first, of equals the first id."""
        return -self.bundle.submission.minor, self.bundle.submission.id


def build(submissions: Path, out: Path, registry: Registry | None = None) -> list[Path]:
    """Check every submission and write each board in every format, with an index of boards.

    The same submissions give the same bytes. Returns the files written.
    """
    written = []
    tables = boards(submissions, registry)
    for table in tables:
        written += write_board(table, submissions, out / table.board)
    written.append(write_index(tables, out))
    return written


def boards(submissions: Path, registry: Registry | None = None) -> list[BoardTable]:
    """The table of every board that has a submission, sorted by name.

    Raises: ``SubmissionError`` where there is no such folder, or two suites share an id.
    """
    if not submissions.is_dir():
        raise SubmissionError(
            f"there is no folder {submissions}; give the one that holds"
            " <suite>@<major>/<entry>/<submission>"
        )
    registry = registry or load_registry()
    by_board: dict[str, list[_Examined]] = defaultdict(list)
    for head in sorted(submissions.glob("*/*/*/submission.json")):
        # The folder says where a submission stands, so that an unreadable one is listed too.
        report, bundle = examine(head.parent, registry)
        by_board[head.parts[-4]].append(_Examined(head.parent, report, bundle))
    return [
        _board(name, examined, submissions, registry) for name, examined in sorted(by_board.items())
    ]


def _board(name: str, examined: Sequence[_Examined], root: Path, registry: Registry) -> BoardTable:
    accepted = [
        _Candidate(one.folder, one.bundle, one.report.trust)
        for one in examined
        if one.report.ok and one.bundle is not None and one.bundle.submission.board == name
    ]
    taken = {candidate.folder for candidate in accepted}
    unranked = [_refused(one, name) for one in examined if one.folder not in taken]
    if not accepted:
        return BoardTable(name, name, "", ("", ""), (), (), tuple(unranked), (), ())
    board = _accepted_board(accepted, root, registry)
    suite, severe = board.suite, board.severe
    made = _of_arms(board) if suite.scoring.ranks == "initializations" else _of_entries(board)
    return BoardTable(
        board=name,
        suite=suite.id,
        summary=suite.summary,
        arms=(suite.scoring.initialization, suite.scoring.baseline),
        columns=without_empty(made.columns, made.rows),
        rows=tuple(made.rows),
        unranked=(
            *unranked,
            *made.unranked,
            *(_superseded(c, board.chosen) for c in board.superseded),
        ),
        flags=(*flags_of(suite), *made.flags),
        notes=(*notes_of(suite, severe), *made.notes),
        ranks=suite.scoring.ranks,
        verdicts=_verdicts(board, made.rows),
    )


def _verdicts(board: _Accepted, rows: Sequence[Row]) -> dict[str, tuple[Verdict, ...]]:
    """The verdicts on the entries of ``rows``, in that order."""
    bundles = {c.folder.relative_to(board.root).as_posix(): c.bundle for c in board.chosen}
    found = [bundles[folder] for folder in dict.fromkeys(row.folder for row in rows)]
    return {one.submission.entry.name: one.verdicts for one in found if one.verdicts}


class _Accepted(NamedTuple):
    """The accepted submissions of a board, and all that their rows are made from."""

    suite: Suite
    severe: str | None
    chosen: Sequence[_Candidate]
    superseded: Sequence[_Candidate]
    root: Path
    registry: Registry


class _Made(NamedTuple):
    """The rows of a board, and who is left out of them."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    unranked: Sequence[Unranked]
    notes: Sequence[str] = ()
    flags: Sequence[str] = ()


def _accepted_board(accepted: Sequence[_Candidate], root: Path, registry: Registry) -> _Accepted:
    suite = _suite(accepted)
    severe = most_severe(suite, accepted[0].bundle.submission.severities)
    return _Accepted(suite, severe, *_choose(accepted), root, registry)


def _of_entries(board: _Accepted) -> _Made:
    """A row for each entry that has a score."""
    suite, scored = board.suite, board.suite.scoring.initialization
    complete = [c for c in board.chosen if not missing_scores(suite, c.bundle.records, scored)]
    return _Made(
        columns=columns_of(suite, board.severe),
        rows=[row_of(one) for one in _rank(board, complete)],
        unranked=[_incomplete(suite, c, scored) for c in board.chosen if c not in complete],
    )


def _of_arms(board: _Accepted) -> _Made:
    """A row for each initialization of each entry that has a score."""
    suite = board.suite
    rows: list[Row] = []
    unranked: list[Unranked] = []
    for candidate in board.chosen:
        arms = ranked_arms(suite, candidate.bundle)
        rows += [_arm_row(board, candidate, arm) for arm in arms]
        without = [a for a in compared_arms(suite) if a not in {arm.label for arm in arms}]
        left_out = _left_out(board, candidate)
        unranked += [_incomplete(suite, candidate, label, left_out.get(label)) for label in without]
    return _Made(
        columns=arm_columns(suite, board.severe),
        rows=rows,
        unranked=unranked,
        notes=tuple(described_arms(suite, board.registry)),
        flags=tuple(flags_of_arms(rows)),
    )


def _left_out(board: _Accepted, candidate: _Candidate) -> dict[str, str]:
    """The arms that external weights could not start, and why; none where that is not known."""
    try:
        weights = candidate.bundle.submission.entry.weights
        return left_out_arms(board.suite, weights, board.registry)
    except UnknownNameError:
        return {}


def _arm_row(board: _Accepted, candidate: _Candidate, arm: Arm) -> Row:
    return arm_row(
        RankedArm(
            bundle=candidate.bundle,
            arm=arm,
            needs=needs_of(candidate.bundle, arm.label, board.registry),
            trust=_trust(board, candidate, arm.label),
            folder=_folder(board, candidate),
        )
    )


def _folder(board: _Accepted, candidate: _Candidate) -> str:
    return candidate.folder.relative_to(board.root).as_posix()


def _suite(accepted: Iterable[_Candidate]) -> Suite:
    """The latest MINOR's suite, by which all are scored."""
    digests: dict[str, _Candidate] = {}
    for candidate in accepted:
        head = candidate.bundle.submission
        other = digests.setdefault(head.suite, candidate)
        if other.bundle.submission.suite_digest != head.suite_digest:
            raise SubmissionError(
                f"two suites call themselves {head.suite}: those of {other.folder} and"
                f" {candidate.folder}; give one another name or version, or remove it"
            )
    return min(digests.values(), key=lambda c: c.precedence).bundle.plan.suite


def _choose(accepted: Iterable[_Candidate]) -> tuple[list[_Candidate], list[_Candidate]]:
    """The one submission of each entry that stands, and those that it supersedes."""
    by_entry: dict[tuple[str, str | None], list[_Candidate]] = defaultdict(list)
    for candidate in sorted(accepted, key=lambda c: c.precedence):
        by_entry[candidate.entry].append(candidate)
    ordered = [by_entry[key] for key in sorted(by_entry, key=str)]
    return [several[0] for several in ordered], [c for several in ordered for c in several[1:]]


def _rank(board: _Accepted, complete: Sequence[_Candidate]) -> list[Ranked]:
    suite = board.suite
    standings = {_key(c): stand(suite, c.bundle) for c in complete}
    candidates = {_key(c): c for c in complete}
    ranks = rank_intervals({key: found.score for key, found in standings.items()})
    return [
        Ranked(
            bundle=candidates[key].bundle,
            standing=standings[key],
            rank=rank,
            trust=_trust(board, candidates[key], suite.scoring.initialization),
            folder=_folder(board, candidates[key]),
        )
        for key, rank in ranks.items()
    ]


def _key(candidate: _Candidate) -> str:
    """A name to rank by; equal means are then in the order of these."""
    return f"{candidate.bundle.submission.entry.name} {candidate.bundle.submission.id}"


def _trust(board: _Accepted, candidate: _Candidate, arm: str) -> str:
    """Reproduced, where another named submitter's run of this arm has the same score."""
    mine = candidate.bundle.submission.declaration.submitter
    for other in board.superseded:
        theirs = other.bundle.submission.declaration.submitter
        if other.entry != candidate.entry or None in {mine, theirs} or mine == theirs:
            continue
        if missing_scores(board.suite, other.bundle.records, arm):
            continue
        scores = [_mean_score(board.suite, c, arm) for c in (candidate, other)]
        if abs(scores[0] - scores[1]) <= REPRODUCED_WITHIN:
            return "reproduced"
    return candidate.trust


def _mean_score(suite: Suite, candidate: _Candidate, arm: str) -> float:
    values = values_of(suite, candidate.bundle.records)
    return fmean(score_series(suite.scoring, values, arm).values())


def _refused(one: _Examined, board: str) -> Unranked:
    failed = [check for check in one.report.checks if check.status == "failed"]
    why = "; ".join(f"{check.name}: {check.why[0]}" for check in failed)
    if not why and one.bundle is not None:
        why = f"it belongs to {one.bundle.submission.board}, not to {board}"
    entry = one.bundle.submission.entry.name if one.bundle else one.folder.parent.name
    return Unranked(entry, one.folder.name[:SHORT_ID], "refused", why)


def _incomplete(
    suite: Suite, candidate: _Candidate, arm: str, left_out: str | None = None
) -> Unranked:
    """``left_out``: what the arm needs and external weights cannot give."""
    missing = missing_scores(suite, candidate.bundle.records, arm)
    of = f" of {arm}" if suite.scoring.ranks == "initializations" else ""
    why = f"no score{of} on {listing(missing, 3, '; ')}"
    if left_out:
        why = f"{arm} {left_out}, which external weights cannot give"
    head = candidate.bundle.submission
    return Unranked(head.entry.name, head.id[:SHORT_ID], "incomplete", why)


def _superseded(candidate: _Candidate, chosen: Iterable[_Candidate]) -> Unranked:
    by = next(c for c in chosen if c.entry == candidate.entry)
    head = candidate.bundle.submission
    why = f"by {by.bundle.submission.id[:SHORT_ID]} for {by.bundle.submission.suite}"
    return Unranked(head.entry.name, head.id[:SHORT_ID], "superseded", why)
