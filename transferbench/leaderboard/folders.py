"""The folders of submissions: which there are, and which names no board takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import SubmissionError
from transferbench.submission.bundle import SUBMISSION

__all__ = ["Survey", "survey"]

BOARD = re.compile(r"[a-z0-9][a-z0-9-]{0,59}@[1-9][0-9]{0,8}")
NAME = re.compile(r"[A-Za-z0-9@+_-][A-Za-z0-9@+._-]{0,250}")
"""Folders of entries and of submissions."""
LETTERS = "letters, digits and @+._-"
SHOWN = 60
"""Characters of a name that a sentence shows."""


class Survey(NamedTuple):
    """The folders of submissions by board, and a sentence on each that no board takes."""

    by_board: dict[str, list[Path]]
    left_out: list[str]


def survey(submissions: Path) -> Survey:
    """What is below ``submissions``, as ``<suite>@<major>/<entry>/<submission>``, sorted.

    Names are matched before anything is read: they stand in every format of a board, and a board's
    is a folder beside others. Raises: ``SubmissionError`` where there is no such folder, or a part
    of it cannot be read.
    """
    if not submissions.is_dir():
        raise SubmissionError(
            f"there is no folder {submissions}; give the one that holds"
            " <suite>@<major>/<entry>/<submission>"
        )
    result = Survey({}, [])
    for board in _inside(submissions):
        if _refused(board, BOARD, "name@MAJOR of a suite", result):
            continue
        for entry in _inside(board):
            if not _refused(entry, NAME, LETTERS, result):
                result.by_board.setdefault(board.name, []).extend(_submissions(entry, result))
    return Survey({board: paths for board, paths in result.by_board.items() if paths},
                  result.left_out)  # fmt: skip


def _submissions(entry: Path, result: Survey) -> Iterator[Path]:
    for folder in _inside(entry):
        # The folder says which board a submission is for, so that a bad one is listed too.
        if folder / SUBMISSION in _inside(folder) and not _refused(folder, NAME, LETTERS, result):
            yield folder


def _refused(path: Path, pattern: re.Pattern[str], allowed: str, result: Survey) -> bool:
    """Whether no board takes ``path``; that is said, but of hidden folders."""
    if pattern.fullmatch(path.name) and not path.is_symlink():
        return False
    if path.is_dir() and not path.name.startswith("."):
        why = "it is a link" if path.is_symlink() else f"its name is not {allowed}"
        result.left_out.append(f"{path.name[:SHOWN]!a} is left out: {why}")
    return True


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
