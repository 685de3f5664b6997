"""What the front page and the feed say of each board, also as ``index.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.site.entries import EntryPage, entry_href
from transferbench.leaderboard.table import BoardTable, Row
from transferbench.suite import Suite
from transferbench.suite.loading import load_suite, newest_suites

__all__ = [
    "BoardSummary",
    "EntrySummary",
    "Index",
    "index_of",
    "newer_than",
    "question_of",
    "summary_of_board",
]

DIGITS = 6
"""Decimals of scores."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EntrySummary(_Frozen):
    """A submission and its place: ``arm``: of boards of initializations, the best.

    ``page``: below the site. ``date``: as YEAR-MONTH-DAY.
    """

    entry: str
    submission: str
    submitter: str | None
    date: str
    page: str
    status: Literal["ranked", "superseded", "incomplete"]
    arm: str | None = None
    rank: int | None = None
    ties: str | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    trust: str | None = None


class BoardSummary(_Frozen):
    """A board and its submissions, the best first, those that are not ranked last."""

    board: str
    summary: str
    question: str
    ranks: Literal["entries", "initializations"]
    refused: int
    entries: tuple[EntrySummary, ...]

    @property
    def name(self) -> str:
        """The suite, without its version."""
        return self.board.partition("@")[0]

    @property
    def major(self) -> int:
        """The MAJOR version of the suite."""
        return int(self.board.partition("@")[2])

    @property
    def ranked(self) -> list[EntrySummary]:
        """The entries that have a place."""
        return [entry for entry in self.entries if entry.status == "ranked"]


class Index(_Frozen):
    """All boards, and the suites that have no submission yet: board -> summary and question."""

    boards: tuple[BoardSummary, ...]
    waiting: dict[str, tuple[str, str]]

    @property
    def current(self) -> list[BoardSummary]:
        """The board of the newest MAJOR of each suite that has submissions."""
        newest: dict[str, BoardSummary] = {}
        for board in sorted(self.boards, key=lambda each: each.major):
            newest[board.name] = board
        return [newest[name] for name in sorted(newest)]

    @property
    def former(self) -> list[BoardSummary]:
        """The boards of earlier MAJORs."""
        return [board for board in self.boards if board not in self.current]

    @property
    def newest(self) -> list[tuple[BoardSummary, EntrySummary]]:
        """Every submission with its board, the newest first."""
        pairs = [(board, entry) for board in self.boards for entry in board.entries]
        pairs.sort(key=lambda pair: (pair[0].board, pair[1].entry, pair[1].submission))
        return sorted(pairs, key=lambda pair: pair[1].date, reverse=True)

    @property
    def newest_standing(self) -> list[tuple[BoardSummary, EntrySummary]]:
        """Those of the newest that no other submission supersedes."""
        return [pair for pair in self.newest if pair[1].status != "superseded"]


def index_of(summaries: Iterable[BoardSummary]) -> Index:
    """The index of these boards, and of the newest suites of the package that have none."""
    boards = tuple(sorted(summaries, key=lambda each: each.board))
    waiting = {}
    for board in newest_suites().values():
        if board not in {each.board for each in boards}:
            suite = load_suite(board)
            waiting[board] = (question_of(suite), suite.summary)
    return Index(boards=boards, waiting=waiting)


def newer_than(board: str) -> str | None:
    """The newest MAJOR of a board's suite in the package, where that is another one."""
    newest = newest_suites().get(board.partition("@")[0])
    return newest if newest != board else None


def question_of(suite: Suite) -> str:
    """What the board of a suite answers, in a sentence."""
    scoring = suite.scoring
    targets = " and ".join(scoring.chance)
    source = suite.sources.get(suite.initializations[scoring.initialization].source)
    # Without a source all entries have external weights.
    pretraining = f"pre-training on {source.dataset.name}" if source else "pre-training"
    if scoring.ranks == "initializations":
        return f"What of {pretraining} do other initializations keep, on {targets}?"
    perturbed = any(use.params for use in suite.perturbations.values())
    remains = ", and what remains of it on perturbed images" if perturbed else ""
    return f"What does {pretraining} bring on {targets}{remains}?"


def summary_of_board(
    table: BoardTable, competition: Competition | None, pages: list[EntryPage]
) -> BoardSummary:
    """The summary of a board with the pages of its entries."""
    order = {row.folder: position for position, row in reversed(list(enumerate(table.rows)))}
    pages = sorted(pages, key=lambda page: (order.get(page.candidate.folder, len(order) + 1e9),
                                            page.candidate.folder))  # fmt: skip
    return BoardSummary(
        board=table.board,
        summary=table.summary,
        question=question_of(competition.suite) if competition else "",
        ranks=table.ranks,
        refused=sum(row.status == "refused" for row in table.unranked),
        entries=tuple(_summary_of_entry(table, page) for page in pages),
    )


def _summary_of_entry(table: BoardTable, page: EntryPage) -> EntrySummary:
    head = page.candidate.head
    facts = _facts(page.rows[0]) if page.rows else {}
    return EntrySummary.model_validate(
        facts
        | {
            "entry": page.label,
            "submission": head.id,
            "submitter": head.declaration.submitter,
            "date": str(page.day),
            "page": f"{table.board}/{entry_href(page.candidate)}",
            "status": "ranked" if page.rows else "superseded" if page.successor else "incomplete",
        }
    )


def _facts(row: Row) -> dict[str, object]:
    # More digits stand in board.json; the last ones differ between versions of the code.
    score, low, high = (round(x, DIGITS) if isinstance(x, float) else x
                        for x in row.cells["score"])  # fmt: skip
    return {
        "arm": row.cells.get("initialization", (None,))[0],
        "rank": row.cells["rank"][0],
        "ties": row.cells["ties"][0],
        "score": score,
        "low": low,
        "high": high,
        "trust": row.cells["trust"][0],
    }
