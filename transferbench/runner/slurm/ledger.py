"""What the processes of one run on several nodes tell each other: files in a folder that all see.

Each process appends lines to a file of its own and reads those of the others from where it left
off, so that none is ever written by two. A job is claimed by a hard link, which succeeds for one:
on network file systems, too. A claim is never removed: a job that is to be computed again has a
new ``round``, and the claims of the earlier ones say nothing any more.

Rejected: locks, which some file systems keep to one node; one file for all, which two may tear.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from transferbench.errors import StoreError
from transferbench.files import disk_errors_explained, looked_again
from transferbench.runner.executors import Outcome

__all__ = ["Entry", "Ledger", "entry_of"]

LINK_LIMIT = 30_000
"""Links to one file: fewer than any file system allows."""
NAMING_SECONDS = 60
"""After which a claim has the name of its writer on all nodes."""


class Entry(NamedTuple):
    """How a job of a round ended, told by ``writer``.

    ``returned``: it is to be computed again and nothing was wrong with it. Of ``job`` "" the
    entry is on the writer itself: why it could not begin.
    """

    job: str
    round: int
    status: Literal["ok", "failed", "timeout", "oom", "lost", "returned"]
    message: str = ""
    traceback: str = ""
    wall_seconds: float = 0.0
    writer: str = ""

    @property
    def outcome(self) -> Outcome:
        """As an executor gives it; not of one that was returned."""
        if self.status == "returned":
            raise ValueError(self.job)
        return Outcome(self.job, self.status, self.message, self.traceback, self.wall_seconds)


def entry_of(outcome: Outcome, number: int) -> Entry:
    """An outcome of a job of a round."""
    job, status, message, traceback, seconds = outcome
    if status == "skipped":
        raise ValueError(job)
    return Entry(job, number, status, message, traceback, seconds)


_ENTRIES = TypeAdapter(Entry)


class Ledger:
    """The ledger in ``folder`` as ``writer`` sees it; ``rounds``: the present one of each job."""

    def __init__(self, folder: Path, writer: str) -> None:
        self.folder, self.writer = folder, writer
        self.rounds: Counter[str] = Counter()
        self._claims, self._entries = folder / "claims", folder / "entries"
        for each in (self._claims, self._entries):
            with disk_errors_explained(each):
                each.mkdir(parents=True, exist_ok=True)
        self._offsets: dict[str, int] = {}
        self._early: dict[tuple[str, int], Entry] = {}
        self._links = 0
        self._is_torn = False

    def claim(self, job: str) -> bool:
        """Whether this writer, and no other, computes a job in its present round.

        Raises: ``StoreError`` where the disk refuses.
        """
        with disk_errors_explained(self._claims):
            return self._is_first(job, self._claim_path(job))

    def _is_first(self, job: str, path: Path) -> bool:
        try:
            os.link(self._identity(), path)
        except FileExistsError:
            # A network file system may repeat a link that has succeeded.
            return self.holder(job) == self.writer
        except OSError:  # a file system without links, or an answer that was lost
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                return self.holder(job) == self.writer
            try:
                path.write_text(self.writer, "utf-8")
            except OSError:
                path.unlink()  # it would be a claim of nobody
                raise
        return True

    def holder(self, job: str) -> str | None:
        """Who claimed a job in its present round: None nobody, "" where that is not written."""
        path = self._claim_path(job)
        try:
            return looked_again(lambda: path.read_text("utf-8")).rstrip("\0")
        except OSError:
            return None

    def is_nobodys(self, job: str) -> bool:
        """Whether a claim has long been without a name: its node ended before that was written."""
        with suppress(OSError):
            age = time.time() - self._claim_path(job).stat().st_mtime
            return age > NAMING_SECONDS and self.holder(job) == ""
        return False

    def write(self, entry: Entry) -> None:
        """Tell all processes; this one reads it as the others do.

        Raises: ``StoreError`` where the disk refuses.
        """
        line = json.dumps(entry._replace(writer=self.writer), ensure_ascii=True) + "\n"
        path = self._entries / f"{self.writer}.jsonl"
        # A line of which the disk took a part must not spoil the next one.
        line, self._is_torn = "\n" * self._is_torn + line, True
        with disk_errors_explained(path), path.open("a", encoding="ascii") as stream:
            stream.write(line)
        self._is_torn = False

    def read(self) -> Iterator[Entry]:
        """What was told since the last time; of each round of a job one entry, the first.

        Raises: ``StoreError`` where the folder is there no more.
        """
        try:
            paths = looked_again(lambda: sorted(self._entries.iterdir()))
        except OSError as error:
            raise StoreError(
                f"cannot read {self._entries}: {error.strerror}; where the folder of the run was "
                "moved or removed meanwhile, run the command again: what is finished is in the "
                "store"
            ) from error
        for path in paths:
            lines: list[bytes] = []
            with suppress(OSError):  # of another node: it is read the next time
                lines = self._new_lines(path)
            for line in lines:
                with suppress(ValidationError):  # a line that its writer did not finish
                    yield from self._in_order(_ENTRIES.validate_json(line))

    def _in_order(self, entry: Entry) -> Iterator[Entry]:
        """The entry, and what was read before it of later rounds, which others have written."""
        if not entry.job:
            yield entry
            return
        self._early.setdefault((entry.job, entry.round), entry)
        while present := self._early.pop((entry.job, self.rounds[entry.job]), None):
            self.rounds[entry.job] += 1
            yield present

    def _new_lines(self, path: Path) -> list[bytes]:
        offset = self._offsets.get(path.name, 0)
        if path.stat().st_size <= offset:
            return []
        with path.open("rb") as stream:
            stream.seek(offset)
            content = stream.read()
        # Zeros stand for what is written and has not come here yet.
        content = content.partition(b"\0")[0]
        lines = content[: content.rfind(b"\n") + 1]
        self._offsets[path.name] = offset + len(lines)
        return lines.splitlines()

    def _claim_path(self, job: str) -> Path:
        folder = self._claims / job[:2]
        folder.mkdir(exist_ok=True)
        return folder / f"{job}.{self.rounds[job]}"

    def _identity(self) -> Path:
        """A file with the name of the writer, which claims are links to."""
        path = self._claims / f"{self.writer}.{self._links // LINK_LIMIT}"
        if self._links % LINK_LIMIT == 0:
            path.write_text(self.writer, "utf-8")
        self._links += 1
        return path
