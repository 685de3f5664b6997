"""What no run refers to in a store: listed first, removed when that is asked for."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from transferbench.data.cache import decoded_folders
from transferbench.errors import StoreError
from transferbench.runner.folder import RUN
from transferbench.runner.store_usage import files_below, freed_bytes
from transferbench.runner.survey import (
    RunFolder,
    artefact_ids,
    ids_of,
    jobs_of,
    run_folders,
    unreadable_runs,
    with_earlier,
)
from transferbench.store import Store, share, unused_contents
from transferbench.store.contents import SHARED_BYTES
from transferbench.store.disk import remove
from transferbench.store.documents import FileFacts
from transferbench.store.draft import ABANDONED_SECONDS, is_abandoned, newest_change

__all__ = ["Cleaning", "Unused", "clean_store"]


class Unused(NamedTuple):
    """Something that can be removed: its kind, what it is, and the bytes that this frees."""

    kind: str
    name: str
    path: Path
    size_bytes: int = 0


class Cleaning(NamedTuple):
    """What can be removed from a store, or was.

    ``equal_files``: files that are equal to others and not yet one with them; ``equal_bytes``: what
    keeping them once frees. ``runs``: the folders of the runs whose jobs stay; ``gone``: of runs
    that used this store, or may have, and are not there any more or cannot be read. ``removed``:
    whether it was done.
    """

    unused: tuple[Unused, ...]
    equal_files: int
    equal_bytes: int
    runs: tuple[Path, ...]
    gone: tuple[Path, ...]
    removed: bool


def clean_store(
    store: Store, runs: Sequence[Path] = (), *, delete: bool = False, forget: bool = False
) -> Cleaning:
    """Find what no run refers to, and with ``delete`` remove it.

    Runs are those beside the store, those that have used it from elsewhere, and ``runs``. What a
    living process writes, and what it decodes, stays; so does what was left, or compiled, less than
    a day ago.

    ``forget``: the jobs of runs that are gone or cannot be read may go.

    Raises: ``StoreError`` where ``store`` is none, and where no run is found: everything would go;
    with ``delete`` where a run is gone or cannot be read, unless ``forget``.
    """
    ids, _ = artefact_ids(store)
    folders = with_earlier(run_folders(store, runs))
    if not folders:
        raise StoreError(
            f"no run that uses {store.root} was found beside it, so that everything in it would be "
            "unused: name the folders of its runs with --run"
        )
    gone = unreadable_runs(store, folders)
    if gone and delete and not forget:
        raise StoreError(
            f"{', '.join(map(str, gone))} used this store, or may have, and {RUN} there cannot be "
            "read, so that its jobs would be removed: where it was moved, name it with --run; "
            "then, or where its jobs may go, give --forget"
        )
    jobs = {job for run in folders for job in ids_of(run)}
    unused = [
        *_jobs(store, ids, jobs),
        *_decoded(store, folders, jobs),
        *_left_behind(store, jobs),
        *_aside(store, jobs),
        *_compiled(store),
        *(Unused("content", path.name[:12], path) for path in unused_contents(store.root)),
    ]
    sizes = freed_bytes(store, [each.path for each in unused])
    unused = [each._replace(size_bytes=size) for each, size in zip(unused, sizes, strict=True)]
    removed = {each.path.name for each in unused}
    equal = list(_equal_files(store, [job for job in ids if job not in removed]))
    if delete:
        for each in unused:
            _remove(store, each)
        for files in equal:
            for path in files.paths:
                with suppress(OSError):
                    share(store.root, path, files.facts)
        for path in unused_contents(store.root):
            remove(path)
        for folder in gone:
            store.unregister_run(folder)
    return Cleaning(
        tuple(unused), sum(each.copies for each in equal),
        sum(each.copies * each.facts.size_bytes for each in equal),
        tuple(run.folder for run in folders), tuple(gone), delete,
    )  # fmt: skip


def _jobs(store: Store, ids: Sequence[str], used: set[str]) -> Iterator[Unused]:
    """Artefacts and failures of jobs of no run."""
    for job in ids:
        if job in used or store.is_being_written(job):
            continue
        folder, manifest = store.folder_of(job), store.manifest(job)
        kind = manifest.kind if manifest else "damaged job"
        yield Unused(kind, job[:12], folder)
    for path in sorted((store.root / "failures").glob("*.json")):
        if path.stem not in used and path.stem not in ids:
            yield Unused("failure", path.stem[:12], path)


def _decoded(store: Store, runs: Sequence[RunFolder], used: set[str]) -> Iterator[Unused]:
    """Decoded images that no job of a run was planned on; none where that is not known of all."""
    planned = {job.id: job.payload for run in runs for job in jobs_of(run)}
    if used - planned.keys():
        return
    fingerprints = {payload.get("dataset", {}).get("fingerprint") for payload in planned.values()}
    for folder, described in decoded_folders(store.datasets):
        if described["fingerprint"] not in fingerprints:
            data = described["dataset"]
            yield Unused("decoded images", f"{data['name']} at {data['image_size']} px", folder)


def _left_behind(store: Store, used: set[str]) -> Iterator[Unused]:
    """Drafts of dead writers, a day after the last change: a decoding may still go on.

    And what interrupted trainings of no run would go on from.
    """
    for path in sorted((store.root / "unfinished").glob("*")):
        old = time.time() - newest_change(path) > ABANDONED_SECONDS
        if old and path.name not in used and not store.is_being_written(path.name):
            yield Unused("unfinished", path.name[:12], path)
    for folder in (store.root / "partial", store.datasets / "unfinished"):
        for path in sorted(folder.glob("*")):
            old = time.time() - newest_change(path) > ABANDONED_SECONDS
            if old and is_abandoned(path, store.host):
                yield Unused("unfinished", path.name[:12], path)


def _aside(store: Store, used: set[str]) -> Iterator[Unused]:
    """What was set aside because it was damaged, but where it alone tells how to compute a job."""
    for path in sorted(store.corrupt.glob("*")):
        job = path.name.partition(".")[0]
        if job not in used or store.is_done(job):
            yield Unused("set aside", path.name[:12], path)


def _compiled(store: Store) -> Iterator[Unused]:
    """Compiled code, a day after its last change: networks are compiled again where it is gone."""
    changes = [newest_change(path) for path in files_below(store.compiled)]
    if changes and time.time() - max(changes) > ABANDONED_SECONDS:
        yield Unused("compiled code", store.compiled.name, store.compiled)


class _EqualFiles(NamedTuple):
    """Files of one content, and how many of them are copies that need not be."""

    facts: FileFacts
    paths: list[Path]
    copies: int


def _equal_files(store: Store, jobs: Iterable[str]) -> Iterator[_EqualFiles]:
    """The files of artefacts of ``jobs`` of which there are copies."""
    by_content: defaultdict[FileFacts, list[Path]] = defaultdict(list)
    for artefact in filter(None, map(store.open, jobs)):
        for name, facts in artefact.files.items():
            if facts.size_bytes >= SHARED_BYTES:
                by_content[facts].append(artefact.folder / name)
    for facts, paths in by_content.items():
        if copies := len({path.lstat().st_ino for path in paths}) - 1:
            yield _EqualFiles(facts, paths, copies)


def _remove(store: Store, unused: Unused) -> None:
    path = unused.path
    if path.parent.parent == store.root / "jobs":
        store.remove(path.name)
    elif path.parent == store.datasets:
        # At once for readers, and never half: what is removed half is no draft to go on with.
        aside = store.datasets / "unfinished" / f"removed-{secrets.token_hex(8)}"
        aside.parent.mkdir(exist_ok=True)
        with suppress(OSError):
            path.rename(aside)
            remove(aside)
    else:
        remove(path)
