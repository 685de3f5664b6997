"""The commands that plan and run suites, and that show runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transferbench.cli.options import (
    DataRoot,
    Device,
    Devices,
    Jobs,
    Json,
    Plugins,
    RunPath,
    RunStore,
    SuiteName,
    with_options,
)
from transferbench.cli.output import ResultsCommand, as_json, note, say, table
from transferbench.errors import listing
from transferbench.runner.options import Options

if TYPE_CHECKING:
    from transferbench.api import Run, Verification
    from transferbench.runner.data_card import DataCard
    from transferbench.runner.planning import Planned

__all__ = ["duration", "register"]


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    for command in (plan, prepare, run, pilot, status, cancel, report, compare, export, verify):
        app.command(cls=ResultsCommand)(command)


@with_options("time_limit_seconds", "micro_batch", "image_memory", "compile", "keep", "offline",
              "accept_code", "executor", "executor_options", "accept_versions",
              "accept_rounding", "shard")  # fmt: skip
def plan(suite: SuiteName, *, options: Options, json: Json = False) -> None:
    """Show the jobs of a run and its cost. Nothing is run."""
    from transferbench.runner.execute import try_files

    planned = _planned(suite, options)
    for text in (*planned.code.notes, *(weights := try_files(planned))):
        note(text)
    cost = _cost(planned)
    cost["notes"] += tuple(weights)
    if json:
        as_json(cost)
        return
    kinds = {**cost["kinds"], "all": cost}
    table(["kind", "jobs", "cached", "time left"],
          [(kind, counts["jobs"], counts["cached"], duration(counts["wall_seconds"]))
           for kind, counts in kinds.items()])  # fmt: skip
    left = duration(cost["wall_seconds"], "about ")
    say(
        f"\n{planned.suite.id} on {', '.join(cost['entries'])}: {left} for what is left, "
        f"{cost['slots']} job(s) at once on {cost['device']}, "
        f"{cost['memory_bytes'] / 2**20:,.0f} MiB a job"
    )
    for text in cost["warnings"]:
        note(text)
    if claims := cost["claims"]:
        columns = len(PLANNED_COLUMNS) if any(claim["has_pilot"] for claim in claims) else 3
        say()
        table(PLANNED_COLUMNS[:columns], [_planned_row(claim)[:columns] for claim in claims])
        if without := [claim["claim"] for claim in claims if claim["without_arms"]]:
            say(
                "\nplanned for the middle of a range, where intervals are narrowest, as their "
                f"pilots have no arms: {listing(without, 3)}"
            )
        if weakest := [claim["claim"] for claim in claims if claim["of_weakest"]]:
            say(
                "\nof the weakest of several values, so that the power of all of them is at most "
                f"this: {listing(weakest, 3)}"
            )
    say(f"\nthe store is {planned.store.root}; the run's folder will be {planned.folder}")


PLANNED_COLUMNS = ("claim", "family", "n", "half-width", "power", "n for 90%")


def _planned_row(claim: dict[str, Any]) -> tuple[Any, ...]:
    """What a plan may expect of a claim."""
    own = (claim["claim"], "control" if claim["control"] else claim["family"], claim["n"])
    if not claim["has_pilot"]:
        return (*own, "no pilot", "", "")
    width, enough = claim["half_width"], claim["needed"]
    return (*own, "" if width is None else f"{width:.3g}", f"{claim['power']:.0%}",
            "none" if enough is None else enough)  # fmt: skip


@with_options("seed_count", "device", "jobs", "time_limit_seconds", "micro_batch",
              "image_memory", "compile", "keep", "accept_code", "executor", "executor_options",
              "accept_versions", "accept_rounding", "shard")  # fmt: skip
def prepare(suite: SuiteName, *, options: Options) -> None:
    """Prepare the data and weights of a run. Datasets are decoded, external weights loaded once."""
    from transferbench.runner.execute import try_weights

    planned = _planned(suite, options)
    for text in planned.code.notes:
        note(text)
    for weights in try_weights(planned, planned.done):
        say(f"weights of {weights}")
    for label, card in planned.data.cards.items():
        _show_card(label, card)
    say(f"the data of {planned.suite.id} are ready in {planned.store.root / 'datasets'}")


def _show_card(label: str, card: DataCard) -> None:
    from transferbench.runner.data_card import card_sentence, card_table

    say(f"{label}: {card.dataset}, {card_sentence(card)}; licence: {card.license}")
    table(*card_table(card))
    say()


@with_options()
def run(suite: SuiteName, *, options: Options, json: Json = False) -> None:
    """Run a suite and write its report. Trains, measures and judges the claims."""
    from rich.console import Console

    from transferbench.api import finish
    from transferbench.runner.progress import Display

    planned = _planned(suite, options)
    with Display(Console(stderr=True)) as display:
        finished = finish(planned, display)
    if json:
        as_json(finished.summary())
    else:
        _show_run(finished)
    if finished.failed:
        raise typer.Exit(1)


def pilot(folder: RunPath, json: Json = False) -> None:
    """Print what a run says about the variance of its claims: the pilots of a suite.

    The run is of another draw than the suite that is planned.
    """
    from transferbench.api.pilots import pilots_as_yaml, run_pilots

    pilots = run_pilots(folder)
    if json:
        as_json([of_claim._asdict() for of_claim in pilots])
    else:
        say(pilots_as_yaml(pilots))


def status(folder: RunPath, store: RunStore = None, json: Json = False) -> None:
    """Show how a run's jobs ended, and what still computes for it on a cluster."""
    from transferbench.api import Run
    from transferbench.runner.executors.offers import workers_elsewhere

    finished = Run(folder, store=store)
    finished.refuse_cut_records()
    rows = finished.job_rows
    if json:
        others = finished.other_code
        as_json([
            {**row, "other_code": [f"{other.then}, now {other.now}" for other in others
                                   if row["job"] in other.jobs]}
            for row in rows
        ])  # fmt: skip
        return
    counts = Counter((row["kind"], row["status"]) for row in rows)
    table(["kind", "status", "jobs"], [(*key, count) for key, count in sorted(counts.items())])
    for row in rows:
        if row["message"]:
            say(f"{row['status']}: {row['label']}: {row['message']}")
    for text in (*finished.code_notes, *workers_elsewhere(folder)):
        say(text)


