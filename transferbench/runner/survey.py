"""What is in a store, read in full: every artefact's fault, and what computes it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from transferbench.errors import StoreError
from transferbench.files import read_bounded_json
from transferbench.plan import Job, JobKind, Work, job_id
from transferbench.plan.tuning import required_jobs
from transferbench.runner.earlier import EARLIER
from transferbench.runner.folder import RUN
from transferbench.store import PAYLOAD, Store

__all__ = [
    "RunFolder", "Survey", "artefact_ids", "ids_of", "jobs_of", "run_folders", "survey",
    "unreadable_runs", "with_earlier",
]  # fmt: skip

ID_LENGTH = 64
ID_PATTERN = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
MAX_BYTES = 2**30
"""More than a run's description takes."""


class RunFolder(NamedTuple):
    """A run's folder and its ``run.json``."""

    folder: Path
    described: Mapping[str, Any]


class Survey(NamedTuple):
    """Everything that verifying starts from.

    ``faults``: of the jobs whose artefact is damaged, or gone though a run says that it finished.
    ``jobs``: those that can be computed again, by id; an id is the digest of what it stands for.
    ``runs``: the folders of runs with this store. ``foreign``: what does not belong there.
    """

    faults: Mapping[str, str]
    jobs: Mapping[str, Job]
    runs: Sequence[RunFolder]
    foreign: Sequence[Path]
    artefacts: int
    files: int
    size_bytes: int


def survey(store: Store, runs: Sequence[Path]) -> Survey:
    """Read a store; ``runs``: folders of runs besides those that lie next to it.

    Raises: ``StoreError`` where ``store`` is none.
    """
    ids, foreign = artefact_ids(store)
    faults = {job: fault for job in ids if (fault := store.damage(job, everything=True))}
    folders = list(run_folders(store, runs))
    jobs = {job.id: job for folder in folders for job in jobs_of(folder)}
    present = [store.folder_of(job) for job in ids]
    aside = [path for path in _entries(store.corrupt) if ID_PATTERN.match(path.name)]
    for path in (*present, *aside):
        job = path.name[:ID_LENGTH]
        if job not in jobs and (computed := _job_in(path, job)):
            jobs[job] = computed
        if path in aside and job not in ids:
            faults[job] = "it was set aside before, and not computed again"
    for folder in folders:
        for job in _finished(folder):
            if job not in faults and not store.is_done(job):
                faults[job] = f"it is gone, and {folder.folder} says that it finished"
    sizes = [facts.size_bytes for job in ids if (manifest := store.manifest(job))
             for facts in manifest.files.values()]  # fmt: skip
    return Survey(faults, jobs, folders, foreign, len(ids), len(sizes), sum(sizes))


def _refuse_others(root: Path) -> None:
    if (root / RUN).is_file():
        described = read_bounded_json(root / RUN, MAX_BYTES)
        store = described.get("store") if isinstance(described, dict) else None
        advice = f"; its store is {root / store}" if isinstance(store, str) else ""
        raise StoreError(f"{root} is the folder of a run, not a store{advice}")
    if not any((root / name).is_dir() for name in ("jobs", "datasets", "partial")):
        raise StoreError(
            f"{root} is not a store: it has no folder 'jobs'; give the folder of --store, which by "
            "default is 'store' beside the folders of runs"
        )


def artefact_ids(store: Store) -> tuple[list[str], list[Path]]:
    """The ids in the folder of all jobs, sorted, and whatever else is there.

    Raises: ``StoreError`` where ``store`` is none.
    """
    _refuse_others(store.root)
    ids: list[str] = []
    foreign: list[Path] = []
    for group in _entries(store.root / "jobs"):
        for path in _entries(group) if group.is_dir() else [group]:
            is_id = ID_PATTERN.fullmatch(path.name) and group.name == path.name[:2]
            if is_id:
                ids.append(path.name)
            else:
                foreign.append(path)
    return ids, foreign


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}; make it readable") from error


# --- what computes an artefact again ------------------------------------------------------------


