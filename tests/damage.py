"""The ways in which a file or a folder of a store is damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from transferbench.identity import file_digest
from transferbench.store import Manifest
from transferbench.store.documents import FileFacts, write_document

__all__ = ["HARMS", "empty", "flip", "rewrite", "truncate"]


def flip(path: Path) -> None:
    """One bit in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    later = path.stat().st_mtime_ns + 10**9  # a coarse clock may show no change by itself
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def extend(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\n")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def make_folder(path: Path) -> None:
    remove(path)
    path.mkdir()
    (path / "inside").write_text("x")


def make_empty_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def make_file(path: Path) -> None:
    remove(path)
    path.write_text("garbage")


def link_away(path: Path) -> None:
    """The same content, behind a link."""
    target = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def dangle(path: Path) -> None:
    remove(path)
    path.symlink_to("/nowhere/at/all")


def loop(path: Path) -> None:
    remove(path)
    path.symlink_to(path)


def make_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def replace_by_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


HARMS: tuple[Callable[[Path], None], ...] = (
    flip, truncate, empty, extend, remove, make_folder, make_empty_folder, link_away, dangle, loop,
    make_pipe, replace_by_garbage,
)  # fmt: skip
"""What may befall a file."""


def rewrite(artefact: Path, **facts: str) -> None:
    """As if another machine had computed it: its facts, and the digests of files as they are."""
    path = artefact / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    files = {
        name: FileFacts(sha256=file_digest(artefact / name),
                        size_bytes=(artefact / name).stat().st_size)
        for name in manifest["files"]
    }  # fmt: skip
    document = Manifest.model_validate(manifest | {"facts": manifest["facts"] | facts})
    write_document(path, document.model_copy(update={"files": files}))