def cancel(folder: RunPath) -> None:
    """End what still computes for a run on a cluster. What is finished is kept."""
    from transferbench.api import cancel_run

    ended = cancel_run(folder)
    say(f"cancelled: {', '.join(ended)}" if ended else f"nothing computes for {folder} elsewhere")


def report(folder: RunPath, store: RunStore = None) -> None:
    """Write the report of a run again."""
    from transferbench.api import Run

    say(f"the report is {Run(folder, store=store).report()}")


def compare(first: RunPath, second: RunPath, json: Json = False) -> None:
    """Compare two runs, paired by replicate."""
    from transferbench.api import compare_runs

    rows = compare_runs(first, second)
    if json:
        as_json(rows)
    elif rows:
        table(list(rows[0]), [[_short(value) for value in row.values()] for row in rows])
    else:
        say("the two runs have no measurement in common")


def export(
    folder: RunPath,
    to: Annotated[Path, typer.Argument(help="A .csv, .parquet or .json file to write.")],
) -> None:
    """Write a run's measurements as one tidy table."""
    from transferbench.api import export_run

    say(f"{export_run(folder, to)} rows in {to}")


VerifiedStore = Annotated[
    Path, typer.Argument(help="The folder of a store, such as runs/store.", metavar="STORE")
]
OtherRuns = Annotated[
    list[Path] | None,
    typer.Option(
        "--run",
        help="The folder of a run that is not beside the store. May be given again.",
        metavar="RUN",
    ),
]
WeightsFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="A file or folder of external weights of trials. May be given again.",
        metavar="FILE",
    ),
]
OtherBits = Annotated[
    bool,
    typer.Option(
        "--recompute",
        help="Compute again here what another kind of machine computed: its bits may differ.",
    ),
]


