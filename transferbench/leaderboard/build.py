"""From a folder of submissions to its boards: check, choose, rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path

from transferbench.claims import image_counts, scope_of
from transferbench.errors import SubmissionError
from transferbench.leaderboard.candidates import Competition, refused
from transferbench.leaderboard.formats import write_board, write_index
from transferbench.leaderboard.notes import flags_of, notes_of
from transferbench.leaderboard.rates import rate_flags
from transferbench.leaderboard.rows import board_rows
from transferbench.leaderboard.table import BoardTable
from transferbench.measurements import Measurements
from transferbench.registry import Registry, load_registry
from transferbench.submission import CheckReport, check
from transferbench.submission.bundle import SUBMISSION
from transferbench.suite.preregistration import Registration, register_beside, registration_of

__all__ = ["board_table", "boards", "build"]


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

    Raises: ``SubmissionError`` where there is no such folder or a part of it cannot be read, or
    where two suites share an id; ``SuiteError`` where a suite is not what was preregistered of its
    MAJOR.
    """
    if not submissions.is_dir():
        raise SubmissionError(
            f"there is no folder {submissions}; give the one that holds"
            " <suite>@<major>/<entry>/<submission>"
        )
    registry = registry or load_registry()
    by_board: dict[str, list[CheckReport]] = defaultdict(list)
    for board in _inside(submissions):
        for folder in (folder for entry in _inside(board) for folder in _inside(entry)):
            # The folder says which board a submission is for, so that a bad one is listed too.
            if folder / SUBMISSION in _inside(folder):
                by_board[board.name].append(check(folder, registry))
    registered = register_beside(submissions)
    return [
        board_table(name, reports, registry, registered)
        for name, reports in sorted(by_board.items())
    ]


def _inside(folder: Path) -> list[Path]:
    """What is in ``folder``, sorted; nothing where it is a file, or gone.

    Raises: ``SubmissionError`` where that cannot be told: a board would silently lack it.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SubmissionError(
            f"cannot read {folder}, which may hold a submission: {error.strerror}; make it "
            "readable, or move it away"
        ) from error


def board_table(
    name: str,
    reports: Sequence[CheckReport],
    registry: Registry,
    registered: Mapping[str, Registration],
) -> BoardTable:
    """The board ``name`` of the submissions that are meant for it."""
    accepted, unranked = [], []
    for report in reports:
        bundle = report.bundle
        if report.ok and bundle is not None and bundle.submission.board == name:
            accepted.append((bundle, report.trust))
        else:
            unranked.append(refused(report, name))
    if not accepted:
        return BoardTable(name, name, "", ("", ""), (), (), tuple(unranked), (), ())
    competition = Competition(accepted, registry)
    suite, (columns, rows) = competition.suite, board_rows(competition)
    registration = registration_of(suite, registered)
    verdicts = {c.head.entry.label: c.bundle.verdicts for c in competition.chosen.values()}
    entries = dict.fromkeys(str(row.cells["entry"][0]) for row in rows)
    return BoardTable(
        board=name,
        suite=suite.id,
        summary=suite.summary,
        arms=(suite.scoring.initialization, suite.scoring.baseline),
        columns=tuple(columns),
        rows=tuple(rows),
        unranked=(*unranked, *competition.unranked()),
        flags=(*flags_of(suite, rows), *rate_flags(competition), *competition.unmeasured()),
        notes=tuple(notes_of(suite, competition.severe, registry, registration)),
        ranks=suite.scoring.ranks,
        verdicts={entry: verdicts[entry] for entry in entries if verdicts[entry]},
        scope=tuple(_scope(competition)),
    )


def _scope(competition: Competition) -> Iterator[str]:
    candidates = competition.chosen.values()
    images = [image_counts(Measurements.of_records(c.bundle.records)) for c in candidates]
    external = [c.head.entry.label for c in candidates if c.head.entry.weights]
    yield from scope_of(competition.suite, reduce(or_, images), external)
