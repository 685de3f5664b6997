"""Touching the disk: flushing, removing, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transferbench.errors import StoreError
from transferbench.files import advice_on

__all__ = ["explained", "flush", "remove", "require_writable"]

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def explained(root: Path, path: Path, *, foreign: bool = False) -> Iterator[None]:
    """Turn errors of the disk into advice; ``foreign`` code may fail on files not below ``root``.

    Raises: ``StoreError``.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number is None or (foreign and not _is_below(root, error, number)):
            raise
        advice, space = advice_on(number), ""
        if not advice and number in FORBIDDEN:
            advice = "choose another folder with --out or let this user write there"
        elif not advice:
            advice = "choose another folder with --out or make room there"
            space = f" ({_free_space(root)})"
        raise StoreError(
            f"cannot write {path}: {os.strerror(number)}{space}; {advice}; what is finished is kept"
        ) from error


def require_writable(folder: Path) -> None:
    """Raise the ``OSError`` that writing into ``folder`` would, before anything is computed."""
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def _is_below(root: Path, error: Exception, number: int) -> bool:
    path = getattr(error, "filename", None)
    if path is not None:
        return Path(os.fsdecode(path)).is_relative_to(root)
    return number in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def _error_number(error: Exception) -> int | None:
    """The system's error number; errors of safetensors contain it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def _free_space(root: Path) -> str:
    """The free space of the disk of ``root``, which need not exist yet."""
    for folder in (root, *root.absolute().parents):
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB free there"
    return "its free space is unknown"


def flush(path: Path) -> None:
    """Wait until the content of a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as the system lets."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