def _job_in(folder: Path, job: str) -> Job | None:
    """The job of an artefact, from its payload, which proves itself."""
    payload = read_bounded_json(folder / PAYLOAD, MAX_BYTES)
    jobs = (_job(kind, payload, f"{kind} {job[:12]}") for kind in get_args(JobKind))
    return next((each for each in jobs if each and each.id == job), None)


def _job(kind: str, payload: Any, title: str) -> Job | None:
    """The job of a payload, None where it is no payload of this kind."""
    try:
        name = job_id(kind, payload)
        requires = required_jobs(kind, payload)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return Job(name, kind, payload, requires, title, Work(0, 0))  # type: ignore[arg-type]  # one of JobKind


def run_folders(store: Store, others: Sequence[Path]) -> Iterator[RunFolder]:
    """The readable folders of runs with this store.

    Those that lie next to it, those that it knows of, and ``others``. Raises: ``StoreError`` where
    one of ``others`` is none.
    """
    likely = _likely(store)
    for folder in dict.fromkeys([*likely, *(path.absolute() for path in others)]):
        if described := _described(folder):
            if folder in likely and not _is_same(folder / described["store"], store.root):
                continue
            yield RunFolder(folder, described)
        elif folder not in likely:
            raise StoreError(f"{folder} is not a run's folder: it has no {RUN} that can be read")


def _likely(store: Store) -> list[Path]:
    """The folders of runs that lie next to a store, and of those that it knows of."""
    beside = [path.parent for path in sorted(store.root.absolute().parent.glob(f"*/{RUN}"))]
    return list(dict.fromkeys([*beside, *store.registered_runs()]))


def unreadable_runs(store: Store, runs: Sequence[RunFolder]) -> list[Path]:
    """The folders of runs that may use a store and are gone, or do not tell all of their jobs.

    ``runs``: those with the store that could be read, and what their folders held before.
    """
    folders = [*_likely(store), *(folder for run in runs for folder in _earlier(run.folder))]
    partly = [run.folder for run in runs if not _tells_all(run)]
    return [*(folder for folder in folders if not _described(folder)), *partly]


def with_earlier(runs: Iterable[RunFolder]) -> list[RunFolder]:
    """``runs``, each followed by those of other suites that its folder held before."""
    folders = (folder for run in runs for folder in (run.folder, *_earlier(run.folder)))
    return [RunFolder(folder, described) for folder in folders if (described := _described(folder))]


def _earlier(run: Path) -> list[Path]:
    return [path.parent for path in sorted(run.glob(f"{EARLIER}/*/{RUN}"))]


def _described(folder: Path) -> Mapping[str, Any] | None:
    """The description of a run, None where it is not what a run writes, or cannot be read."""
    described = read_bounded_json(folder / RUN, MAX_BYTES)
    is_run = isinstance(described, dict) and isinstance(described.get("store"), str)
    return described if is_run else None


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def jobs_of(run: RunFolder) -> Iterator[Job]:
    """The jobs of a run, finished or not."""
    for row in _rows(run):
        job = _job(row["kind"], row.get("payload"), str(row.get("label")))
        if job and job.id == row["id"]:
            yield job


def _tells_all(run: RunFolder) -> bool:
    rows = run.described.get("jobs")
    return isinstance(rows, list) and len(rows) == len(list(_rows(run)))


def ids_of(run: RunFolder) -> set[str]:
    """The ids of the jobs of a run, whether or not an older version wrote what they compute."""
    return {row["id"] for row in _rows(run)}


def _finished(run: RunFolder) -> Iterator[str]:
    return (row["id"] for row in _rows(run) if row.get("status") == "ok")


def _rows(run: RunFolder) -> Iterator[Mapping[str, Any]]:
    """The rows of a run's jobs that have an id and a kind."""
    rows = run.described.get("jobs")
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        name, kind = row.get("id"), row.get("kind")
        if isinstance(name, str) and ID_PATTERN.fullmatch(name) and kind in get_args(JobKind):
            yield row
