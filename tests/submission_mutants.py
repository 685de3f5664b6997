"""Checks the mutants of a submission one after another, in a process of its own.

Of each it is said how it ended; that it ran or wrote anything elsewhere, or stands on a board as
what it is not, is a fault.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import HANG_SECONDS, HangError, MutantResult, write_results
from submission_mutations import BOARD, LEADERBOARD, honest, mutated

from transferbench.errors import SubmissionError
from transferbench.leaderboard import BoardTable, build
from transferbench.leaderboard.build import judged_board
from transferbench.leaderboard.formats import write_board
from transferbench.leaderboard.table import FORMULA
from transferbench.records import Record
from transferbench.registry import Registry, load_registry
from transferbench.runner.cost import peak_memory_bytes
from transferbench.submission import CheckReport, check
from transferbench.submission.origins import _origin  # the origin of one record
from transferbench.suite.published import KnownSuites

ACCEPTED, REFUSED, REPORTED, UNREADABLE, FAULT = 0, 1, 2, 3, -1
"""Equal in all that follows; refused; other in what is the submitter's word; no submission."""
BUILT = frozenset({"names of folders", "links", "forms of files", "extra files", "renamed entry"})
"""Kinds of which boards are built from the folders."""
WITH_SITE = frozenset({"environment"})
"""Kinds of which the site is built, too: it shows all that a submission says of itself."""
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile",
          "pickle.find_class", "socket.connect", "socket.bind")  # fmt: skip
WRITES = ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.remove", "os.chmod", "os.truncate")
BAD_IN_PAGES = re.compile(
    r"(?<!\\)<img src=x|(?<!\\)<script>alert|\x1b|\x07|\u202e|(?<!\\)\\write18|\]\(javascript:"
)
OF_FACTS = frozenset(
    {"parameters", "submission", "values", "reported", "marks", "license", "overlap"}
)
"""Columns that may differ: the submitter's word, or names of the submission."""

_events: list[str] = []
_watched: list[Path] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event in STARTS:
        _events.append(f"{event} {arguments!r:.200}")
    elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _note_path(event, arguments[0])
    elif event in WRITES:
        _note_path(event, arguments[0])


def _note_path(event: str, path: Any) -> None:
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path) != os.devnull:
        absolute = Path.cwd() / os.fsdecode(path)
        out = _watched[0]
        is_register = absolute.parent == out.parent and "DATES" in absolute.name
        own = absolute.is_relative_to(out) or absolute == out.parent or is_register
        if not own and "torchinductor" not in absolute.name:  # which torch makes when it is loaded
            _events.append(f"{event} {absolute}")


