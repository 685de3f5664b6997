"""The commands that pack and check submissions and build the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferbench.cli.options import DataRoot, Json, Plugins, RunStore, known_plugins
from transferbench.cli.output import ResultsCommand, as_json, note, say

__all__ = ["leaderboard", "submission"]

Submissions = Annotated[Path, typer.Argument(help="The folder that holds the submissions.")]


submission = typer.Typer(no_args_is_help=True, help="Pack and check submissions.")
leaderboard = typer.Typer(no_args_is_help=True, help="Build and show leaderboards.")


@submission.command(cls=ResultsCommand)
def pack(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    entry: Annotated[list[str] | None, typer.Option("--entry", help="Only this entry.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Where submissions are kept.")] = Path(
        "leaderboard/submissions"
    ),
    submitter: Annotated[str | None, typer.Option(help="Who submits.")] = None,
    license: Annotated[  # noqa: A002  # the option's name
        str | None, typer.Option("--license", help="The licence of the weights.")
    ] = None,
    overlap: Annotated[
        list[str] | None, typer.Option(help="TARGET=yes|no|unknown: seen in pre-training?")
    ] = None,
    plugin: Plugins = None,
    store: RunStore = None,
) -> None:
    """Pack the entries of a run into immutable submissions."""
    from transferbench.api import Run, pack_run

    registry, finished = known_plugins(plugin), Run(run, store=store)
    for path in pack_run(finished, out, entry or (), submitter, license, overlap or (), registry):
        say(str(path))


@submission.command(cls=ResultsCommand)
def check(
    path: Annotated[Path, typer.Argument(help="The folder of a submission.")],
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Check a submission: ids, files, cells, and the metrics from its predictions."""
    from transferbench.submission import check as check_submission

    report = check_submission(path, known_plugins(plugin))
    if json:
        as_json({"ok": report.ok, "trust": report.trust, "checks": report.checks})
    else:
        say(str(report))
    if not report.ok:
        raise typer.Exit(1)


@submission.command(cls=ResultsCommand)
def reproduce(
    path: Annotated[Path, typer.Argument(help="The folder of a submission.")],
    by: Annotated[str, typer.Option(help="Who certifies: another than its submitter.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials to train again.")] = 3,
    out: Annotated[Path, typer.Option(help="Where certificates are kept.")] = Path(
        "leaderboard/certificates"
    ),
    seed: Annotated[int | None, typer.Option(min=0, help="Of the choice of trials.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file or folder of its weights, if timm has none.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where what is trained is stored; by default ./store.")
    ] = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Train randomly chosen trials of a submission again, and write a certificate."""
    from transferbench.api.reproduction import reproduce as train_again
    from transferbench.runner.options import Options
    from transferbench.runner.progress import progress_watcher

    options = Options(weights=weights or (), store=store, data_root=data_root, plugins=plugin or ())
    with progress_watcher(True) as watcher:  # one argument
        certificate, file = train_again(path, trials, by, out, options, watcher, seed=seed)
    for trial in certificate.trials:
        say(f"{trial.initialization} on {trial.target}, {trial.perturbation}, replicate "
            f"{trial.replicate}: {trial.submitted} then, {trial.again} now")  # fmt: skip
    say(str(file))
    if not certificate.agrees:
        raise typer.Exit(1)


@submission.command(cls=ResultsCommand)
def export(
    path: Annotated[Path, typer.Argument(help="The folder of a submission.")],
    form: Annotated[
        str, typer.Option("--format", help="hf-eval-results, every-eval-ever or badge.")
    ],
    model: Annotated[str | None, typer.Option(help="The model's id there.")] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="The benchmark's dataset on the Hugging Face Hub.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A page with the result.")] = None,
    plugin: Plugins = None,
) -> None:
    """Print the score of a submission in the format of another place."""
    from transferbench.leaderboard.exports import Destination, exported
    from transferbench.submission import check as check_submission

    registry = known_plugins(plugin)
    report = check_submission(path, registry)
    say(exported(report, registry, form, Destination(model, benchmark, url)).rstrip("\n"))


@submission.command(cls=ResultsCommand)
def withdraw(
    path: Annotated[Path, typer.Argument(help="The folder of a submission, which stays.")],
    by: Annotated[str, typer.Option(help="Who withdraws it.")],
    reason: Annotated[str, typer.Option(help="Why, in a sentence that the board shows.")],
    corrected_by: Annotated[
        Path | None, typer.Option(help="The folder of the submission in its place.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where withdrawals are kept.")] = Path(
        "leaderboard/withdrawals"
    ),
) -> None:
    """Take a submission off its board, or put a corrected one in its place."""
    from transferbench.submission.withdrawal import withdraw as write_withdrawal

    say(str(write_withdrawal(path, by, reason, corrected_by, out)))


@leaderboard.command(cls=ResultsCommand)
def build(
    submissions: Submissions = Path("leaderboard/submissions"),
    out: Annotated[Path, typer.Option("--out", help="Where the boards are written.")] = Path(
        "leaderboard"
    ),
    site: Annotated[
        bool, typer.Option("--site", help="Write the pages of the site, too, below OUT/site.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Write every board as md, html, csv, tex and json from one table."""
    from transferbench.files import disk_errors_explained
    from transferbench.leaderboard import build as build_boards
    from transferbench.leaderboard import survey

    for why in survey(submissions).left_out:
        note(why)
    with disk_errors_explained(out):
        written = build_boards(submissions, out, known_plugins(plugin), site=site)
    for path in written:
        say(str(path))


@leaderboard.command(cls=ResultsCommand)
def labels(
    suite: Annotated[str, typer.Argument(help="A bundled suite, or the file of one.")],
    store: Annotated[Path, typer.Option(help="Where its datasets are decoded.")] = Path("store"),
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Print the lines that pin the test labels of a suite, for the file TEST_LABELS."""
    from transferbench.api.labels import label_pins

    for line in label_pins(suite, store, data_root, known_plugins(plugin)):
        say(line)


@leaderboard.command(cls=ResultsCommand)
def overlaps(
    suite: Annotated[str, typer.Argument(help="A bundled suite, or the file of one.")],
    store: Annotated[Path, typer.Option(help="Where its datasets are decoded.")] = Path("store"),
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Print what targets have in common with sources, for the file OVERLAPS."""
    from transferbench.api.labels import overlap_pins

    for line in overlap_pins(suite, store, data_root, known_plugins(plugin)):
        say(line)


@leaderboard.command(cls=ResultsCommand)
def show(
    suite: Annotated[str | None, typer.Argument(help="Only this board: name@MAJOR.")] = None,
    submissions: Annotated[Path, typer.Option("--submissions")] = Path("leaderboard/submissions"),
    plugin: Plugins = None,
) -> None:
    """Print the boards."""
    from transferbench.errors import UnknownNameError
    from transferbench.leaderboard import boards
    from transferbench.leaderboard import show as as_text

    tables = {table.board: table for table in boards(submissions, known_plugins(plugin))}
    if suite is not None and suite not in tables:
        raise UnknownNameError("board", suite, tables)
    for name, table in tables.items():
        if suite in {None, name}:
            say(as_text(table))
