"""Withdrawn submissions: a file each, beside the submissions, which never change.

``withdrawals/<submission id>.json`` says who took a submission back, when and why, and which one
corrects it. The submission stays where it is: its history can be read, and its board lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from transferbench.errors import SubmissionError
from transferbench.files import write_json
from transferbench.identity import Sha256
from transferbench.submission.bundle import (
    SUBMISSION,
    VISIBLE,
    Submission,
    Text,
    options_explained,
    parse_json,
)
from transferbench.submission.certificate import CalendarDay

__all__ = ["WITHDRAWALS", "Withdrawal", "withdraw", "withdrawals_beside"]

WITHDRAWALS = "withdrawals"
"""The folder beside that of the submissions."""
MAX_BYTES = 2**16
Reason = Annotated[str, StringConstraints(min_length=10, max_length=1000, pattern=VISIBLE)]


class Withdrawal(BaseModel):
    """That ``submission`` was withdrawn by ``by``; ``corrected_by``: the one in its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    submission: Sha256
    board: Text
    entry: Text
    by: Text
    date: CalendarDay
    reason: Reason
    corrected_by: Sha256 | None = None

    @property
    def text(self) -> str:
        """A sentence's end: who, when, what stands in its place, and why."""
        instead = f", corrected by {self.corrected_by[:10]}" if self.corrected_by else ""
        return f"on {self.date} by {self.by}{instead}: {self.reason}"


def withdraw(path: Path, by: str, reason: str, corrected_by: Path | None, out: Path) -> Path:
    """Write the withdrawal of the submission in the folder ``path`` into ``out``.

    ``corrected_by``: the folder of another submission of the same entry on the same board.
    Raises: ``SubmissionError`` where one of them is none, they do not belong together, it is
    withdrawn already, or ``by`` or ``reason`` cannot stand on a board.
    """
    head = _head(path)
    other = None if corrected_by is None else _head(corrected_by)
    if other is not None:
        pairs = [(each.board, each.entry.weightless_name) for each in (head, other)]
        if pairs[0] != pairs[1] or head.id == other.id:
            raise SubmissionError(
                f"{corrected_by} is of {pairs[1][1]} on {pairs[1][0]}, and corrects no other "
                f"submission of {pairs[0][1]} on {pairs[0][0]}; give another submission of that"
            )
    target = out / f"{head.id}.json"
    if target.exists():
        raise SubmissionError(f"{path} is withdrawn already, see {target}")
    with options_explained():
        withdrawal = Withdrawal(
            submission=head.id, board=head.board, entry=head.entry.label, by=by,
            date=datetime.now(UTC).date().isoformat(), reason=reason,
            corrected_by=other and other.id,
        )  # fmt: skip
    write_json(target, withdrawal.model_dump(mode="json"), canonical=True)
    return target


def _head(path: Path) -> Submission:
    try:
        return Submission.model_validate(parse_json(path / SUBMISSION))
    except (SubmissionError, ValidationError) as error:
        raise SubmissionError(f"{path} is not a submission: give its folder") from error


def withdrawals_beside(submissions: Path) -> Mapping[str, Withdrawal]:
    """The withdrawals of the submissions in a folder, by their ids.

    Raises: ``SubmissionError`` for a file that is none: a board would rank what was taken back.
    """
    withdrawals = {}
    for path in sorted((submissions.parent / WITHDRAWALS).glob("*.json")):
        try:
            withdrawals[path.stem] = _read(path)
        except (OSError, SubmissionError, ValidationError) as error:
            why = " ".join(str(error).split())[:200]
            raise SubmissionError(f"{WITHDRAWALS}/{path.name!a}: {why}") from error
    return withdrawals


def _read(path: Path) -> Withdrawal:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise SubmissionError("it is no plain file of the size of a withdrawal")
    withdrawal = Withdrawal.model_validate(parse_json(path))
    if path.stem != withdrawal.submission:
        raise SubmissionError(f"it is of {withdrawal.submission}: call the file so")
    return withdrawal
