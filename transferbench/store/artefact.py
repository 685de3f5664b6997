"""A finished job's files, each verified before it is read."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from transferbench.errors import StoreError
from transferbench.files import looked_again
from transferbench.identity import file_digest
from transferbench.store.documents import (
    MANIFEST,
    FileFacts,
    Manifest,
    is_damage,
    read_document,
    unreadable,
)

__all__ = ["RETURN_SECONDS", "Artefact", "CorruptArtefactError", "open_artefact"]

T = TypeVar("T")

RETURN_SECONDS = (0.01, 0.04, 0.2, 0.5)
"""How long an artefact is waited for that another process has moved, and may put back."""


class CorruptArtefactError(StoreError):
    """An artefact differs from its manifest; ``job`` is the id of the job to discard and rerun.

    ``fault``: the name of the file and what is wrong with it.
    """

    def __init__(self, job: str, path: Path, fault: str) -> None:
        super().__init__(
            f"the artefact of job {job} is corrupt: {path} {fault}; run the suite again, or "
            "'transferbench verify' on the store, to compute it again"
        )
        self.job = job
        self.fault = f"{path.name} {fault}"


class Artefact:
    """The files of a finished job; each is verified by sha256 on first access."""

    def __init__(self, folder: Path, manifest: Manifest, verified: set[tuple[Any, ...]]) -> None:
        self.folder = folder
        self._manifest = manifest
        self._verified = verified
        self.job = manifest.id
        self.kind = manifest.kind

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts recorded with the files: seconds, host, versions ..."""
        return self._manifest.facts

    @property
    def files(self) -> Mapping[str, FileFacts]:
        """Size and digest of each file, by its name."""
        return self._manifest.files

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
        path = self.folder / name
        for seconds in RETURN_SECONDS:
            if self.folder.exists():
                break
            time.sleep(seconds)
        if fault := self._fault(path, facts):
            raise CorruptArtefactError(self.job, path, fault)
        return path

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """What ``load`` makes of a file. Raises: as ``path``."""
        try:
            return load(self.path(name))
        except FileNotFoundError:  # another process has moved it just now, and puts it back
            return load(self.path(name))

    def json(self, name: str) -> Any:
        """The value of a JSON file."""
        return self.read(name, lambda path: json.loads(path.read_bytes()))

    def fault(self) -> str:
        """The first file that differs from the manifest, with the reason; "" where none does."""
        faults = ((name, self._fault(self.folder / name, facts))
                  for name, facts in sorted(self._manifest.files.items()))  # fmt: skip
        return next((f"{name} {fault}" for name, fault in faults if fault), "")

    def _fault(self, path: Path, facts: FileFacts) -> str | None:
        """What is wrong with a file; one that was sound and is untouched is not read again."""
        try:
            status = path.lstat()
            key = (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
                   facts.sha256)  # fmt: skip
            if key in self._verified:
                return None
            if not stat.S_ISREG(status.st_mode):
                return "is not a regular file"
            if status.st_size != facts.size_bytes:
                return f"has {status.st_size} bytes, not the {facts.size_bytes} of its manifest"
            if looked_again(lambda: file_digest(path)) != facts.sha256:
                return "does not have the sha256 of its manifest"
        except OSError as error:
            if is_damage(error):
                return f"cannot be read ({error.strerror})"
            raise unreadable(path, error) from error
        self._verified.add(key)
        return None


def open_artefact(folder: Path, job: str, verified: set[tuple[Any, ...]]) -> Artefact | None:
    """The artefact in ``folder``: its manifest is valid, and every file has its size; else None."""
    # Strings are faster than paths, and a run checks thousands of jobs.
    prefix = str(folder)
    manifest = read_document(Manifest, f"{prefix}/{MANIFEST}", job)
    if manifest is None:
        return None
    sizes = ((f"{prefix}/{name}", facts.size_bytes) for name, facts in manifest.files.items())
    return Artefact(folder, manifest, verified) if all(_has_size(*size) for size in sizes) else None


def fault_of(folder: Path, job: str, verified: set[tuple[Any, ...]]) -> str:
    """What is wrong with an artefact, of which all files are read; "" where nothing is."""
    manifest = read_document(Manifest, f"{folder}/{MANIFEST}", job)
    if manifest is None:
        return f"its {MANIFEST} is missing, damaged or of another job"
    return Artefact(folder, manifest, verified).fault()


def _has_size(path: str, size_bytes: int) -> bool:
    try:
        return os.lstat(path).st_size == size_bytes
    except OSError:
        return False
