"""What takes how much room in a store: by kind of job, by stored state, and by suite."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from transferbench.runner.survey import RunFolder, artefact_ids, ids_of, run_folders, with_earlier
from transferbench.store import CONTENTS, Store, unused_contents

__all__ = ["StoreUsage", "Usage", "files_below", "freed_bytes", "store_usage"]

SUFFIX = ".safetensors"
UNUSED = "of no run"
"""In place of a suite, for jobs that no run that was found refers to."""

Inode = tuple[int, int]


class Usage(NamedTuple):
    """The room of one group of files.

    ``size_bytes``: of all files; ``disk_bytes``: with each content that they share counted once.
    """

    group: str
    name: str
    jobs: int
    files: int
    size_bytes: int
    disk_bytes: int


@dataclass
class _Sum:
    """Files of one group, added one by one."""

    jobs: set[str] = field(default_factory=set)
    files: int = 0
    size_bytes: int = 0
    inodes: dict[Inode, int] = field(default_factory=dict)

    def add(self, path: Path, job: str | None = None) -> None:
        """Count a file; one that is gone counts nothing."""
        try:
            status = path.lstat()
        except OSError:
            return
        self.files += 1
        self.size_bytes += status.st_size
        self.inodes[status.st_dev, status.st_ino] = status.st_size
        if job is not None:
            self.jobs.add(job)

    def usage(self, group: str, name: str) -> Usage:
        """The sum under its name."""
        disk_bytes = sum(self.inodes.values())
        return Usage(group, name, len(self.jobs), self.files, self.size_bytes, disk_bytes)


class StoreUsage(NamedTuple):
    """``rows``: the groups ``kind``, ``state`` and ``suite``, which overlap. ``total``: of all.

    ``runs``: the folders of runs by which jobs were assigned to suites.
    """

    rows: tuple[Usage, ...]
    total: Usage
    runs: tuple[Path, ...]


def store_usage(store: Store, runs: Sequence[Path] = ()) -> StoreUsage:
    """The room that a store takes. ``runs``: as for ``survey``. Raises: as ``survey``."""
    ids, _ = artefact_ids(store)
    folders = with_earlier(run_folders(store, runs))
    suites = _suites(folders)
    sums: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)
    total = _Sum()
    for job in ids:
        manifest, folder = store.manifest(job), store.folder_of(job)
        kind = manifest.kind if manifest else "damaged"
        for path in files_below(folder):
            groups = [("kind", kind), *(("suite", suite) for suite in suites.get(job, [UNUSED]))]
            if path.name.endswith(SUFFIX) and kind in {"pretrain", "trial"}:
                groups.append(("state", path.name.removesuffix(SUFFIX)))
            for key in groups:
                sums[key].add(path, job)
            total.add(path, job)
    for name, parts in _others(store).items():
        for path in parts:
            sums["kind", name].add(path)
            total.add(path)
    for path in unused_contents(store.root):
        sums["kind", "unused contents"].add(path)
        total.add(path)
    rows = [each.usage(*key) for key, each in sums.items() if each.files]
    order = ("kind", "state", "suite")
    rows.sort(key=lambda row: (order.index(row.group), -row.disk_bytes, row.name))
    return StoreUsage(tuple(rows), total.usage("total", ""), tuple(run.folder for run in folders))


def freed_bytes(store: Store, paths: Sequence[Path]) -> list[int]:
    """What removing all of ``paths`` frees, each content at the first path that has it.

    A content that something else in the store has frees nothing.
    """
    contents = {_inode(path) for path in files_below(store.root / CONTENTS)}
    positions_of: dict[Inode, list[int]] = {}
    sizes: dict[Inode, int] = {}
    links: dict[Inode, int] = {}
    for position, path in enumerate(paths):
        for file in [path] if path.is_file() else files_below(path):
            status = file.lstat()
            inode = (status.st_dev, status.st_ino)
            positions_of.setdefault(inode, []).append(position)
            sizes[inode] = status.st_size
            links[inode] = status.st_nlink
    freed = [0] * len(paths)
    for inode, positions in positions_of.items():
        in_contents = inode in contents and not any(CONTENTS in paths[p].parts for p in positions)
        if links[inode] - in_contents <= len(positions):
            freed[positions[0]] += sizes[inode]
    return freed


def _inode(path: Path) -> Inode:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _suites(folders: Iterable[RunFolder]) -> Mapping[str, list[str]]:
    """By job, the suites of the runs that refer to it."""
    suites: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for run in folders:
        for job in ids_of(run):
            suites[job][str(run.described.get("suite_id"))] = None
    return {job: list(names) for job, names in suites.items()}


def _others(store: Store) -> dict[str, Iterator[Path]]:
    """What is in a store besides artefacts."""
    unfinished = store.datasets / "unfinished"
    return {
        "decoded images": (path for path in files_below(store.datasets)
                           if unfinished not in path.parents),
        "unfinished": (path for folder in (store.root / "partial", store.root / "unfinished",
                                           unfinished)
                       for path in files_below(folder)),
        "set aside": files_below(store.corrupt),
        "failures": files_below(store.root / "failures"),
        "compiled code": files_below(store.compiled),
    }  # fmt: skip


def files_below(folder: Path) -> Iterator[Path]:
    """The regular files below a folder; links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent, name)
            if not path.is_symlink():
                yield path
