"""The main verbs of the command line as Python calls.

finished = transferbench.run("quickstart", backbones=["timm/resnet10t"])
finished.measurements, finished.claims, finished.report()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from transferbench.api.comparison import compare_runs
from transferbench.api.finished_run import Run
from transferbench.api.keywords import names_suggested, options_as_keywords
from transferbench.api.pictures import new_suite, try_pictures
from transferbench.errors import DataError, SubmissionError
from transferbench.files import atomic_path, disk_errors_explained
from transferbench.records import Overlap
from transferbench.registry import Registry, open_registry
from transferbench.runner.destination import refuse_file
from transferbench.runner.execute import try_files
from transferbench.runner.executors.offers import cancel_workers
from transferbench.runner.folder import read_run
from transferbench.runner.options import Options, RunOptions, require_list
from transferbench.runner.planning import Planned, plan_suite
from transferbench.runner.progress import progress_watcher
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import Watcher
from transferbench.runner.verify import Repair, Verification, run_verification
from transferbench.submission import Declaration, pack
from transferbench.submission.bundle import options_explained
from transferbench.suite import Suite

__all__ = [
    "Repair",
    "Run",
    "Verification",
    "cancel_run",
    "compare_runs",
    "export_run",
    "finish",
    "new_suite",
    "pack_run",
    "plan_run",
    "run",
    "try_pictures",
    "verify_store",
]


@options_as_keywords(RunOptions)
def run(suite: str | Suite, options: RunOptions) -> Run:
    """Run ``suite`` and write its folder and report.

    What is already in the store is not computed again; an interrupted run goes on.
    """
    planned = plan_suite(suite, options)
    with progress_watcher(options.progress) as watcher:
        return finish(planned, watcher)


@options_as_keywords(Options)
def plan_run(suite: str | Suite, options: Options) -> Planned:
    """The jobs that a run of ``suite`` consists of; trains nothing.

    Datasets are decoded where they are not yet, since their pixels are part of every id. Files of
    weights are tried; those of a tag are not downloaded.
    """
    planned = plan_suite(suite, options)
    notes = try_files(planned)
    return replace(planned, notes=(*planned.notes, *notes)) if notes else planned


def finish(planned: Planned, watcher: Watcher) -> Run:
    """Execute a plan and write its report."""
    finished = Run.of_results(planned, run_plan(planned, watcher))
    finished.report()
    return finished


@names_suggested
def pack_run(
    folder: str | Path | Run,
    out: str | Path,
    entries: Sequence[str] = (),
    submitter: str | None = None,
    weights_license: str | None = None,
    overlap: Sequence[str] = (),
    registry: Registry | None = None,
) -> list[Path]:
    """Pack entries of a run (by default all of them) into submissions below ``out``.

    ``overlap``: ``TARGET=yes|no|unknown``, whether the weights were trained on images of the
    target.
    """
    require_list("entries", entries)
    require_list("overlap", overlap)
    finished = folder if isinstance(folder, Run) else Run(folder)
    out = Path(out)
    registry = registry or open_registry()
    with options_explained():
        declaration = Declaration(
            submitter=submitter, license=weights_license, overlap=_overlap(overlap)
        )
    with disk_errors_explained(out):
        return [
            pack(finished.folder, finished.store, name, out, declaration, registry)
            for name in entries or finished.entries
        ]


def _overlap(answers: Sequence[str]) -> dict[str, Any]:
    pairs = [text.partition("=") for text in answers]
    for target, _, answer in pairs:
        if answer not in get_args(Overlap):
            raise SubmissionError(
                f"--overlap {target}={answer}: the answer must be yes, no or unknown"
            )
    return {target: answer for target, _, answer in pairs}


@names_suggested
def cancel_run(folder: str | Path) -> list[str]:
    """End what still computes for a run on a cluster; returns its names. What is finished is kept.

    Raises: ``StoreError`` where ``folder`` is not the folder of a run.
    """
    read_run(Path(folder))
    return cancel_workers(Path(folder))


@names_suggested
def export_run(folder: str | Path, to: str | Path) -> int:
    """Write a run's measurements as csv, parquet or json; returns the number of rows."""
    table, to = Run(folder).measurements, Path(to)
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": lambda path: table.to_csv(path, index=False),
        ".parquet": lambda path: path.write_bytes(table.to_parquet(index=False)),
        ".json": lambda path: table.to_json(path, orient="records", indent=1),
    }
    if to.suffix not in writers:
        raise DataError(f"cannot export to {to.name!r}: its ending must be one of "
                        f"{', '.join(writers)}")  # fmt: skip
    refuse_file(to)
    with atomic_path(to) as temporary:
        writers[to.suffix](temporary)
    return len(table)


@names_suggested
def verify_store(  # noqa: PLR0913  # keywords, one for each option of the command
    store: str | Path,
    *,
    runs: Sequence[str | Path] = (),
    weights: Sequence[str | Path] = (),
    data_root: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    device: str = "auto",
    jobs: int | None = None,
    recompute: bool = False,
    progress: bool | Watcher = True,
) -> Verification:
    """Read everything in a store, and compute again what is damaged.

    ``runs``: folders of runs that do not lie beside the store. ``weights``: files or folders of
    external weights that its trials started from. ``recompute``: also what another kind of machine
    computed, though its bits may differ.
    """
    for name, paths in {"runs": runs, "weights": weights}.items():
        require_list(name, paths)
    options = Options(store=store, data_root=data_root, plugins=plugins, device=device, jobs=jobs)
    with progress_watcher(progress) as watcher:
        return run_verification(
            options, watcher, runs=[Path(run) for run in runs],
            weights=[str(file) for file in weights], recompute=recompute,
        )  # fmt: skip
