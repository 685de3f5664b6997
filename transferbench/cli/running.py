"""The commands that plan and run suites, and that look at runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transferbench.cli.options import Plugins
from transferbench.cli.output import as_json, note, table

if TYPE_CHECKING:
    from transferbench.api import Run
    from transferbench.runner.request import Options, Planned

__all__ = ["register"]


class Devices(StrEnum):
    """What ``--device`` takes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


SuiteName = Annotated[
    str, typer.Argument(help="A bundled suite's name or a .yaml file.", metavar="SUITE")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="Compare this one; may be given again.")
]
Initializations = Annotated[
    list[str] | None,
    typer.Option("--initialization", help="An arm of the suite, or a plugin to add as an arm."),
]
WeightsChoice = Annotated[
    str,
    typer.Option("--weights", help="suite (pre-trained by the suite), or a tag or file.",
                 metavar="suite|TAG|FILE"),
]  # fmt: skip
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: recipes.P-T.epochs=3. Cannot be submitted."),
]
SeedCount = Annotated[int | None, typer.Option("--seed-count", min=1, help="Replicates to run.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run's folder.")]
StoreFolder = Annotated[Path | None, typer.Option("--store", help="Artefacts, shared by runs.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="TRANSFERBENCH_DATA", help="Where datasets' files are."),
]
Device = Annotated[Devices, typer.Option("--device", help="Where to compute.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="How many at once; one for each core or GPU.")
]
TimeLimit = Annotated[
    float | None, typer.Option("--time-limit", min=0.001, help="Seconds a job may take.")
]
MicroBatch = Annotated[
    int | None, typer.Option("--micro-batch", min=1, help="Images at once on the device.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Refuse to look for weights on the network.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (plan, prepare, run, status, report, compare, export):
        app.command()(command)


def plan(
    suite: SuiteName,
    backbone: Backbones = None,
    initialization: Initializations = None,
    weights: WeightsChoice = "suite",
    changes: Changes = None,
    seed_count: SeedCount = None,
    out: Out = None,
    store: StoreFolder = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    device: Device = Devices.auto,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Show the jobs of a run, what is cached, and the hours and memory; run nothing."""
    planned = _planned(
        suite,
        _options(
            backbones=backbone, initializations=initialization, weights=weights, changes=changes,
            seed_count=seed_count, out=out, store=store, data_root=data_root, plugins=plugin,
            device=device, jobs=jobs,
        ),
    )  # fmt: skip
    shown = _cost(planned)
    if json:
        as_json(shown)
        return
    rows = [(kind, one["jobs"], one["cached"]) for kind, one in shown["kinds"].items()]
    table(["kind", "jobs", "cached"], [*rows, ("all", shown["jobs"], shown["cached"])])
    typer.echo(
        f"\n{planned.suite.id} on {', '.join(shown['entries'])}: about "
        f"{_hours(shown['wall_seconds'])} for what is left, {shown['slots']} job(s) at once on "
        f"{shown['device']}, {shown['memory_bytes'] / 2**20:,.0f} MiB a job"
    )
    typer.echo(f"the store is {planned.store.root}; the run's folder will be {planned.folder}")


def prepare(
    suite: SuiteName,
    backbone: Backbones = None,
    initialization: Initializations = None,
    weights: WeightsChoice = "suite",
    changes: Changes = None,
    out: Out = None,
    store: StoreFolder = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Decode the datasets and try the weights of a run, so that it needs nothing else."""
    from transferbench.runner.execution import try_weights

    planned = _planned(
        suite,
        _options(
            backbones=backbone, initializations=initialization, weights=weights, changes=changes,
            out=out, store=store, data_root=data_root, plugins=plugin,
        ),
    )  # fmt: skip
    try_weights(planned)
    typer.echo(f"the data of {planned.suite.id} are ready in {planned.store.root / 'datasets'}")


def run(
    suite: SuiteName,
    backbone: Backbones = None,
    initialization: Initializations = None,
    weights: WeightsChoice = "suite",
    changes: Changes = None,
    seed_count: SeedCount = None,
    out: Out = None,
    store: StoreFolder = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    device: Device = Devices.auto,
    jobs: Jobs = None,
    time_limit: TimeLimit = None,
    micro_batch: MicroBatch = None,
    compile: Compile = False,  # noqa: A002  # the option's name
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Run a suite: train, measure, judge its claims, write the report and the board."""
    from transferbench.runner.request import go_offline

    if offline:
        go_offline()
    options = _options(
        backbones=backbone, initializations=initialization, weights=weights, changes=changes,
        seed_count=seed_count, out=out, store=store, data_root=data_root, plugins=plugin,
        device=device, jobs=jobs, time_limit_seconds=time_limit, micro_batch=micro_batch,
        compile=compile,
    )  # fmt: skip
    finished = _execute(_planned(suite, options))
    _show_run(finished, json=json)
    if finished.failed:
        raise typer.Exit(1)


def status(folder: RunFolder, json: Json = False) -> None:
    """Show what a run's jobs have come to."""
    from transferbench.runner.folder import read_statuses

    statuses = read_statuses(folder)
    if json:
        as_json(statuses)
        return
    counts: dict[tuple[str, str], int] = {}
    for one in statuses:
        key = (one["kind"], one["status"])
        counts[key] = counts.get(key, 0) + 1
    table(["kind", "status", "jobs"], [(*key, count) for key, count in sorted(counts.items())])
    for one in statuses:
        if one["message"]:
            typer.echo(f"{one['status']}: {one['label']}: {one['message']}")


def report(folder: RunFolder) -> None:
    """Write the report of a run again."""
    from transferbench.api import Run

    typer.echo(f"the report is {Run(folder).report()}")


def compare(first: RunFolder, second: RunFolder, json: Json = False) -> None:
    """Show what two runs measured differently, paired by replicate."""
    from transferbench.api import compare_runs

    rows = compare_runs(first, second)
    if json:
        as_json(rows)
    elif rows:
        table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        typer.echo("the two runs have no measurement in common")


def export(
    folder: RunFolder,
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .json file to write.")],
) -> None:
    """Write a run's measurements as one tidy table."""
    from transferbench.api import export_run

    typer.echo(f"{export_run(folder, to)} rows in {to}")


def _options(**given: Any) -> Options:
    from transferbench.runner.request import Options

    return Options(**{name: value for name, value in given.items() if value is not None})


def _planned(suite: str, options: Options) -> Planned:
    from transferbench.runner.request import plan_run

    planned = plan_run(suite, options)
    for problem in planned.registry.problems:
        note(str(problem))
    for text in planned.notes:
        note(text)
    return planned


def _cost(planned: Planned) -> dict[str, Any]:
    from transferbench.engine.resources import find_device
    from transferbench.runner.cost import estimate
    from transferbench.runner.execution import slots_of

    jobs = planned.plan.jobs
    device = find_device(planned.options.device)
    slots = slots_of(planned.options, device.type)
    found = estimate(jobs, planned.done, planned.registry, planned.store, device)
    kinds: dict[str, dict[str, int]] = {}
    for name, job in jobs.items():
        one = kinds.setdefault(job.kind, {"jobs": 0, "cached": 0})
        one["jobs"] += 1
        one["cached"] += name in planned.done
    return {
        "suite": planned.suite.id,
        "entries": [entry.name for entry in planned.plan.entries],
        "kinds": kinds,
        "jobs": len(jobs),
        "cached": len(planned.done),
        "wall_seconds": found.seconds / slots,
        "slots": slots,
        "device": str(device),
        "memory_bytes": found.memory_bytes,
    }


def _execute(planned: Planned) -> Run:
    from rich.console import Console

    from transferbench.api import finish
    from transferbench.runner.progress import Display

    left = {name: job for name, job in planned.plan.jobs.items() if name not in planned.done}
    with Display(Console(stderr=True), left=left) as display:
        return finish(planned, display)


def _show_run(finished: Run, *, json: bool) -> None:
    if json:
        as_json(finished.summary())
        return
    for entry, verdicts in finished.claims.items():
        if verdicts:
            typer.echo(f"claims of {finished.suite.id} on {entry}:")
            table(["claim", "verdict", "effect", "95% interval", "n", "statement"],
                  [_verdict_row(one) for one in verdicts])  # fmt: skip
            typer.echo("")
    typer.echo(finished.board())
    typer.echo(f"the report is {finished.folder / 'report.html'}")
    if finished.failed:
        typer.echo(f"{len(finished.failed)} job(s) did not finish: transferbench status "
                   f"{finished.folder}", err=True)  # fmt: skip


def _verdict_row(one: Any) -> tuple[str, str, str, str, int, str]:
    effect = "" if one.effect is None else f"{one.effect:+.3f}"
    interval = "" if one.low is None else f"[{one.low:+.3f}, {one.high:+.3f}]"
    return one.claim, one.verdict, effect, interval, one.n, one.statement


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
