"""Where a run and its tables may be written: not over files of others, and not into a store."""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.errors import StoreError
from transferbench.runner.entries import ENTRIES
from transferbench.runner.folder import CLAIMS, ENVIRONMENT, PICTURES, RECORDS, REPORT, RUN
from transferbench.store import Store, store_around

__all__ = ["refuse_file", "refuse_folder"]


def refuse_folder(folder: Path, store: Store) -> None:
    """Raise ``StoreError`` where a run in ``folder`` would have no place, or take another's."""
    for option, path in {"--out": folder, "--store": store.root}.items():
        if file := _file_on(path):
            raise StoreError(f"{file} is not a folder, and {option} must be one; name another")
    if around := store_around(folder):
        raise StoreError(f"{folder} is part of the store {around}; name another --out")
    if os.path.lexists(folder / RUN) or os.path.lexists(folder / ENTRIES):
        return
    names = (RECORDS, CLAIMS, ENVIRONMENT, PICTURES, REPORT)
    taken = [name for name in names if (folder / name).is_file()]
    if taken:
        raise StoreError(
            f"{folder} is not a run's folder, since it has no {RUN}, and a run would replace its "
            f"{', '.join(taken)}; move them away, or choose another --out"
        )


def refuse_file(path: Path) -> None:
    """Raise ``StoreError`` where a table at ``path`` would replace a file of a run."""
    if around := store_around(path):
        raise StoreError(f"{path} is part of the store {around}; name a file outside")
    path = Path(os.path.realpath(path))
    in_entries = path.parent.name == ENTRIES and (path.parent.parent / RUN).exists()
    if in_entries or (path.name in {RUN, CLAIMS, ENVIRONMENT} and (path.parent / RUN).exists()):
        raise StoreError(f"{path} is a file of the run itself; choose another name")


def _file_on(folder: Path) -> Path | None:
    """What is no folder on the way to ``folder``, itself included; None where nothing is."""
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            return None if path.is_dir() else path
    return None
