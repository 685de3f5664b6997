"""From a folder of submissions to its boards: check, choose, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, TypeVar

from transferbench.claims import image_counts, scope_of
from transferbench.errors import SubmissionError
from transferbench.leaderboard.candidates import Competition, refused, withdrawn
from transferbench.leaderboard.data_flags import contradictions, leaks
from transferbench.leaderboard.folders import survey
from transferbench.leaderboard.formats import write_board, write_index
from transferbench.leaderboard.notes import flags_of, notes_of
from transferbench.leaderboard.rates import rate_flags
from transferbench.leaderboard.rows import board_rows
from transferbench.leaderboard.site import (
    SITE,
    BoardInput,
    BoardSummary,
    append_dates,
    dates_of,
    index_of,
    newer_than,
    read_dates,
    write_board_pages,
    write_front,
)
from transferbench.leaderboard.table import SHORT_ID, BoardTable
from transferbench.measurements import Measurements
from transferbench.registry import Registry, load_registry
from transferbench.submission import CheckReport, check
from transferbench.submission.withdrawal import WITHDRAWALS, Withdrawal, withdrawals_beside
from transferbench.suite.preregistration import Registration, register_beside, registration_of
from transferbench.suite.published import KnownSuites, suites_beside

__all__ = ["JudgedBoard", "boards", "build", "judged_board", "write_pages"]


class JudgedBoard(NamedTuple):
    """A board; ``competition``: its submissions, None where none was accepted."""

    table: BoardTable
    competition: Competition | None


Pages: TypeAlias = tuple[BoardSummary, list[Path]]
"""Of a board: what the front page says of it, and the files of its pages."""
Written: TypeAlias = tuple[BoardSummary | None, list[Path]]
"""As ``Pages``, without a summary where no site is written, and the files of its formats, too."""
Shown = TypeVar("Shown")
Board: TypeAlias = tuple[JudgedBoard, Shown]
"""A board, and what was made of it."""


def build(
    submissions: Path,
    out: Path,
    registry: Registry | None = None,
    suites: KnownSuites | None = None,
    *,
    site: bool = False,
) -> list[Path]:
    """Check every submission and write each board in every format, with an index of boards.

    ``site``: write the pages of the site, too, below ``out / "site"``. A submission that is new to
    the register of dates is appended there; then the same submissions give the same bytes.
    Returns the files written.
    """
    written, tables, summaries = [], [], []
    registry = registry or load_registry()
    by_board, left_out = survey(submissions)

    def written_board(judged: JudgedBoard) -> Written:
        files = write_board(judged.table, submissions, out / judged.table.board)
        if not site:
            return None, files
        summary, pages = write_pages(judged, submissions, out / SITE, registry)
        return summary, files + pages

    # One board at a time: the records of all would take gigabytes.
    for judged, (summary, files) in _judged_boards(submissions, by_board, registry, suites,
                                                   written_board):  # fmt: skip
        tables.append(judged.table)
        written += files
        if summary:
            summaries.append(summary)
        del judged
    written.append(write_index(tables, left_out, out, site=site))
    if site:
        written += write_front(index_of(summaries), out / SITE, left_out)
    return written


def write_pages(judged: JudgedBoard, submissions: Path, site: Path, registry: Registry) -> Pages:
    """Write the pages of one board of the site; returns its summary and the files.

    What is on them for the first time is written to the register of dates.
    """
    table, competition = judged
    folders = (
        sorted(candidate.folder for candidate in competition.candidates) if competition else []
    )
    dates = dates_of(submissions, folders)
    content = BoardInput(table, competition, submissions, dates, registry, newer_than(table.board))
    pages = write_board_pages(content, site / table.board)
    append_dates(submissions, dates)
    return pages


def boards(
    submissions: Path, registry: Registry | None = None, suites: KnownSuites | None = None
) -> list[BoardTable]:
    """The table of every board that has a submission, sorted by name.

    ``suites``: those that boards are of; by default the package's, and those beside the folder.
    A submission that cannot be checked or shown is listed as refused.

    Raises: ``SubmissionError`` where there is no such folder or a part of it cannot be read;
    or where a file is no withdrawal; ``SuiteError`` where known suites contradict each other, or
    what was preregistered.
    """
    by_board = survey(submissions).by_board
    registry = registry or load_registry()
    judged = _judged_boards(submissions, by_board, registry, suites, lambda _: None)
    return [board.table for board, _ in judged]


def _judged_boards(
    submissions: Path,
    by_board: Mapping[str, Sequence[Path]],
    registry: Registry,
    suites: KnownSuites | None,
    shown: Callable[[JudgedBoard], Shown],
) -> Iterator[Board[Shown]]:
    """Each board, and what ``shown`` makes of it."""
    suites = suites or suites_beside(submissions)
    registered = register_beside(submissions)
    taken_back, dates = withdrawals_beside(submissions), read_dates(submissions)
    for name, folders in sorted(by_board.items()):
        reports = [check(folder, registry, suites) for folder in folders]
        for suite in suites.of(name).values():
            registration_of(suite, registered)

        def board_of(own: Sequence[CheckReport], back: Mapping[str, Withdrawal]) -> Board[Shown]:
            judged = judged_board(name, own, registry, registered, back, dates)  # noqa: B023  # used at once
            return judged, shown(judged)

        yield _sound_board(reports, dates, taken_back, board_of)


def _by_day(reports: Iterable[CheckReport], dates: Mapping[str, date]) -> list[CheckReport]:
    """First those that were first on the board."""
    return sorted(reports, key=lambda each: (dates.get(each.folder, date.max), each.folder))


def _sound_board(
    reports: Sequence[CheckReport],
    dates: Mapping[str, date],
    taken_back: Mapping[str, Withdrawal],
    board_of: Callable[[Sequence[CheckReport], Mapping[str, Withdrawal]], Board[Shown]],
) -> Board[Shown]:
    """The board of ``reports``, where one that was accepted and cannot be shown is refused.

    So is one that cannot be shown beside those that were there before it.
    """
    try:
        return board_of(reports, taken_back)
    except Exception:  # noqa: BLE001  # untrusted content may raise anything
        sound: list[CheckReport] = []
        for report in _by_day(reports, dates):
            try:
                board_of([*sound, report], {})
                sound.append(report)
            except Exception as own:  # noqa: BLE001  # as above
                sound.append(report.refused_for(own))
        return board_of(sound, taken_back)


def judged_board(
    name: str,
    reports: Sequence[CheckReport],
    registry: Registry,
    registered: Mapping[str, Registration],
    taken_back: Mapping[str, Withdrawal] = MappingProxyType({}),
    dates: Mapping[str, date] = MappingProxyType({}),
) -> JudgedBoard:
    """The board ``name`` of the submissions that are meant for it, without those taken back."""
    accepted, unranked = [], []
    _refuse_strange(reports, taken_back)
    for report in _with_pages(reports, dates):
        head = report.content.submission if report.is_untouched else None
        if head and (withdrawal := taken_back.get(head.id)):
            unranked.append(withdrawn(head, withdrawal))
        elif report.ok and report.is_of_known_suite:
            accepted.append(report)
        else:
            unranked.append(refused(report))
    if not accepted:
        return JudgedBoard(
            BoardTable(name, name, "", ("", ""), (), (), tuple(unranked), (), ()), None
        )
    competition = Competition(accepted, registry, dates)
    suite, (columns, rows) = competition.suite, board_rows(competition)
    registration = registration_of(suite, registered)
    verdicts = {competition.names[c.entry]: c.bundle.verdicts for c in competition.chosen.values()}
    entries = dict.fromkeys(str(row.cells["entry"][0]) for row in rows)
    table = BoardTable(
        board=name,
        suite=suite.id,
        summary=suite.summary,
        arms=(suite.scoring.initialization, suite.scoring.baseline),
        columns=tuple(columns),
        rows=tuple(rows),
        unranked=(*unranked, *competition.unranked()),
        flags=(
            *flags_of(suite, rows),
            *rate_flags(competition),
            *competition.unmeasured(),
            *competition.copies(),
            *leaks(competition.chosen.values()),
            *contradictions(competition.candidates),
        ),
        notes=tuple(notes_of(suite, competition.severe, registry, registration)),
        ranks=suite.scoring.ranks,
        verdicts={entry: verdicts[entry] for entry in entries if verdicts[entry]},
        scope=tuple(_scope(competition)),
    )
    return JudgedBoard(table, competition)


def _with_pages(reports: Iterable[CheckReport], dates: Mapping[str, date]) -> Iterator[CheckReport]:
    """``reports``, of which one is refused whose page would be that of an earlier one.

    It is a copy in another folder, or its id was tried until it began like the other.
    """
    first: dict[str, CheckReport] = {}
    for report in _by_day(reports, dates):
        if report.is_untouched:
            first.setdefault(report.content.submission.id[:SHORT_ID], report)
    for report in reports:
        own = first[report.content.submission.id[:SHORT_ID]] if report.is_untouched else report
        why = SubmissionError(f"its page would be that of {own.folder}")
        yield report if own is report else report.refused_for(why)


def _refuse_strange(reports: Sequence[CheckReport], taken_back: Mapping[str, Withdrawal]) -> None:
    """Raises: ``SubmissionError`` where a withdrawal or a correction is of something else.

    What a submission says counts where it is untouched: anyone can claim an id. One that is there
    and can no longer be read may still correct another.
    """
    heads = {report.content.submission.id: report.content.submission
             for report in reports if report.is_untouched}  # fmt: skip
    there = heads.keys() | {report.path.name for report in reports}
    for head in heads.values():
        own, where = taken_back.get(head.id), f"{WITHDRAWALS}/{head.id}.json"
        if own and (own.board, own.entry) != (head.board, head.entry.label):
            raise SubmissionError(
                f"{where} is of {own.entry} on {own.board}, and that submission of "
                f"{head.entry.label} on {head.board}"
            )
        corrected = [head.id]
        while own and own.corrected_by:
            other = heads.get(own.corrected_by)
            is_same = other is None or other.entry.weightless_name == head.entry.weightless_name
            if own.corrected_by not in there - set(corrected) or not is_same:
                raise SubmissionError(
                    f"{where} is corrected by {own.corrected_by[:12]} in the end, which is no "
                    f"other submission of {head.entry.weightless_name} on {head.board}"
                )
            corrected.append(own.corrected_by)
            own = taken_back.get(own.corrected_by)


def _scope(competition: Competition) -> Iterator[str]:
    candidates = competition.chosen.values()
    images = [image_counts(Measurements.of_records(c.bundle.records)) for c in candidates]
    external = [c.head.entry.label for c in candidates if c.head.entry.weights]
    yield from scope_of(competition.suite, reduce(or_, images), external)