class Judge:
    """What a mutant is compared with: the honest submission, its report and its board."""

    def __init__(self, base: Path) -> None:
        self.registry: Registry = load_registry()
        self.suites = KnownSuites(LEADERBOARD / "suites")
        self.base = base
        (path,) = base.glob("submissions/*/*/*")
        self.path = path.relative_to(base)
        self.report = self.check(path)
        assert (self.report.ok, self.report.trust) == (True, "recomputed"), self.report
        self.table = judged_board(BOARD, [self.report], self.registry, {}).table

    def check(self, path: Path) -> CheckReport:
        return check(path, self.registry, self.suites)

    def ended(self, kind: str, seed: int, folder: Path) -> tuple[int, str]:
        """How the mutant of a seed ended, in the folder ``folder``."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        path = mutated(kind, seed, folder / self.path)
        (folder / "cwd").mkdir()
        _events.clear()
        try:
            _watched.append(folder / "out")
            os.chdir(folder / "cwd")
            began = time.process_time()
            code, text = self._judged(kind, path, folder)
            if (seconds := time.process_time() - began) > HANG_SECONDS:
                return FAULT, f"it took {seconds:.0f} s"
        finally:
            _watched.clear()
            os.chdir(self.base)
        if _events or list((folder / "cwd").iterdir()):
            return FAULT, f"it did {_events[:3]}"
        faults = list(_faults_of_pages(folder / "out"))
        return (FAULT, faults[0]) if faults else (code, text)

    def _judged(self, kind: str, path: Path, folder: Path) -> tuple[int, str]:
        out = folder / "out"
        try:
            report = self.check(path)
        except SubmissionError as error:
            if kind in BUILT | WITH_SITE:
                self._build(kind, folder)
            return UNREADABLE, str(error)
        if kind in BUILT | WITH_SITE:
            self._build(kind, folder)
        else:
            write_board(self._table(report), folder / "submissions", out)
        if not (report.ok and report.is_of_known_suite) or report.trust == "reported":
            return (REPORTED if report.ok else REFUSED), str(report)
        differing = list(self._differing(report))
        if differing:
            return FAULT, f"accepted as {report.trust}: {differing[:3]}"
        same = (report.bundle and report.bundle.records) == self.report.content.records
        return (ACCEPTED if same else REPORTED), str(report)

    def _build(self, kind: str, folder: Path) -> None:
        build(folder / "submissions", folder / "out", self.registry, self.suites,
              site=kind in WITH_SITE)  # fmt: skip

    def _table(self, report: CheckReport) -> BoardTable:
        try:
            return judged_board(BOARD, [report], self.registry, {}).table
        except Exception as error:  # noqa: BLE001  # as a board refuses what cannot be shown
            refused = report.refused_for(error)
            return judged_board(BOARD, [refused], self.registry, {}).table

    def _differing(self, report: CheckReport) -> Iterator[str]:
        """What of an accepted mutant differs, and is not marked as reported."""
        own, honest_ = report.content, self.report.content
        if report.trust != "recomputed":
            yield f"trust {report.trust}"
        entry, before = own.submission.entry, honest_.submission.entry
        if (entry.label, entry.backbone) != (before.label, before.backbone):
            yield f"entry {entry.label} with {entry.backbone}"
        for job, trial in honest_.predictions.items():
            other = own.predictions.get(job)
            if other is None or not all(map(np.array_equal, trial, other)):
                yield f"predictions of {job}"
        values, expected = _sure_values(report), _sure_values(self.report)
        yield from (f"value of {key}" for key in expected if values.get(key) != expected[key])
        yield from self._other_cells(report)

    def _other_cells(self, report: CheckReport) -> Iterator[str]:
        assert report.origins is not None
        suite = self.report.content.plan.suite
        sure = {label for label, claim in suite.claims.items()
                if report.origins.of_claim(claim) != "reported"}  # fmt: skip
        own, expected = ({verdict.claim: verdict for verdict in each.content.verdicts}
                         for each in (report, self.report))  # fmt: skip
        yield from (f"verdict on {claim}" for claim in sure if own.get(claim) != expected[claim])
        (row,), (honest_row,) = self._table(report).rows, self.table.rows
        reported = str(row.cells.get("reported"))
        for column in self.table.columns:
            is_sure = column.key not in OF_FACTS and column.title not in reported
            if is_sure and row.cells[column.key] != honest_row.cells[column.key]:
                yield f"column {column.key}: {row.cells[column.key]}"


def _sure_values(report: CheckReport) -> dict[Any, Any]:
    """The values that are not the submitter's word."""
    from transferbench.submission.diagnoses import recompute_diagnoses

    recomputation = recompute_diagnoses(report.content, load_registry())
    return {
        _key(row): (row.value, row.n, row.unit, row.low, row.high)
        for row in report.content.records
        if _origin(row, recomputation) != "reported"
    }


def _key(row: Record) -> tuple[Any, ...]:
    return (row.job, row.target, row.perturbation, row.initialization, row.replicate,
            row.other_initialization, row.diagnostic, row.metric,
            tuple(sorted(row.coordinates.items(), key=str)))  # fmt: skip


def _faults_of_pages(out: Path) -> Iterator[str]:
    for path in sorted(out.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json" and (bad := BAD_IN_PAGES.search(text)):
            yield f"{path.name} has {text[max(bad.start() - 40, 0) : bad.end() + 40]!r}"
        if path.suffix == ".csv":
            cells = (cell for row in csv.reader(text.splitlines()) for cell in row)
            yield from (f"{path.name}: {cell!r}" for cell in cells if cell.startswith(FORMULA)
                        and not re.fullmatch(r"-[0-9.e+-]+", cell))  # fmt: skip
    boards = [path.name for path in out.iterdir() if path.is_dir()] if out.is_dir() else []
    if set(boards) - {BOARD, "site"}:
        yield f"boards {boards}"


def main(folder: Path, kinds: Sequence[str], count: int) -> None:
    """Try ``count`` mutants of each kind."""
    base = folder / "base"
    honest(base)
    judge = Judge(base)
    sys.addaudithook(_audit)
    write_results(folder, kinds, count, partial(_tried, judge))


def _tried(judge: Judge, kind: str, seed: int, folder: Path) -> MutantResult:
    began = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, 3 * HANG_SECONDS)  # with the time to make the mutant
        code, text = judge.ended(kind, seed, folder / "mutant")
    except HangError:
        code, text = FAULT, f"no end: {traceback.format_exc()}"
    except Exception:  # noqa: BLE001  # a traceback is what is looked for
        code, text = FAULT, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return MutantResult(kind, seed, code, text[-3000:], time.perf_counter() - began,
                        peak_memory_bytes())  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]))
