"""Atomic writing of files: a temporary file in the same folder, fsync, rename.

Rejected: the package atomicwrites, which its author no longer maintains.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from transferbench.errors import StoreError

__all__ = [
    "advice_on",
    "atomic_path",
    "disk_errors_explained",
    "json_text",
    "looked_again",
    "read_bounded_json",
    "write_json",
    "write_text",
]

ReadT = TypeVar("ReadT")

STEM_LENGTH = 40
"""Characters of a file's name in that of its temporary file."""


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into advice. Raises: ``StoreError`` naming the path and the reason."""
    try:
        yield
    except OSError as error:
        way_on = advice_on(error.errno) or "make room or choose another folder"
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; nothing finished is lost: {way_on}, "
            "and run the command again"
        ) from error


def looked_again(read: Callable[[], ReadT]) -> ReadT:
    """What ``read`` gives; it is called again where another host replaced the file meanwhile."""
    try:
        return read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return read()


def advice_on(number: int | None) -> str:
    """What to do about an error of the system that is no matter of room; "" for others."""
    if number in {errno.ENOTDIR, errno.EEXIST}:
        return "check the path, where a file stands in the place of a folder"
    if number == errno.ENFILE:
        return "all programs together have too many files open; end some"
    if number == errno.EMFILE:
        return (
            f"a program may have {_most_open_files()} files open here; allow more (ulimit -n 1024)"
        )
    return ""


def _most_open_files() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "so many"
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces ``path`` when the block ends without error.

    Readers see the old file or the new one, never a part. As when a file is written in place, a
    link stays and its target is written, and permissions stay. Raises: ``StoreError`` where the
    disk refuses or ``path`` is not writable.
    """
    with disk_errors_explained(path):
        path = Path(os.path.realpath(path))  # Path.resolve raises where links go in a circle
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A device would be replaced, and be lost.
            raise OSError(errno.EINVAL, "it is not a regular file")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # The suffix is kept: writers of tables and pictures choose their format by it.
        # tempfile.mkstemp is not used: only the owner can read what it makes.
        # The stem is cut: with it the name may be longer than a file system takes.
        name = f".{path.stem[:STEM_LENGTH]}.{secrets.token_hex(8)}{path.suffix}"
        temporary = path.with_name(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with the line ends that ``text`` has.

    The bytes of file names that are not UTF-8 are written as escapes.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_json(path: Path, value: Any, *, canonical: bool = False) -> None:
    """Write ``value`` as JSON, atomically."""
    write_text(path, json_text(value, canonical=canonical))


def json_text(value: Any, *, canonical: bool = False) -> str:
    """``value``, which may hold pydantic models, as the text of a JSON file.

    ``canonical``: keys are sorted, and NaN is refused.
    """
    return json.dumps(
        value, indent=1, ensure_ascii=False, sort_keys=canonical, allow_nan=not canonical,
        default=to_jsonable_python,
    ) + "\n"  # fmt: skip


def read_bounded_json(path: Path, max_bytes: int) -> Any:
    """The value of a JSON file, None where there is none that can be read or it is larger."""
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:  # a pipe, a device
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
