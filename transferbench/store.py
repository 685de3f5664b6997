"""The store: artefacts of finished jobs, one folder per job id, written atomically.

    jobs/<id[:2]>/<id>/    manifest.json and the files it lists, with size and sha256
    failures/<id>.json     status and message of the last failed attempt, until one succeeds
    partial/<id>/          artefacts that are being written
    corrupt/<id>/          artefacts that differ from their manifest
    locks/<id>             held by the writer of a job, released when its process ends

Readers need no lock: a folder appears in ``jobs`` by a rename, after its content is on the disk.
Lock files are never removed: with another file at the same path two writers could hold the lock.
Rejected: joblib.Memory, diskcache and zarr, none of which publishes a set of files atomically,
verifies them by digest and records failures.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from transferbench.errors import StoreError
from transferbench.identity import file_digest

__all__ = ["Artefact", "CorruptArtefactError", "Draft", "Failure", "Store"]

FailureStatus = Literal["failed", "timeout", "oom", "skipped"]

MANIFEST = "manifest.json"
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*$"

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=NAME_PATTERN)]
Document = TypeVar("Document", bound="_Document")


class CorruptArtefactError(StoreError):
    """An artefact differs from its manifest; ``job`` is the id of the job to discard and rerun."""

    def __init__(self, job: str, path: Path, fault: str) -> None:
        super().__init__(f"the artefact of job {job} is corrupt: {path} {fault}; it must be redone")
        self.job = job


class _Document(BaseModel):
    """A small JSON file of the store; one that is invalid counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: JobId
    kind: str


class _FileFacts(BaseModel):
    """Size and digest of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: JobId
    size_bytes: Annotated[int, Field(ge=0)]


class _Manifest(_Document):
    """The files of an artefact; ``facts`` are not part of the job's identity."""

    status: Literal["ok"] = "ok"
    files: dict[FileName, _FileFacts]
    facts: dict[str, Any]


class Failure(_Document):
    """The last failed attempt at a job."""

    status: FailureStatus
    message: str
    traceback: str


class Artefact:
    """The files of a finished job; each is verified by sha256 on first access."""

    def __init__(self, folder: Path, manifest: _Manifest, verified: set[tuple[Any, ...]]) -> None:
        self._folder = folder
        self._manifest = manifest
        self._verified = verified
        self.job = manifest.id
        self.kind = manifest.kind

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts recorded with the files: seconds, host, versions ..."""
        return self._manifest.facts

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(sorted(self._manifest.files))

    def path(self, name: str) -> Path:
        """The path of a file.

        Raises: ``CorruptArtefactError`` where it differs from the manifest.
        """
        facts = self._manifest.files.get(name)
        if facts is None:
            available = ", ".join(self.names) or "no files"
            raise StoreError(f"job {self.job} left no file {name!r}; there are: {available}")
        path = self._folder / name
        try:
            status = path.lstat()
            key = (path, status.st_size, status.st_mtime_ns, facts.sha256)
            if key in self._verified:
                return path
            intact = stat.S_ISREG(status.st_mode) and file_digest(path) == facts.sha256
        except OSError as error:
            raise CorruptArtefactError(self.job, path, f"cannot be read ({error})") from error
        if not intact:
            raise CorruptArtefactError(self.job, path, "does not have the sha256 of its manifest")
        self._verified.add(key)
        return path

    def json(self, name: str) -> Any:
        """The value of a JSON file."""
        return json.loads(self.path(name).read_bytes())


class Draft:
    """An artefact being written, invisible to readers until it is complete.

    ``already_done``: another writer finished the job while this one waited for the lock, so that
    there is nothing to compute. ``facts``: to be filled, not part of the job's identity.
    """

    def __init__(self, folder: Path, *, already_done: bool) -> None:
        self._folder = folder
        self.already_done = already_done
        self.facts: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """The path to write a file to."""
        if name == MANIFEST or not re.fullmatch(NAME_PATTERN, name):
            raise StoreError(
                f"an artefact cannot hold a file named {name!r}; use letters, digits and . _ + - "
                f"without a folder, and not {MANIFEST!r}"
            )
        return self._folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON. Raises: ``ValueError`` for NaN and infinities."""
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        self.path(name).write_text(text, encoding="utf-8")


