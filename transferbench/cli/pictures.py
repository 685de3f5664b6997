"""The commands on pictures of one's own: a suite for them, and its run in a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transferbench.cli.options import Device, Devices, Jobs, Json, Plugins
from transferbench.cli.output import ResultsCommand, as_json, say

__all__ = ["register", "suite"]

Pictures = Annotated[
    Path,
    typer.Argument(
        help="A folder with a folder of pictures for each class, or a table (.csv, .tsv) with "
        "columns path and label.",
        metavar="FOLDER|TABLE",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="TAG|FILE",
                 help="Pre-trained weights; by default the tag imagenet."),
]  # fmt: skip
Backbone = Annotated[
    str | None, typer.Option("--backbone", help="Their network; by default a small one of timm.")
]
Minutes = Annotated[
    float, typer.Option("--minutes", help="The time of the run, all included.", min=0.01)
]
Size = Annotated[
    int | None, typer.Option("--size", help="Side of the images in pixels.", min=8, max=1024)
]
Group = Annotated[
    str | None,
    typer.Option("--group", metavar="PATTERN|COLUMN",
                 help="What tells which pictures belong together, as those of one patient, so that "
                 "no group is in both splits: a regular expression whose first group matches the "
                 "key in a file's name, such as ^([^_]+)_, or a column of the table."),
]  # fmt: skip
Offline = Annotated[bool, typer.Option("--offline", help="Refuse to look for weights on the "
                                       "network.")]  # fmt: skip

suite = typer.Typer(no_args_is_help=True, help="Write suites.")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("try", cls=ResultsCommand)(try_pictures)


def try_pictures(
    pictures: Pictures,
    weights: Weights = None,
    backbone: Backbone = None,
    minutes: Minutes = 20,
    size: Size = None,
    group: Group = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; by default runs/own-NAME@1.0.")
    ] = None,
    device: Device = Devices.auto,
    jobs: Jobs = None,
    plugin: Plugins = None,
    offline: Offline = False,
    browser: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    json: Json = False,
) -> None:
    """Try pre-trained weights on your own pictures. Writes a suite, runs it, and answers."""
    from rich.console import Console

    from transferbench import api
    from transferbench.runner.progress import Display

    with Display(Console(stderr=True)) as display:
        run = api.try_pictures(
            pictures, weights=weights, backbone=backbone, minutes=minutes, size=size,
            group=group, out=out, device=device.value, jobs=jobs, plugins=plugin or (),
            offline=offline, progress=display,
        )  # fmt: skip
    if json:
        as_json(run.summary() | {"answers": run.answers})
    else:
        for entry, answer in run.answers.items():
            say(f"{entry}: {answer}\n")
        say(f"the suite is {run.folder / 'suite.yaml'}")
        say(f"the report is {run.folder / 'report.html'}")
    if browser:
        typer.launch(str(run.folder / "report.html"))
    if run.failed:
        raise typer.Exit(1)


@suite.command(cls=ResultsCommand)
def new(
    pictures: Pictures,
    weights: Weights = None,
    backbone: Backbone = None,
    minutes: Minutes = 20,
    size: Size = None,
    group: Group = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; by default own-NAME.yaml.")
    ] = None,
    device: Device = Devices.auto,
    jobs: Jobs = None,
    plugin: Plugins = None,
    offline: Offline = False,
) -> None:
    """Write a suite for your own pictures. A few steps are timed, and nothing is trained."""
    from transferbench import api

    file = api.new_suite(
        pictures, weights=weights, backbone=backbone, minutes=minutes, size=size,
        group=group, out=out, device=device.value, jobs=jobs, plugins=plugin or (), offline=offline,
    )  # fmt: skip
    say(f"the suite is {file}; its second line is the command that runs it")
