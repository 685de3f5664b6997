"""What is below a folder, where links to other folders are followed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import DataError

__all__ = ["Below", "identity", "is_folder", "listed", "printable", "walk"]

MADE_UP = ("/proc", "/sys", "/dev")
"""Where a system shows itself: nothing is stored there, and some files never end."""
STORED = "/dev/shm"  # noqa: S108  # compared, never written to
MAX_LINKED_FOLDERS = 100_000
"""How many folders are entered through links: more than any dataset has classes."""

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Below(NamedTuple):
    """Something below a folder. ``entered``: it is itself a folder, whose entries come too."""

    entry: os.DirEntry[str]
    entered: bool


def walk(folder: Path, without: Path | None = None) -> Iterator[Below]:
    """All that is below ``folder``; links to folders are followed, and each folder entered once.

    A link leads back where its target was entered before or contains ``folder``. It is not
    entered, nor are links whose names begin with a dot, nor the folder ``without``. Links come
    after folders, and after them folders whose names begin with a dot: a link may lead into one.

    Raises: ``DataError`` where a folder cannot be listed, and for links to folders that the system
    makes up or that hold too many others.
    """
    top = Path(os.path.realpath(folder))
    barred = (top, *top.parents) if without is None else (top, *top.parents, without)
    entered = {identity(path) for path in barred if path.exists()}
    waiting, links = [str(folder)], list[os.DirEntry[str]]()
    hidden = list[os.DirEntry[str]]()
    link, count = None, 0
    while waiting or links or hidden:
        if waiting:
            entries = listed(waiting.pop())
            links += [entry for entry in entries if entry.is_symlink()]
            hidden += [entry for entry in entries if _is_hidden_folder(entry)]
            candidates = [entry for entry in entries
                          if not entry.is_symlink() and not _is_hidden_folder(entry)]  # fmt: skip
        elif links:
            link = links.pop()
            candidates = [link]
        else:
            link = None
            candidates = [hidden.pop()]
        for entry in candidates:
            enters = _enters(entry, entered)
            if enters:
                waiting.append(entry.path)
                count += link is not None
            if link and count > MAX_LINKED_FOLDERS:
                raise DataError(
                    f"{_leads(link)}, and links lead to more than {MAX_LINKED_FOLDERS:,} folders: "
                    "link the folders of pictures alone"
                )
            yield Below(entry, enters)


def _is_hidden_folder(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def printable(name: str) -> str:
    """A file's name as text: control characters and bytes that are not UTF-8 become escapes."""
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], name)


def listed(folder: str) -> list[os.DirEntry[str]]:
    """What lies in ``folder``, sorted by name. Raises: ``DataError`` where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {printable(folder)} cannot be read ({error.strerror}): make it readable, "
            "or remove it"
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder or a link to one that can be reached."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or where nothing may be read
        return False


def _leads(link: os.DirEntry[str]) -> str:
    return f"{printable(link.path)} leads to {printable(os.path.realpath(link.path))}"


def _enters(entry: os.DirEntry[str], entered: set[tuple[int, int]]) -> bool:
    """Whether ``entry`` is a folder that is not in ``entered`` yet; adds it."""
    if not is_folder(entry) or (entry.name.startswith(".") and entry.is_symlink()):
        return False
    if entry.is_symlink() and _is_made_up(os.path.realpath(entry.path)):
        raise DataError(f"{_leads(entry)}, where nothing is stored: remove the link")
    entering = identity(Path(entry.path))
    if entering in entered:
        return False
    entered.add(entering)
    return True


def _is_made_up(path: str) -> bool:
    folders = {path, *map(str, Path(path).parents)}
    return STORED not in folders and not folders.isdisjoint(MADE_UP)


def identity(path: Path) -> tuple[int, int]:
    """What one folder has under all its names. Rejected: its real path, slow in deep folders."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino
