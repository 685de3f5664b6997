"""The commands on a store as a whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferbench.cli.options import Json
from transferbench.cli.output import ResultsCommand, as_json, note, say, table

if TYPE_CHECKING:
    from transferbench.runner.store_cleaning import Cleaning

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See what a store holds, clean it, copy its jobs.")

StorePath = Annotated[
    Path, typer.Argument(help="The folder of a store, such as runs/store.", metavar="STORE")
]
ArchivePath = Annotated[Path, typer.Argument(help="The archive, a .tar file.", metavar="ARCHIVE")]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--run", help="The folder of a run. May be given again.", metavar="RUN"
    ),
]  # fmt: skip
TITLES = {"kind": "what", "state": "stored state", "suite": "suite"}


@app.command(cls=ResultsCommand)
def du(store: StorePath, run: Runs = None, json: Json = False) -> None:
    """Show what takes how much room, by kind of job, stored state and suite."""
    from transferbench.api.stores import usage_of_store

    usage = usage_of_store(store, runs=run or ())
    if json:
        as_json({"total": usage.total._asdict(), "rows": [row._asdict() for row in usage.rows],
                 "runs": usage.runs})  # fmt: skip
        return
    for group, title in TITLES.items():
        rows = [row for row in usage.rows if row.group == group]
        if rows:
            table([title, "jobs", "files", "MB", "MB on disk"],
                  [(row.name, row.jobs or "", row.files,
                    *_megabytes(row.size_bytes, row.disk_bytes)) for row in rows])  # fmt: skip
            say()
    size, disk = _megabytes(usage.total.size_bytes, usage.total.disk_bytes)
    say(f"in all {usage.total.files} files of {size} MB, which take {disk} MB on the disk")


@app.command(cls=ResultsCommand)
def gc(
    store: StorePath,
    run: Runs = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is listed.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Jobs of runs that are not there may go.")
    ] = False,
    json: Json = False,
) -> None:
    """List what no run refers to; with --delete, remove it."""
    from transferbench.api.stores import gc_store

    cleaning = gc_store(store, runs=run or (), delete=delete, forget=forget)
    for folder in cleaning.gone:
        note(f"{folder} used this store, or may have, and is not there any more or cannot be read: "
             "its jobs count as unused; if it was moved, name it with --run")  # fmt: skip
    if json:
        unused = [each._asdict() for each in cleaning.unused]
        as_json(cleaning._asdict() | {"unused": unused})
    else:
        _show_cleaning(cleaning)


def _show_cleaning(cleaning: Cleaning) -> None:
    counts: Counter[str] = Counter(each.kind for each in cleaning.unused)
    sizes: Counter[str] = Counter()
    for each in cleaning.unused:
        sizes[each.kind] += each.size_bytes
    rows = [(kind, count, *_megabytes(sizes[kind])) for kind, count in sorted(counts.items())]
    if cleaning.equal_files:
        rows.append(("copies of equal files", cleaning.equal_files,
                     *_megabytes(cleaning.equal_bytes)))  # fmt: skip
    if rows:
        table(["unused", "number", "MB"], rows)
        say()
    total = cleaning.equal_bytes + sizes.total()
    freed = f"{_megabytes(total)[0]} MB"
    runs = f"used by {len(cleaning.runs)} run(s): {', '.join(map(str, cleaning.runs))}"
    if not rows:
        say(f"nothing is unused; the store is {runs}")
    elif cleaning.removed:
        say(f"{freed} were freed; the store is {runs}")
    else:
        say(f"{freed} can be freed: give --delete to do it; the store is {runs}; name runs "
            "elsewhere with --run")  # fmt: skip


@app.command("export", cls=ResultsCommand)
def export_archive(store: StorePath, archive: ArchivePath, run: Runs = None) -> None:
    """Write finished jobs to an archive: all of them, or those of the runs given."""
    from transferbench.api.stores import export_store

    say(f"{export_store(store, archive, runs=run or ())} jobs in {archive}")


@app.command("import", cls=ResultsCommand)
def import_archive(store: StorePath, archive: ArchivePath) -> None:
    """Take over the jobs of an archive that the store does not have. Nothing is overwritten."""
    from transferbench.api.stores import import_store

    imported = import_store(store, archive)
    say(f"{len(imported.new)} jobs are new in {store}; {len(imported.present)} were there before")


def _megabytes(*sizes: int) -> tuple[str, ...]:
    return tuple(f"{size / 1e6:,.1f}" for size in sizes)