class Store:
    """The artefacts below ``root``; safe for concurrent readers and writers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prepared = False
        self._verified: set[tuple[Any, ...]] = set()

    # --- reading ------------------------------------------------------------------------------

    def is_done(self, job: str) -> bool:
        """Whether there is a valid manifest, and every file with its size."""
        return self._manifest(job) is not None

    def artefact(self, job: str) -> Artefact:
        """The artefact of a job. Raises: ``StoreError`` where it is not done."""
        if manifest := self._manifest(job):
            return Artefact(self._folder(job), manifest, self._verified)
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
        return self._read(Failure, self._failure_path(job), job)

    # --- writing ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the folders and remove partial files of dead writers; the first write does it too.

        Raises: ``StoreError`` where the disk refuses.
        """
        with self._explained(self.root):
            for name in ("jobs", "failures", "partial", "corrupt", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            for leftover in (self.root / "partial").iterdir():
                with self._locked(leftover.name, wait=False) as acquired:
                    if acquired:
                        _remove(leftover)
        self._prepared = True

    @contextmanager
    def writing(self, job: str, kind: str) -> Iterator[Draft]:
        """A draft that is published when the block ends, and removed where it raises.

        Waits for another writer of this job. An existing artefact is not replaced.
        """
        folder = self._partial(job)
        with ExitStack() as stack:
            with self._explained(folder):
                stack.enter_context(self._locked(job))
                _remove(folder)
                folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            draft = Draft(folder, already_done=self.is_done(job))
            with self._explained(folder, foreign=True):
                yield draft
            with self._explained(folder):
                manifest = _manifest_of(folder, job, kind, draft.facts)
                self._publish(manifest, folder)

    def record_failure(
        self, job: str, kind: str, status: FailureStatus, message: str, traceback: str = ""
    ) -> None:
        """Record a failed attempt; it is never served as a result."""
        path, swap = self._failure_path(job), f"{job}.swap"
        message, traceback = _text(message), _text(traceback)
        failure = Failure(id=job, kind=kind, status=status, message=message, traceback=traceback)
        with self._explained(path):
            partial = self._partial(swap)
            with self._locked(swap):
                _write(partial, failure)
                partial.replace(path)

    def discard(self, job: str) -> None:
        """Move a corrupt artefact aside; an intact one (rerun by another process) stays."""
        folder = self._folder(job)
        if not self._prepared:
            self.prepare()
        with self._explained(folder), self._locked(f"{job}.swap"):
            if folder.exists() and not self._is_intact(job):
                self._move_aside(job)

    def _publish(self, manifest: _Manifest, partial: Path) -> None:
        folder = self._folder(manifest.id)
        with self._locked(f"{manifest.id}.swap"):
            if self._is_intact(manifest.id):
                return
            if folder.exists():
                self._move_aside(manifest.id)
            folder.parent.mkdir(exist_ok=True)
            partial.rename(folder)
            _flush(folder.parent)
            _flush(folder.parent.parent)
            self._failure_path(manifest.id).unlink(missing_ok=True)

    def _move_aside(self, job: str) -> None:
        aside = self.root / "corrupt" / job
        _remove(aside)
        self._folder(job).rename(aside)

    # --- shared by both -------------------------------------------------------------------

    def _folder(self, job: str) -> Path:
        _check_id(job)
        return self.root / "jobs" / job[:2] / job

    def _failure_path(self, job: str) -> Path:
        _check_id(job)
        return self.root / "failures" / f"{job}.json"

    def _partial(self, name: str) -> Path:
        """A path in ``partial``, guarded by the lock of the same name."""
        _check_id(name.removesuffix(".swap"))
        if not self._prepared:
            self.prepare()
        return self.root / "partial" / name

    def _manifest(self, job: str) -> _Manifest | None:
        folder = self._folder(job)
        manifest = self._read(_Manifest, folder / MANIFEST, job)
        if manifest is None:
            return None
        # Strings are faster than paths, and a run checks thousands of jobs.
        prefix = str(folder)
        sizes = ((f"{prefix}/{name}", file.size_bytes) for name, file in manifest.files.items())
        return manifest if all(_has_size(path, size) for path, size in sizes) else None

    def _is_intact(self, job: str) -> bool:
        try:
            artefact = self.artefact(job)
            for name in artefact.names:
                artefact.path(name)
        except StoreError:
            return False
        return True

    def _read(self, kind: type[Document], path: Path, job: str) -> Document | None:
        try:
            document = kind.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; make it readable") from error
        return document if document.id == job else None

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock ``name``; without ``wait``, yields False where another writer holds it."""
        # preserve_lock_file also rules out SoftFileLock, which a killed process would leave locked.
        lock = FileLock(self.root / "locks" / name, thread_local=False, preserve_lock_file=True)
        with ExitStack() as stack:
            with suppress(Timeout):
                stack.enter_context(lock.acquire(blocking=wait))
            yield lock.is_locked

    @contextmanager
    def _explained(self, path: Path, *, foreign: bool = False) -> Iterator[None]:
        """Turn errors of the disk into advice; ``foreign`` code may fail on other files."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            number = _error_number(error)
            if number is None or (foreign and not self._is_ours(error, number)):
                raise
            raise StoreError(
                f"cannot write {path}: {os.strerror(number)} ({_free_space(self.root)}); choose "
                "another folder with --out or make room there; what is finished is kept"
            ) from error

    def _is_ours(self, error: Exception, number: int) -> bool:
        path = getattr(error, "filename", None)
        if path is not None:
            return Path(os.fsdecode(path)).is_relative_to(self.root)
        return number in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def _check_id(job: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", job):
        raise StoreError(f"{job!r} is not the id of a job: give 64 hexadecimal digits")


def _has_size(path: str, size_bytes: int) -> bool:
    try:
        return os.lstat(path).st_size == size_bytes
    except OSError:
        return False


def _text(message: str) -> str:
    """``message`` without lone surrogates, which come from file names that are not UTF-8."""
    return message.encode("utf-8", "backslashreplace").decode("utf-8")


def _error_number(error: Exception) -> int | None:
    """The system's error number; errors of safetensors contain it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def _free_space(root: Path) -> str:
    """The free space of the disk of ``root``, which need not exist yet."""
    folders = (root, *root.absolute().parents)
    existing = next((folder for folder in folders if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(existing).free / 2**20:,.0f} MiB free there"


def _manifest_of(folder: Path, job: str, kind: str, facts: dict[str, Any]) -> _Manifest:
    """Flush the files of a draft to the disk and write its manifest."""
    files = {}
    for path in sorted(folder.iterdir()):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StoreError(f"an artefact holds plain files only; {path.name!r} is not one")
        _flush(path)
        files[path.name] = _FileFacts(sha256=file_digest(path), size_bytes=path.stat().st_size)
    manifest = _Manifest(id=job, kind=kind, files=files, facts=facts)
    _write(folder / MANIFEST, manifest)
    _flush(folder)
    return manifest


def _write(path: Path, document: _Document) -> None:
    path.write_text(document.model_dump_json(), encoding="utf-8")
    _flush(path)


def _flush(path: Path) -> None:
    """Wait until the content of a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
