"""Artefacts that are being written, each in a folder whose name says who writes it."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from transferbench.errors import StoreError
from transferbench.identity import file_digest
from transferbench.store.contents import linked, offer
from transferbench.store.disk import flush
from transferbench.store.documents import (
    MANIFEST,
    NAME_PATTERN,
    FileFacts,
    Manifest,
    write_document,
)

__all__ = ["ABANDONED_SECONDS", "Draft", "Writer", "draft_name", "host_name", "is_abandoned",
           "newest_change", "writer_of"]  # fmt: skip

ABANDONED_SECONDS = 24 * 3600
"""After so long without a change a draft of another host counts as left behind."""

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Its inode, the same on every Linux (PROC_PID_INIT_INO in include/linux/proc_ns.h)."""


class Draft:
    """An artefact being written, invisible to readers until it is complete.

    ``already_done``: another writer finished the job while this one waited, so that there is
    nothing to compute. ``facts``: to be filled, not part of the job's identity. ``unfinished``: a
    folder that outlives the writer until a later one has finished the job. ``folder``: for
    processes that write a part of it.
    """

    def __init__(self, folder: Path, unfinished: Path, *, already_done: bool) -> None:
        self.folder = folder
        self._root = folder.parent.parent
        self.unfinished = unfinished
        self._names: set[str] = set()
        self.already_done = already_done
        self.facts: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """The path to write a file to."""
        if name == MANIFEST or not re.fullmatch(NAME_PATTERN, name):
            raise StoreError(
                f"an artefact cannot hold a file named {name!r}; use letters, digits and . _ + - "
                f"without a folder, and not {MANIFEST!r}"
            )
        # A job may compute for days before it writes, and another host have cleaned up meanwhile.
        self.folder.mkdir(exist_ok=True)
        self._names.add(name)
        return self.folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON. Raises: ``ValueError`` for NaN and infinities."""
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        self.path(name).write_text(text, encoding="utf-8")

    def complete(self, job: str, kind: str) -> None:
        """Flush the files to the disk and write their manifest."""
        self.folder.mkdir(exist_ok=True)
        files = {}
        # A store is shared, but safetensors lets nobody else read what it writes.
        mode = self.folder.stat().st_mode & 0o666
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".nfs"):
                continue  # what NFS keeps of a removed file that somebody has open
            if not stat.S_ISREG(path.lstat().st_mode):
                raise StoreError(f"an artefact holds plain files only; {path.name!r} is not one")
            path.chmod(mode)
            facts = FileFacts(sha256=file_digest(path), size_bytes=path.stat().st_size)
            if not linked(self._root, path, facts):
                flush(path)
                offer(self._root, path, facts)
            files[path.name] = facts
        if gone := sorted(self._names - files.keys()):
            raise StoreError(
                f"{', '.join(gone)} of job {job} is not there any more: something else removed it "
                "while the job was computed; run the suite again"
            )
        manifest = self.folder / MANIFEST
        write_document(manifest, Manifest(id=job, kind=kind, files=files, facts=self.facts))
        flush(manifest)
        flush(self.folder)


class Writer(NamedTuple):
    """Who writes a draft, and since when, in seconds since 1970."""

    host: str
    pid: int
    since: int

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


def host_name() -> str:
    """The name of this machine, and of the container where process ids have another meaning."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
    if sys.platform == "linux":
        with suppress(OSError):
            namespace = Path("/proc/self/ns/pid").stat().st_ino
            if namespace != INITIAL_PID_NAMESPACE:
                name += f"-{namespace:x}"
    return name


def draft_name(job: str, host: str) -> str:
    """A name in ``partial`` that no other writer has."""
    return f"{job}.{host}.{os.getpid()}.{int(time.time())}.{secrets.token_hex(4)}"


def writer_of(name: str) -> Writer | None:
    """The writer that a name in ``partial`` tells; None for names of older versions."""
    match = re.fullmatch(r"[0-9a-f]{64}\.([A-Za-z0-9-]+)\.(\d+)\.(\d+)\.[0-9a-f]{8}", name)
    return Writer(match[1], int(match[2]), int(match[3])) if match else None


def is_abandoned(draft: Path, host: str) -> bool:
    """Whether nobody writes a draft any more, as far as can be told on ``host``."""
    writer = writer_of(draft.name)
    if writer and writer.host == host and not _is_alive(writer.pid):
        return True
    changed = newest_change(draft)
    with suppress(OSError):  # a living writer touches it
        lease = draft.parent.parent / "leases" / draft.name[:64]
        changed = max(changed, lease.lstat().st_mtime)
    return time.time() - changed > ABANDONED_SECONDS


def newest_change(path: Path) -> float:
    """When a file, or a folder or anything in it, was last changed; now where it is gone."""
    try:
        inside = list(path.iterdir()) if path.is_dir() else []
        return max(each.lstat().st_mtime for each in [path, *inside])
    except OSError:
        return time.time()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
