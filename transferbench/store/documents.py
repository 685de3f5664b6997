"""The small JSON files of a store, each sealed with its own sha256: manifests and failures."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from transferbench.errors import StoreError
from transferbench.files import advice_on, looked_again
from transferbench.identity import Sha256

__all__ = [
    "MANIFEST",
    "NAME_PATTERN",
    "PAYLOAD",
    "Document",
    "Failure",
    "FailureStatus",
    "FileFacts",
    "Manifest",
    "document_of",
    "is_damage",
    "read_document",
    "unreadable",
    "write_document",
]

FailureStatus = Literal["failed", "timeout", "oom", "skipped"]

MANIFEST = "manifest.json"
PAYLOAD = "payload.json"
"""The settings of the job, of which its id is the digest."""
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._+-]*$"

FileName = Annotated[str, Field(pattern=NAME_PATTERN)]
DocumentT = TypeVar("DocumentT", bound="Document")

SEAL = b',"seal":"'
"""Begins the end of a sealed file: the sha256 of the file without it. Older files have none."""

FORBIDDEN = {errno.EACCES, errno.EPERM}
NOT_THE_FILES_FAULT = FORBIDDEN | {
    errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EHOSTDOWN,
}  # fmt: skip
"""Errors that say nothing about a file: it may be sound."""


class Document(BaseModel):
    """A small JSON file of the store; one that is invalid counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: Sha256
    kind: str


class FileFacts(BaseModel):
    """Size and digest of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class Manifest(Document):
    """The files of an artefact; ``facts`` are not part of the job's identity."""

    status: Literal["ok"] = "ok"
    files: dict[FileName, FileFacts]
    facts: dict[str, Any]


class Failure(Document):
    """The last failed attempt at a job."""

    status: FailureStatus
    message: str
    traceback: str


def write_document(path: Path, document: Document) -> None:
    """Write a file with its seal."""
    text = document.model_dump_json().encode()
    seal = hashlib.sha256(text).hexdigest().encode()
    path.write_bytes(text[:-1] + SEAL + seal + b'"}')


def read_document(kind: type[DocumentT], path: str, job: str) -> DocumentT | None:
    """The file at ``path``, None where it is absent, damaged or of another job.

    Raises: ``StoreError`` where the system, not the file, keeps it from being read.
    """
    try:
        content = looked_again(lambda: _content(path))
    except OSError as error:
        if is_damage(error):
            return None
        raise unreadable(path, error) from error
    return document_of(kind, content, job)


def document_of(kind: type[DocumentT], content: bytes, job: str) -> DocumentT | None:
    """The document that the bytes of a file are, None where they are damaged or of another job."""
    text, mark, seal = content.rpartition(SEAL)
    if not mark:
        text = seal
    elif hashlib.sha256(text := text + b"}").hexdigest().encode() + b'"}' != seal:
        return None
    try:
        document = kind.model_validate_json(text)
    except ValidationError:
        return None
    return document if document.id == job else None


def is_damage(error: OSError) -> bool:
    """Whether an error of reading is the file's own: it is absent, of another kind, or broken."""
    return error.errno not in NOT_THE_FILES_FAULT


def unreadable(path: str | Path, error: OSError) -> StoreError:
    """What to do where the system keeps a file, which may be sound, from being read."""
    advice = advice_on(error.errno) or "try again"
    if error.errno in FORBIDDEN:
        advice = "let this user read the whole store (chmod), or name another one with --store"
    return StoreError(f"cannot read {path}: {error.strerror}; {advice}")


def _content(path: str) -> bytes:
    """All bytes of a small file; does not wait for the writer of a pipe, nor follow a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 2**16), b""))
    finally:
        os.close(descriptor)
