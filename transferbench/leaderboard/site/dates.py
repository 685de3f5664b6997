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

__all__ = ["DATES", "dates_with", "read_dates"]

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


def dates_with(submissions: Path, folders: Iterable[str]) -> Mapping[str, date]:
    """``read_dates``, after each of ``folders`` that is not there was appended with today's date.

    Raises: as ``read_dates``.
    """
    dates = read_dates(submissions)
    if new := [folder for folder in folders if folder not in dates]:
        today = datetime.now(UTC).date()
        path = submissions.parent / DATES
        lines = [*_lines(path)] or [HEAD.rstrip()]
        write_text(path, "\n".join([*lines, *(f"{today} {folder}" for folder in new)]) + "\n")
        dates |= dict.fromkeys(new, today)
    return dates


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
