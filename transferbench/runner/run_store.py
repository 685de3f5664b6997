"""The store of a run, whose folder may have been moved since: with its store, or without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from transferbench.errors import StoreError
from transferbench.runner.folder import RunDescription, read_run
from transferbench.store import Store

__all__ = ["find_store", "requested_store", "store_facts"]

STORE = "store"
"""The store beside the folder of a run, where none is named."""


def store_facts(store: Store, folder: Path) -> dict[str, str]:
    """Where the store is, as ``run.json`` keeps it: from the run's folder, and from the root."""
    root = os.path.realpath(store.root)
    # Of real paths, for the system follows links before it goes up.
    return {"store": os.path.relpath(root, os.path.realpath(folder)), "store_absolute": root}


def find_store(folder: Path, run: RunDescription, explicit: Path | None = None) -> Store:
    """The store that has jobs of the run in ``folder``, sound or not; ``explicit``: the only one.

    Raises: ``StoreError`` naming where it was looked for.
    """
    paths = [explicit] if explicit else list(_likely(folder, run))
    stores = [Store(path) for path in paths if (path / "jobs").is_dir()]
    jobs = {job.id: job.status for job in run.jobs}
    for store in stores:
        if any(store.is_done(job) or store.failure(job) or store.damage(job) for job in jobs):
            return store
    if stores and "ok" not in jobs.values():  # of a run that has finished nothing
        return stores[0]
    listed = ", ".join(dict.fromkeys(map(str, paths)))
    raise StoreError(
        f"the store of the run in {folder} is not in {listed}; name its folder, which contains one "
        f"called jobs, with --store, or run the suite again with --out {folder}"
    )


def _likely(folder: Path, run: RunDescription) -> Iterator[Path]:
    yield Path(os.path.realpath(folder / run.store))
    if run.store_absolute:
        yield Path(run.store_absolute)
    for parent in (folder, folder.parent):
        yield Path(os.path.realpath(parent / STORE))


def requested_store(folder: Path, explicit: str | Path | None) -> tuple[Store, list[str]]:
    """The store for a run in ``folder``, and notes on it; ``explicit``: the one that is named.

    By default it is that of the run that the folder holds already.
    Raises: ``StoreError`` for a path that the files of a store cannot have.
    """
    beside, notes = folder.parent / STORE, []
    path = Path(explicit) if explicit else beside
    if not explicit:
        try:
            path = _earlier_store(folder) or beside
        except StoreError as error:
            notes = [f"{error}: now everything is computed again in {beside}"]
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise StoreError(
            f"the store cannot be in {path}: the path is not UTF-8, and safetensors refuses it; "
            "name another folder with --store"
        ) from error
    return Store(path), notes


def _earlier_store(folder: Path) -> Path | None:
    """The store of the run that ``folder`` holds, None where it holds none or one beside it."""
    try:
        run = read_run(folder)
    except StoreError:  # not a run's folder, or a damaged one
        return None
    root = find_store(folder, run).root
    return None if root == Path(os.path.realpath(folder.parent / STORE)) else root
