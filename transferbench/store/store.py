"""Reading, publishing and setting aside the artefacts below one folder."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from transferbench.errors import StoreError
from transferbench.store.artefact import RETURN_SECONDS, Artefact, fault_of, open_artefact
from transferbench.store.contents import CONTENTS
from transferbench.store.disk import explained, flush, remove, require_writable
from transferbench.store.documents import (
    MANIFEST,
    Failure,
    FailureStatus,
    Manifest,
    read_document,
    write_document,
)
from transferbench.store.draft import (
    ABANDONED_SECONDS,
    Draft,
    Writer,
    draft_name,
    host_name,
    is_abandoned,
    newest_change,
    writer_of,
)
from transferbench.store.lease import Waiting, leased, silent

__all__ = ["Store", "store_around"]

FOLDERS = ("corrupt", "jobs", "failures", "partial", "leases", "unfinished", CONTENTS)

OF_OTHERS = ("datasets", "compiled")
"""Folders that others than the store make in it."""
RUNS = "runs"
"""The folder with the paths of runs elsewhere."""
UNFINISHED_SECONDS = 30 * 24 * 3600
"""After so long nobody goes on with what was left unfinished."""

OCCUPIED = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}
"""Errors of a rename onto something that is there."""

SETTLE_SECONDS = (0.1, 0.4, 1.0, 2.0)
"""How long a job that another host finished is looked for: hosts may cache what they last saw."""

PUBLISH_ATTEMPTS = 10


class Store:
    """The artefacts below ``root``; safe for concurrent readers and writers on several hosts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = host_name()
        self.set_aside: list[str] = []
        """Sentences on what was in the place of a folder of the store."""
        self._prepared = False
        self._verified: set[tuple[Any, ...]] = set()

    @property
    def datasets(self) -> Path:
        """The folder of the decoded images, which `transferbench.data` keeps."""
        return self.root / "datasets"

    @property
    def compiled(self) -> Path:
        """The folder of what torch has compiled: a cache, which may be removed."""
        return self.root / "compiled"

    @property
    def corrupt(self) -> Path:
        """The folder of what was set aside because it is damaged."""
        return self.root / "corrupt"

    # --- reading ------------------------------------------------------------------------------

    def is_done(self, job: str) -> bool:
        """Whether there is a valid manifest, and every file with its size."""
        return self.open(job) is not None

    def settle(self, jobs: Iterable[str]) -> set[str]:
        """Of jobs that somebody finished, those that are not seen here, in a few seconds."""
        unseen = {job for job in jobs if not self.is_done(job)}
        for seconds in SETTLE_SECONDS:
            if not unseen:
                break
            time.sleep(seconds)
            unseen = {job for job in unseen if not self.sees(job)}
        return unseen

    def sees(self, job: str) -> bool:
        """As ``is_done``, of a job that another host may have finished just now."""
        if self.is_done(job):
            return True
        # Network file systems look again when a folder is opened.
        for folder in (self.root / "jobs", self.folder_of(job).parent, self.folder_of(job)):
            with suppress(OSError):
                os.scandir(folder).close()
        return self.is_done(job)

    def open(self, job: str) -> Artefact | None:
        """The artefact of a job, None where it is not done."""
        return open_artefact(self.folder_of(job), job, self._verified)

    def manifest(self, job: str, folder: Path | None = None) -> Manifest | None:
        """The manifest of an artefact whose files may be damaged; None where it is itself.

        ``folder``: of an artefact that was set aside.
        """
        return read_document(Manifest, str((folder or self.folder_of(job)) / MANIFEST), job)

    def last_aside(self, job: str) -> Path | None:
        """The artefact of a job that was set aside last, None where there is none."""
        asides: dict[Path, int] = {}
        for path in self.corrupt.glob(f"{job}.*"):
            with suppress(OSError):  # removed just now
                asides[path] = path.lstat().st_ctime_ns  # that of the rename
        return max(asides, key=lambda path: asides[path], default=None)

    def artefact(self, job: str) -> Artefact:
        """The artefact of a job. Raises: ``StoreError`` where it is not done."""
        for seconds in (*RETURN_SECONDS, 0):
            if artefact := self.open(job):
                return artefact
            time.sleep(seconds)
        failure = self.failure(job)
        status = f"{failure.status}: {failure.message}" if failure else "it has not finished"
        raise StoreError(
            f"{self.root} contains no finished job {job} ({status}); run the suite again with this "
            "folder to complete it"
        )

    def failure(self, job: str) -> Failure | None:
        """The last failed attempt, None if the job is done or never ran."""
        if self.is_done(job):
            return None
        return read_document(Failure, str(self._failure_path(job)), job)

    def damage(self, job: str, *, everything: bool = False) -> str:
        """Why what is in a job's place is not its finished artefact; "" where it is, or nothing.

        ``everything``: read all files of one that looks finished, too.
        """
        folder = self.folder_of(job)
        if not os.path.lexists(folder) or (not everything and self.is_done(job)):
            return ""
        return fault_of(folder, job, self._verified)

    def interrupted(self) -> dict[str, Writer]:
        """Jobs that a process of this machine was writing when it ended, and who it was."""
        drafts: dict[str, list[Path]] = {}
        for draft in (self.root / "partial").glob("*"):
            drafts.setdefault(draft.name.partition(".")[0], []).append(draft)
        left = {job: own for job, own in drafts.items()
                if all(is_abandoned(draft, self.host) for draft in own)}  # fmt: skip
        writers = {job: writer_of(own[0].name) for job, own in left.items()}
        return {job: writer for job, writer in writers.items()
                if writer and writer.host == self.host
                and not self.is_done(job) and not self.failure(job)}  # fmt: skip

    def registered_runs(self) -> list[Path]:
        """The folders of runs elsewhere that have used this store, sorted; some may be gone."""
        folders = []
        for path in (self.root / RUNS).glob("*"):
            with suppress(OSError, ValueError):
                folders.append(Path(path.read_text(encoding="utf-8")))
        return sorted(folders)

    # --- writing ------------------------------------------------------------------------------

    def register_run(self, folder: Path) -> None:
        """Remember a run that does not lie beside the store, so that its jobs are not removed."""
        folder = folder.absolute()
        # A link to the store lies elsewhere than the store.
        beside = Path(os.path.realpath(self.root)).parent
        if Path(os.path.realpath(folder.parent)) == beside or not self.root.is_dir():
            return
        path = self._registration(folder)
        # Of a store that may only be read, nothing can be removed either.
        with suppress(OSError, ValueError):
            path.parent.mkdir(exist_ok=True)
            path.write_text(str(folder), encoding="utf-8")

    def unregister_run(self, folder: Path) -> None:
        """Forget a run that was deleted."""
        remove(self._registration(folder))

    def _registration(self, folder: Path) -> Path:
        return self.root / RUNS / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]

    def prepare(self) -> None:
        """Create the folders and tidy up; the first write does it too.

        Raises: ``StoreError`` where the disk refuses.
        """
        for folder in (self.root / name for name in FOLDERS):
            with explained(self.root, folder):
                self._ensure_folder(folder)
                require_writable(folder)
        self.tidy()
        self._prepared = True

    def repair(self, name: str) -> None:
        """Set aside what is in the place of a folder of the store and is none.

        Raises: ``StoreError`` where it is a link to nothing, or the disk refuses.
        """
        folder = self.root / name
        if os.path.lexists(folder) and not folder.is_dir():
            with explained(self.root, folder):
                self._ensure_folder(folder)

    def tidy(self) -> None:
        """Remove what dead writers left, as far as the disk lets."""
        for draft in (self.root / "partial").glob("*"):
            if is_abandoned(draft, self.host):
                remove(draft)
        for lease in (self.root / "leases").glob("*"):
            if time.time() - newest_change(lease) > ABANDONED_SECONDS:
                remove(lease)
        for unfinished in (self.root / "unfinished").glob("*"):
            if time.time() - newest_change(unfinished) > UNFINISHED_SECONDS:
                remove(unfinished)

    @contextmanager
    def writing(
        self, job: str, kind: str, waiting: Waiting = silent, files: Collection[str] = ()
    ) -> Iterator[Draft]:
        """A draft that is published when the block ends, and removed where it raises.

        Waits for another writer of this job. An existing artefact is not replaced, but where it
        lacks one of ``files``: by one that has all of its own, with the same content.
        Raises: ``StoreError`` where that has other content.
        """
        folder = self.folder_of(job)
        with explained(self.root, folder):
            self._prepare_once()
            if not folder.parent.is_dir():
                self._ensure_folder(folder.parent)
                flush(folder.parent.parent)
            require_writable(folder.parent)
        with ExitStack() as stack:
            lease = self.root / "leases" / job
            stack.enter_context(leased(lease, waiting, lambda: self._writers(job),
                                       lambda: self._has(job, files)))  # fmt: skip
            partial = self.root / "partial" / draft_name(job, self.host)
            stack.callback(remove, partial)
            unfinished = self.root / "unfinished" / job
            already_done = self._is_intact(job) and self._has(job, files)
            draft = Draft(partial, unfinished, already_done=already_done)
            if draft.already_done:
                yield draft
                return
            with explained(self.root, folder):
                partial.mkdir(exist_ok=True)  # a name of its own, where a call may be repeated
            with explained(self.root, folder, foreign=True):
                yield draft
            with explained(self.root, folder):
                draft.complete(job, kind)
                if files and self._is_intact(job):
                    self._extend(job, partial)
                else:
                    self._publish(job, partial)
            remove(unfinished)

    def remove(self, job: str) -> None:
        """Remove an artefact, at once for readers, and the failure of the job.

        Contents that it shares with others stay with them.
        """
        folder = self.folder_of(job)
        with explained(self.root, folder):
            self._prepare_once()
            partial = self.root / "partial" / draft_name(job, self.host)
            with suppress(FileNotFoundError):
                folder.rename(partial)
            remove(partial)
            with suppress(FileNotFoundError):
                self._failure_path(job).unlink()

    def is_being_written(self, job: str) -> bool:
        """Whether a living process writes the artefact of a job, as far as can be told here."""
        return bool(self._writers(job))

    def record_failure(
        self, job: str, kind: str, status: FailureStatus, message: str, traceback: str = ""
    ) -> None:
        """Record a failed attempt; it is never served as a result."""
        path = self._failure_path(job)
        message, traceback = _text(message), _text(traceback)
        failure = Failure(id=job, kind=kind, status=status, message=message, traceback=traceback)
        with explained(self.root, path):
            self._prepare_once()
            partial = self.root / "partial" / draft_name(job, self.host)
            try:
                write_document(partial, failure)
                flush(partial)
                if path.is_dir():
                    self._move_aside(path)
                partial.replace(path)
            finally:
                remove(partial)

    def discard(self, job: str) -> Path | None:
        """Set a damaged artefact aside; returns where it is then, None where there was none.

        An intact one, which another process computed again meanwhile, stays.
        """
        folder = self.folder_of(job)
        with explained(self.root, folder):
            self._prepare_once()
            if not os.path.lexists(folder) or self._is_intact(job):
                return None
            return self._set_aside(job)

    def _publish(self, job: str, draft: Path) -> None:
        """Rename a draft into place, unless an intact artefact is there: another was first."""
        folder = self.folder_of(job)
        for _ in range(PUBLISH_ATTEMPTS):
            try:
                draft.rename(folder)
            except OSError as error:
                # A network file system may repeat a rename that has succeeded.
                if error.errno not in OCCUPIED | {errno.ENOENT}:
                    raise
                if self._is_intact(job):
                    break
                if error.errno in OCCUPIED:
                    self._set_aside(job)
                elif draft.exists():
                    self._ensure_folder(folder.parent)
                else:
                    raise
            else:
                flush(folder.parent)
                break
        else:
            raise StoreError(f"{folder} is damaged whenever it is written; check the disk")
        with suppress(OSError):  # a failure is not looked at where there is an artefact
            remove(self._failure_path(job))

    def _extend(self, job: str, draft: Path) -> None:
        """Rename a draft into the place of an artefact of which it has all files, and more.

        Raises: ``StoreError`` where one of them has other content.
        """
        before, after = self.manifest(job), self.manifest(job, draft)
        if before is None or after is None:
            raise StoreError(f"the artefact of job {job} changed while it was computed again")
        differing = sorted(name for name in before.files
                           if before.files[name] != after.files.get(name))  # fmt: skip
        if differing:
            raise StoreError(
                f"job {job} stored fewer states than are read now, and computed again here it has "
                f"other bits ({', '.join(differing)}): compute this run in a new store (--store), "
                "or where the job was computed"
            )
        aside = self._move_aside(self.folder_of(job))
        self._publish(job, draft)
        if aside is not None:
            remove(aside)

    def _set_aside(self, job: str) -> Path | None:
        """Move what is in a job's place to ``corrupt``; returns where it is then."""
        folder = self.folder_of(job)
        aside = self._move_aside(folder)
        if aside and self._is_intact(job, aside):
            # Another published it between our look and our rename.
            with suppress(OSError):
                aside.rename(folder)
                return None
        return aside

    def _move_aside(self, path: Path) -> Path | None:
        """The new place of ``path`` in ``corrupt``, None where it is gone already."""
        aside = self.corrupt / f"{path.name}.{secrets.token_hex(4)}"
        if path.parent == self.root:
            aside = self.root / aside.name
        try:
            if path.is_dir() and not path.is_symlink():
                with suppress(PermissionError):  # another user's, which can be moved as it is
                    path.chmod(0o700 | path.stat().st_mode)  # else only root may move a folder
            path.rename(aside)
        except FileNotFoundError:
            return None
        return aside

    # --- shared by both -------------------------------------------------------------------

    def _has(self, job: str, files: Collection[str]) -> bool:
        artefact = self.open(job)
        return artefact is not None and set(files) <= set(artefact.names)

    def folder_of(self, job: str) -> Path:
        """Where the artefact of a job is, or would be."""
        _check_id(job)
        return self.root / "jobs" / job[:2] / job

    def _failure_path(self, job: str) -> Path:
        _check_id(job)
        return self.root / "failures" / f"{job}.json"

    def _prepare_once(self) -> None:
        if not self._prepared:
            self.prepare()

    def _ensure_folder(self, folder: Path) -> None:
        """Create a folder; a file in its place is damage, and is set aside."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            if folder.is_symlink():
                raise StoreError(
                    f"{folder} is a link to {folder.readlink()}, which is not a folder; mount what "
                    "it leads to, or remove the link"
                ) from error
            aside = self._move_aside(folder)
            self.set_aside.append(f"{folder} is not a folder; it is set aside as {aside}")
            folder.mkdir(exist_ok=True)

    def _writers(self, job: str) -> str:
        """The living writers of a job, as far as they can be told here."""
        drafts = (self.root / "partial").glob(f"{job}.*")
        living = (writer_of(draft.name) for draft in drafts if not is_abandoned(draft, self.host))
        return ", ".join(sorted(map(str, filter(None, living))))

    def _is_intact(self, job: str, folder: Path | None = None) -> bool:
        return not fault_of(folder or self.folder_of(job), job, self._verified)


def _check_id(job: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", job):
        raise StoreError(f"{job!r} is not the id of a job: give 64 hexadecimal digits")


def _text(message: str) -> str:
    """``message`` without lone surrogates, which come from file names that are not UTF-8."""
    return message.encode("utf-8", "backslashreplace").decode("utf-8")


def store_around(path: Path) -> Path | None:
    """The store that ``path`` is, or is inside a folder of; None where it is outside of any."""
    path = Path(os.path.realpath(path))
    for root in (path, *path.parents):
        inside = root == path or path.relative_to(root).parts[0] in {*FOLDERS, *OF_OTHERS}
        if inside and all((root / name).is_dir() for name in ("jobs", "leases", "partial")):
            return root
    return None
