"""Files below the root of a dataset: those that parameters name, and those that must be there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from transferbench.data.folders import is_folder, listed, printable
from transferbench.errors import DataError, listing, shortened

__all__ = ["BelowRoot", "content_of_folder", "group_text", "refuse_missing", "required"]

LISTED = 10


def _below_root(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{path!r} must lie below the dataset's root")
    return path


BelowRoot: TypeAlias = Annotated[str, AfterValidator(_below_root)]
"""The path of a file or folder below the root."""


def required(root: Path | None, dataset: str, expected: str, folder: str = "") -> Path:
    """``root`` itself. Raises: ``DataError`` where there is none; ``expected``: what it holds."""
    if root is None:
        raise DataError(
            f"dataset {dataset!r} needs {expected}: put it in FOLDER/{folder or dataset} and pass "
            "--data-root FOLDER"
        )
    return root


def refuse_missing(dataset: str, paths: Iterable[Path], way_on: str) -> None:
    """Raises: ``DataError`` with how many of ``paths`` are no files, and the first of them."""
    absent = [printable(str(path)) for path in paths if not path.is_file()]
    if absent:
        raise DataError(
            f"dataset {dataset!r}: {len(absent)} of its pictures are not there, such as "
            f"{'; '.join(shortened(absent, 3))}: {way_on}"
        )


def content_of_folder(folder: Path) -> str:
    """What lies in ``folder``, in words: its folders, then its files."""
    if not folder.is_dir():
        return f"there is no folder {printable(str(folder))}"
    entries = listed(str(folder))
    names = [f"{printable(e.name)}/" for e in entries if is_folder(e)]
    names += [printable(e.name) for e in entries if not is_folder(e)]
    return f"{printable(str(folder))} has {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return listing(names, LISTED) if names else "nothing in it"


def group_text(key: str) -> str:
    """A key as text in UTF-8: bytes of a name that are none become escapes."""
    return key.encode("utf-8", "backslashreplace").decode()
