"""The commands for those who write plugins."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from transferbench.cli.plugins import known_plugins

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Begin and check plugins.")


class KindOfPlugin(StrEnum):
    """What ``--kind`` takes."""

    dataset = "dataset"
    perturbation = "perturbation"
    backbone = "backbone"
    initialization = "initialization"
    diagnostic = "diagnostic"


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name, such as my-net.", metavar="NAME")],
    kind: Annotated[KindOfPlugin, typer.Option("--kind", help="What it is.")],
    package: Annotated[
        bool, typer.Option("--package", help="A distribution to publish, not one file.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path(),
) -> None:
    """Write a new plugin that works as it is: edit its one marked place."""
    from transferbench.discovery import SPECS
    from transferbench.scaffold import new_file, new_package

    write = new_package if package else new_file
    chosen = next(one for one in SPECS if one == kind)
    written = write(chosen, name, out, known_plugins(None))
    for path in written.paths:
        typer.echo(f"written: {path}")
    typer.echo(f"\nedit {written.edit} where it says EDIT HERE, then:")
    for command in written.commands:
        typer.echo(f"  {command}")
