"""The register of suites: what was fixed, and when, before there were results.

A line is ``DATE SUITE DIGEST``, such as ``2026-12-01 quickstart@2.0 0a1b...``; lines are only ever
appended. It freezes a MAJOR: its claims, thresholds and replicates, and all else that moves the
digest. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import SuiteError
from transferbench.suite.schema import Suite

__all__ = ["REGISTER", "Registration", "read_register", "register_beside", "registration_of"]

REGISTER = Path("leaderboard") / "suites" / "PREREGISTERED"
"""The register of the published boards, in the repository."""

LINE = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}) (?P<suite>[a-z0-9][a-z0-9-]*@[1-9][0-9]*\.[0-9]+) "
    r"(?P<digest>[0-9a-f]{64})"
)


def register_beside(submissions: Path) -> dict[str, Registration]:
    """The register of the boards of a folder of submissions; empty where they have none.

    Raises: as ``read_register``.
    """
    path = submissions.parent / REGISTER.relative_to(REGISTER.parts[0])
    return read_register(path) if path.exists() else {}


class Registration(NamedTuple):
    """A line of the register: a suite and the digest that it had on a date."""

    date: date
    suite: str
    digest: str

    @property
    def board(self) -> str:
        """``name@MAJOR``, which is registered once."""
        return self.suite.partition(".")[0]


def read_register(path: Path) -> dict[str, Registration]:
    """``name@MAJOR`` -> its registration, in the order of the file.

    Raises: ``SuiteError`` where the file cannot be read, a line is not a registration, a date is
    before that of the line above, or a MAJOR is registered twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SuiteError(f"cannot read the register of suites {path}: {reason}") from error
    registered: dict[str, Registration] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        entry = _registration(line, f"{path}:{number}")
        if entry.board in registered:
            raise SuiteError(
                f"{path}:{number}: {entry.board} is registered already, in the line of "
                f"{registered[entry.board].date}; a change needs a new MAJOR"
            )
        if registered and entry.date < next(reversed(registered.values())).date:
            raise SuiteError(f"{path}:{number}: {entry.date} is before the date of the line above")
        registered[entry.board] = entry
    return registered


def _registration(line: str, where: str) -> Registration:
    mistake = SuiteError(
        f"{where}: {line[:60]!r} is not a registration; write YEAR-MONTH-DAY name@MAJOR.MINOR and "
        "the sha256 that transferbench validate prints"
    )
    match = LINE.fullmatch(line)
    if match is None:
        raise mistake
    try:
        day = date.fromisoformat(match["date"])
    except ValueError as error:
        raise mistake from error
    return Registration(day, match["suite"], match["digest"])


def registration_of(suite: Suite, registered: Mapping[str, Registration]) -> Registration | None:
    """The registration of ``suite``; None where its MAJOR has none.

    Raises: ``SuiteError`` where its MAJOR is registered with another version or digest.
    """
    entry = registered.get(suite.board)
    if entry is not None and (entry.suite, entry.digest) != (suite.id, suite.digest):
        raise SuiteError(
            f"{suite.id} with digest {suite.digest[:12]} is not what was preregistered on "
            f"{entry.date}: {entry.suite} with digest {entry.digest[:12]}; a change needs a new "
            "MAJOR"
        )
    return entry