def verify(
    store: VerifiedStore,
    run: OtherRuns = None,
    weights: WeightsFiles = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    device: Device = Devices.auto,
    jobs: Jobs = None,
    recompute: OtherBits = False,
    json: Json = False,
) -> None:
    """Read everything in a store, and compute again what is damaged."""
    from rich.console import Console

    from transferbench.api import verify_store
    from transferbench.runner.progress import Display

    with Display(Console(stderr=True)) as display:
        verification = verify_store(
            store, runs=run or (), weights=weights or (), data_root=data_root,
            plugins=plugin or (), device=device.value, jobs=jobs, recompute=recompute,
            progress=display,
        )  # fmt: skip
    for text in verification.notes:
        note(text)
    if json:
        as_json({"ok": verification.ok, **vars(verification)})
    else:
        _show_verification(verification)
    if not verification.ok:
        raise typer.Exit(1)


def _show_verification(verification: Verification) -> None:
    say(f"{verification.artefacts} artefacts in {verification.store} read: {verification.files} "
        f"files, {verification.size_bytes / 1e6:,.1f} MB")  # fmt: skip
    counts = Counter(repair.outcome for repair in verification.repairs)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    say(f"damaged: {summary or 'none'}")
    for repair in verification.repairs:
        detail = f" ({repair.detail})" if repair.detail else ""
        say(f"  {repair.outcome}: {repair.title}: {repair.fault}{detail}")
    say("outside the store:" if verification.outside else "nothing outside the store is needed")
    for name, status, detail in verification.outside:
        say(f"  {status}: {name}{f' ({detail})' if detail else ''}")


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _planned(suite: str, options: Options) -> Planned:
    from transferbench.runner.planning import plan_suite

    planned = plan_suite(suite, options)
    for text in (*map(str, planned.registry.problems), *planned.notes):
        note(text)
    return planned


def _cost(planned: Planned) -> dict[str, Any]:
    from transferbench.claims import planned_claims
    from transferbench.engine.resources import find_device
    from transferbench.runner.cost import estimate, memory_warning
    from transferbench.runner.executors.this_machine import available_cpus, slots_of

    jobs = planned.plan.jobs
    device = find_device(planned.options.device)
    slots = slots_of(planned.options, device.type)
    cost = estimate(planned, planned.done, device)
    # More jobs at once than cores take as long.
    processes = slots * planned.options.gpus_per_job
    speedup = processes if device.type == "cuda" else min(processes, available_cpus())
    at_once = min(slots, len(jobs) - len(planned.done))
    warnings = filter(None, [memory_warning(cost, at_once, device)])
    totals = Counter(job.kind for job in jobs.values())
    cached = Counter(jobs[name].kind for name in planned.done)
    return {
        "suite": planned.suite.id,
        "entries": [entry.name for entry in planned.plan.entries],
        "notes": (*planned.notes, *planned.code.notes),
        "warnings": list(warnings),
        "overlap": planned.data.overlap,
        "kinds": {
            kind: {
                "jobs": n,
                "cached": cached[kind],
                "wall_seconds": cost.seconds_of[kind] / speedup,
            }
            for kind, n in totals.items()
        },
        "jobs": len(jobs),
        "cached": len(planned.done),
        "wall_seconds": cost.seconds / speedup,
        "slots": slots,
        "claims": [claim._asdict() for claim in planned_claims(planned.suite, planned.registry)],
        "device": str(device),
        "memory_bytes": cost.memory_bytes,
    }


def _show_run(finished: Run) -> None:
    from transferbench.api.finished_run import VERDICT_COLUMNS, verdict_row
    from transferbench.claims import tally

    rates = finished.rates()
    chosen = rates[rates["chosen"]]
    if len(chosen):
        say(f"learning rates of {finished.suite.id}, chosen by tuning:")
        columns = ["entry", "target", "arm", "learning_rate", "flag"]
        table(columns, list(chosen[columns].itertuples(index=False)))
        say()
    for entry, verdicts in finished.claims.items():
        if verdicts:
            say(f"claims of {finished.suite.id} on {entry}:")
            table(VERDICT_COLUMNS, [verdict_row(verdict) for verdict in verdicts])
            say(f"\n{tally(verdicts)}\n")
    say(finished.board())
    say(f"the report is {finished.folder / 'report.html'}")
    if finished.failed:
        typer.echo(f"{len(finished.failed)} job(s) did not finish: transferbench status "
                   f"{finished.folder}", err=True)  # fmt: skip


def duration(seconds: float, about: str = "") -> str:
    """A time in words, after ``about`` unless only a bound is told."""
    if 0 < seconds < 1:
        return "under a second"
    return about + _hours(seconds)


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
