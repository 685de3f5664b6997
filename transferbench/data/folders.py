"""What is below a folder, where links to other folders are followed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import DataError

__all__ = ["Below", "entries_below", "listed", "printable", "walk"]

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Below(NamedTuple):
    """Something below a folder. ``entered``: it is itself a folder, whose entries come too."""

    entry: os.DirEntry[str]
    entered: bool


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What ``walk`` does not enter: files, links that lead back, links to nothing."""
    return (entry for entry, entered in walk(folder) if not entered)


def walk(folder: Path) -> Iterator[Below]:
    """All that is below ``folder``; links to folders are followed, and each folder entered once.

    A link leads back where its target was entered before or contains ``folder``. It is not
    entered, nor are links whose names begin with a dot. Links come last.

    Raises: ``DataError`` where a folder cannot be listed.
    """
    top = os.path.realpath(folder)
    entered = {top, *map(str, Path(top).parents)}
    waiting, links = [str(folder)], list[os.DirEntry[str]]()
    while waiting or links:
        if waiting:
            entries = listed(waiting.pop())
            links += [entry for entry in entries if entry.is_symlink()]
            candidates = [entry for entry in entries if not entry.is_symlink()]
        else:
            candidates = [links.pop()]
        for entry in candidates:
            enters = _enters(entry, entered)
            if enters:
                waiting.append(entry.path)
            yield Below(entry, enters)


def printable(name: str) -> str:
    """A file's name as text: control characters and bytes that are no UTF-8 become escapes."""
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


def _enters(entry: os.DirEntry[str], entered: set[str]) -> bool:
    """Whether ``entry`` is a folder that is not in ``entered`` yet; adds it."""
    if entry.name.startswith(".") and entry.is_symlink():
        return False
    try:
        real = os.path.realpath(entry.path) if entry.is_dir() else None
    except OSError:  # a link to itself
        return False
    if real is None or real in entered:
        return False
    entered.add(real)
    return True
