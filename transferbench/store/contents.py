"""Files of equal content, kept once: hard links to one file, which its sha256 names.

An artefact stays complete in itself: copied or removed, it loses nothing and takes nothing from
others. Where a file system has no hard links, or refuses one, the file stays a copy of its own.
Rejected: references in manifests, for which a store would lose artefacts when contents are removed
while another host writes.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from transferbench.identity import file_digest
from transferbench.store.documents import FileFacts

__all__ = ["CONTENTS", "SHARED_BYTES", "linked", "offer", "share", "unused_contents"]

CONTENTS = "contents"
SHARED_BYTES = 2**14
"""Smaller files are not worth an entry of a folder."""


def linked(root: Path, path: Path, facts: FileFacts) -> bool:
    """Make ``path`` a link to an earlier file of its content; whether it is one now.

    The earlier file is read first: damage in it must not spread to new artefacts.
    """
    content = _place(root, facts)
    if facts.size_bytes < SHARED_BYTES or not os.path.lexists(content):
        return False
    if not _is_sound(content, facts):
        with suppress(OSError):  # the artefacts that have it keep it, and ``verify`` finds them
            content.unlink()
        return False
    with suppress(OSError):
        if not os.path.samestat(content.lstat(), path.lstat()):
            link = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                os.link(content, link)
                link.replace(path)
            finally:
                link.unlink(missing_ok=True)
        return True
    return False


def offer(root: Path, path: Path, facts: FileFacts) -> None:
    """Let later files of the content of ``path``, which is on the disk, become links to it."""
    content = _place(root, facts)
    if facts.size_bytes >= SHARED_BYTES:
        with suppress(OSError):  # no hard links here, or another process was first
            content.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, content)


def share(root: Path, path: Path, facts: FileFacts) -> bool:
    """Keep a file of a finished artefact once; whether that frees its room.

    It is replaced by a rename: whoever reads it has one of two equal files.
    """
    before = path.lstat()
    if not linked(root, path, facts):
        if _is_sound(path, facts):
            offer(root, path, facts)
        return False
    return before.st_nlink == 1 and before.st_ino != path.lstat().st_ino


def unused_contents(root: Path) -> Iterator[Path]:
    """The contents that no artefact has; removing one loses nothing."""
    for path in sorted((root / CONTENTS).glob("*/*")):
        with suppress(OSError):
            if path.lstat().st_nlink == 1:
                yield path


def _place(root: Path, facts: FileFacts) -> Path:
    return root / CONTENTS / facts.sha256[:2] / facts.sha256


def _is_sound(path: Path, facts: FileFacts) -> bool:
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == facts.size_bytes
            and file_digest(path) == facts.sha256
        )
    except OSError:
        return False
