"""What is below a folder, where links to other folders are followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from transferbench.errors import DataError

__all__ = ["entries_below", "printable"]


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is below ``folder`` but the folders, which are entered, each once.

    A link leads back where its target was entered or contains ``folder``: it is yielded and not
    entered, and so are links whose names begin with a dot. Links come last.

    Raises: ``DataError`` where a folder cannot be listed.
    """
    top = os.path.realpath(folder)
    entered = {top, *map(str, Path(top).parents)}
    waiting, links = [str(folder)], list[os.DirEntry[str]]()
    while waiting or links:
        if not waiting:
            link = links.pop()
            if not link.name.startswith(".") and _enters(link, entered):
                waiting.append(link.path)
            else:
                yield link
            continue
        for entry in _listed(waiting.pop()):
            if entry.is_symlink():
                links.append(entry)
            elif _enters(entry, entered):
                waiting.append(entry.path)
            else:
                yield entry


def printable(name: str) -> str:
    """A file's name as text: its bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _listed(folder: str) -> list[os.DirEntry[str]]:
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
    try:
        real = os.path.realpath(entry.path) if entry.is_dir() else None
    except OSError:  # a link to itself
        return False
    if real is None or real in entered:
        return False
    entered.add(real)
    return True
