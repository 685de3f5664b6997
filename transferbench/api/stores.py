"""Calls on a store as a whole: what takes room in it, what can go, and jobs as an archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transferbench.api.keywords import names_suggested
from transferbench.files import atomic_path
from transferbench.runner.destination import refuse_file
from transferbench.runner.options import require_list
from transferbench.runner.store_cleaning import Cleaning, clean_store
from transferbench.runner.store_usage import StoreUsage, store_usage
from transferbench.runner.survey import artefact_ids, jobs_of, run_folders
from transferbench.store import Imported, Store, export_jobs, import_jobs

__all__ = ["export_store", "gc_store", "import_store", "usage_of_store"]


@names_suggested
def usage_of_store(store: str | Path, *, runs: Sequence[str | Path] = ()) -> StoreUsage:
    """The room that a store takes. ``runs``: folders of runs that do not lie beside it."""
    require_list("runs", runs)
    return store_usage(Store(Path(store)), [Path(run) for run in runs])


@names_suggested
def gc_store(
    store: str | Path,
    *,
    runs: Sequence[str | Path] = (),
    delete: bool = False,
    forget: bool = False,
) -> Cleaning:
    """What no run refers to in a store; with ``delete`` it is removed.

    ``runs``: folders of runs that do not lie beside it. ``forget``: the jobs of runs that are not
    there any more, or cannot be read, may go.
    """
    require_list("runs", runs)
    folders = [Path(run) for run in runs]
    return clean_store(Store(Path(store)), folders, delete=delete, forget=forget)


@names_suggested
def export_store(store: str | Path, archive: str | Path, *, runs: Sequence[str | Path] = ()) -> int:
    """Write finished jobs to one file; returns how many.

    ``runs``: the folders of the runs whose jobs are meant; without any, all jobs.
    """
    require_list("runs", runs)
    source = Store(Path(store))
    ids, _ = artefact_ids(source)
    if runs:
        chosen = {Path(run).absolute() for run in runs}
        folders = [run for run in run_folders(source, sorted(chosen)) if run.folder in chosen]
        of_runs = {job.id for run in folders for job in jobs_of(run)}
        ids = [job for job in ids if job in of_runs]
    refuse_file(Path(archive))
    with atomic_path(Path(archive)) as temporary:
        return export_jobs(source, ids, temporary)


@names_suggested
def import_store(store: str | Path, archive: str | Path) -> Imported:
    """Take over the jobs of an archive that a store, or a new one, does not have."""
    return import_jobs(Store(Path(store)), Path(archive))
