"""Finished jobs as one file, to be taken to another store.

    transferbench-store.json    the version of the form
    jobs/<id>.json              the manifest of each job, with the sha256 of its files
    contents/<sha256>           each content once, whichever artefacts have it

The form is an uncompressed tar: weights do not become smaller. No name in it is used as a path: an
archive may come from anybody.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from transferbench.errors import StoreError
from transferbench.store.artefact import Artefact
from transferbench.store.documents import MANIFEST, FileFacts, Manifest, document_of
from transferbench.store.store import Store

__all__ = ["Imported", "export_jobs", "import_jobs"]

HEAD = "transferbench-store.json"
FORM = {"form": 1}
JOB_PATTERN = re.compile(r"jobs/([0-9a-f]{64})\.json")
MAX_MANIFEST_BYTES = 2**24
BLOCK_BYTES = 2**20


class Imported(NamedTuple):
    """The ids of the jobs that a store now has from an archive, and of those that it had."""

    new: tuple[str, ...]
    present: tuple[str, ...]


def export_jobs(store: Store, jobs: Iterable[str], path: Path) -> int:
    """Write the artefacts of ``jobs`` to the file ``path``; returns how many they are.

    Raises: ``StoreError`` for a job that is not finished, ``CorruptArtefactError`` for a damaged
    one.
    """
    artefacts = [store.artefact(job) for job in sorted(set(jobs))]
    if not artefacts:
        raise StoreError(f"no finished job of {store.root} was named: there is nothing to export")
    with tarfile.open(path, "w") as archive:
        _add(archive, HEAD, json.dumps(FORM).encode())
        for artefact in artefacts:
            manifest = (artefact.folder / MANIFEST).read_bytes()
            _add(archive, f"jobs/{artefact.job}.json", manifest)
        for sha256, file in sorted(_contents(artefacts).items()):
            entry = tarfile.TarInfo(f"contents/{sha256}")
            entry.size = file.stat().st_size
            with file.open("rb") as stream:
                archive.addfile(entry, stream)
    return len(artefacts)


def _contents(artefacts: Iterable[Artefact]) -> dict[str, Path]:
    """A verified file of each content."""
    return {
        facts.sha256: artefact.path(name)
        for artefact in artefacts
        for name, facts in artefact.files.items()
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def import_jobs(store: Store, path: Path) -> Imported:
    """Take over the jobs of an archive that ``store`` does not have; nothing is overwritten.

    Raises: ``StoreError`` where it is no archive, or a file is not what its manifest says; jobs
    that came before it are in the store then.
    """
    try:
        members = _members(path)
        with tarfile.open(path, "r:") as archive:
            _refuse_others(archive, members, path)
            new: list[str] = []
            present: list[str] = []
            for manifest in _manifests(archive, members, path):
                was_there = _import_job(store, archive, members, manifest)
                (present if was_there else new).append(manifest.id)
    except (tarfile.TarError, EOFError) as error:
        raise StoreError(f"{path} cannot be read as an archive of jobs ({error}): export it again "
                         "with 'transferbench store export'") from error  # fmt: skip
    return Imported(tuple(new), tuple(present))


ArchiveMembers = dict[str, tarfile.TarInfo]


def _members(path: Path) -> ArchiveMembers:
    """The regular files of an archive by name. Raises: ``tarfile.ReadError`` for a bad head."""
    members: ArchiveMembers = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            while (entry := archive.next()) is not None:
                if archive.offset <= end:  # by a negative size: it would be read for ever
                    raise tarfile.ReadError(f"{entry.name} ends before it begins")
                end = archive.offset
                if entry.isreg() and not entry.issparse():  # holes are bytes that no archive has
                    members[entry.name] = entry
    except (ArithmeticError, MemoryError, RecursionError, ValueError) as error:
        # What tarfile raises for a head whose numbers or chains are beyond Python's.
        raise tarfile.ReadError(f"a bad head: {type(error).__name__}") from error
    return members


def _refuse_others(archive: tarfile.TarFile, members: ArchiveMembers, path: Path) -> None:
    head = members.get(HEAD)
    try:
        form = json.loads(_stream(archive, head).read(MAX_MANIFEST_BYTES)) if head else None
    except (ValueError, RecursionError):
        form = None
    if form != FORM:
        raise StoreError(
            f"{path} is not an archive of jobs that this version reads: it has no {HEAD} with "
            f"{json.dumps(FORM)}; export it again with 'transferbench store export'"
        )


def _manifests(archive: tarfile.TarFile, members: ArchiveMembers, path: Path) -> Iterator[Manifest]:
    for name, entry in sorted(members.items()):
        if not (match := JOB_PATTERN.fullmatch(name)):
            continue
        text = _stream(archive, entry).read(MAX_MANIFEST_BYTES)
        manifest = document_of(Manifest, text, match[1])
        if manifest is None:
            raise StoreError(f"{path} is damaged: {name} is not the manifest of that job; get the "
                             "archive again")  # fmt: skip
        yield manifest


def _import_job(
    store: Store, archive: tarfile.TarFile, members: ArchiveMembers, manifest: Manifest
) -> bool:
    """Take over one job; whether it was there."""
    with store.writing(manifest.id, manifest.kind) as draft:
        if draft.already_done:
            return True
        for name, facts in manifest.files.items():
            fault = _copy(archive, members, facts, draft.path(name))
            if fault:
                raise StoreError(f"the archive is damaged: {name} of job {manifest.id} {fault}; "
                                 "get it again, and import the rest")  # fmt: skip
        draft.facts = manifest.facts
    return False


def _copy(archive: tarfile.TarFile, members: ArchiveMembers, facts: FileFacts, to: Path) -> str:
    """Write a content to a file; returns what is wrong with it, or ""."""
    entry = members.get(f"contents/{facts.sha256}")
    if entry is None:
        return "is not in it"
    if entry.size != facts.size_bytes:
        return f"has {entry.size} bytes, not the {facts.size_bytes} of its manifest"
    sha, stream = hashlib.sha256(), _stream(archive, entry)
    with to.open("wb") as file:
        while block := stream.read(BLOCK_BYTES):
            sha.update(block)
            file.write(block)
    return "" if sha.hexdigest() == facts.sha256 else "does not have the sha256 of its manifest"


def _stream(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(entry)
    if stream is None:
        raise tarfile.ReadError(f"{entry.name} is no regular file")
    return stream
