"""From a folder of submissions to its boards: check, choose, rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from types import MappingProxyType

from transferbench.claims import image_counts, scope_of
from transferbench.leaderboard.candidates import Competition, refused, withdrawn
from transferbench.leaderboard.data_flags import contradictions, leaks
from transferbench.leaderboard.folders import survey
from transferbench.leaderboard.formats import write_board, write_index
from transferbench.leaderboard.notes import flags_of, notes_of
from transferbench.leaderboard.rates import rate_flags
from transferbench.leaderboard.rows import board_rows
from transferbench.leaderboard.table import BoardTable
from transferbench.measurements import Measurements
from transferbench.registry import Registry, load_registry
from transferbench.submission import CheckReport, check
from transferbench.submission.withdrawal import Withdrawal, withdrawals_beside
from transferbench.suite.preregistration import Registration, register_beside, registration_of
from transferbench.suite.published import KnownSuites, suites_beside

__all__ = ["board_table", "boards", "build"]


def build(
    submissions: Path,
    out: Path,
    registry: Registry | None = None,
    suites: KnownSuites | None = None,
) -> list[Path]:
    """Check every submission and write each board in every format, with an index of boards.

    The same submissions give the same bytes. Returns the files written.
    """
    written = []
    tables = boards(submissions, registry, suites)
    for table in tables:
        written += write_board(table, submissions, out / table.board)
    written.append(write_index(tables, survey(submissions).left_out, out))
    return written


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
    suites = suites or suites_beside(submissions)
    registered = register_beside(submissions)
    taken_back = withdrawals_beside(submissions)
    tables = []
    for name, folders in sorted(by_board.items()):
        reports = [check(folder, registry, suites) for folder in folders]
        for suite in suites.of(name).values():
            registration_of(suite, registered)
        tables.append(_sound_table(name, reports, registry, registered, taken_back))
    return tables


def _sound_table(
    name: str,
    reports: Sequence[CheckReport],
    registry: Registry,
    registered: Mapping[str, Registration],
    taken_back: Mapping[str, Withdrawal],
) -> BoardTable:
    """``board_table``, where a submission that was accepted and cannot be shown is refused."""
    try:
        return board_table(name, reports, registry, registered, taken_back)
    except Exception:  # untrusted content may raise anything
        sound = []
        for report in reports:
            try:
                board_table(name, [report], registry, registered)
                sound.append(report)
            except Exception as own:  # noqa: BLE001  # as above
                sound.append(report.refused_for(own))
        if all(report in reports for report in sound):
            raise
        return board_table(name, sound, registry, registered, taken_back)


def board_table(
    name: str,
    reports: Sequence[CheckReport],
    registry: Registry,
    registered: Mapping[str, Registration],
    taken_back: Mapping[str, Withdrawal] = MappingProxyType({}),
) -> BoardTable:
    """The board ``name`` of the submissions that are meant for it, without those taken back."""
    accepted, unranked = [], []
    for report in reports:
        bundle = report.bundle
        fits = bundle is not None and bundle.submission.board == name
        withdrawal = bundle and taken_back.get(bundle.submission.id)
        if bundle is not None and withdrawal:
            unranked.append(withdrawn(bundle.submission, withdrawal))
        elif report.ok and report.is_of_known_suite and bundle is not None and fits:
            accepted.append(report)
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
        flags=(
            *flags_of(suite, rows),
            *rate_flags(competition),
            *competition.unmeasured(),
            *competition.copies(),
            *leaks(competition.chosen.values()),
            *contradictions([*competition.chosen.values(), *competition.superseded]),
        ),
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
