"""The register of dates: the day on which each submission was first on a board.

A submission says nothing of time, so the day stands beside it, in the file ``DATES`` next to the
folder of submissions. A line is ``DATE FOLDER``, such as
``2026-11-27 quickstart@2/fixup-resnet14/0364...``; lines are only ever appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from transferbench.errors import SubmissionError
from transferbench.files import write_text

__all__ = ["DATES", "append_dates", "dates_of", "read_dates"]

DATES = "DATES"
LINE = re.compile(r"(\d{4}-\d{2}-\d{2}) (\S+)")
HEAD = "# The day on which each submission was first on a board. Lines are only ever appended.\n"


def read_dates(submissions: Path) -> dict[str, date]:
    """Folder of a submission, below ``submissions`` -> its day; empty where there is no register.

    Raises: ``SubmissionError`` where a line is not a date and a folder.
    """
    path = submissions.parent / DATES
    dates: dict[str, date] = {}
    for number, line in enumerate(_lines(path), start=1):
        match = LINE.fullmatch(line)
        try:
            if match:
                dates.setdefault(match[2], date.fromisoformat(match[1]))
        except ValueError:
            match = None
        if match is None and line.strip() and not line.startswith("#"):
            raise SubmissionError(
                f"{path}:{number}: {line[:60]!r} is not YEAR-MONTH-DAY and the folder of a "
                "submission; correct the line, or take it out"
            )
    return dates


def dates_of(submissions: Path, folders: Iterable[str]) -> Mapping[str, date]:
    """``read_dates``, with today for each of ``folders`` that is not there.

    Raises: as ``read_dates``.
    """
    known, today = read_dates(submissions), datetime.now(UTC).date()
    return known | {folder: today for folder in folders if folder not in known}


def append_dates(submissions: Path, dates: Mapping[str, date]) -> None:
    """Append those of ``dates`` that the register lacks. Raises: as ``read_dates``."""
    known = read_dates(submissions)
    if new := [f"{day} {folder}" for folder, day in dates.items() if folder not in known]:
        path = submissions.parent / DATES
        lines = [*_lines(path)] or [HEAD.rstrip()]
        write_text(path, "\n".join([*lines, *new]) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
