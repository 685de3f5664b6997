"""The command line: parse, one call, print. Exit codes: 0, 1 a failure, 2 a mistake, 130."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from transferbench import __version__
from transferbench.cli import authoring, listing, publishing, running
from transferbench.cli.interrupts import ignore_further_interrupts, signals_as_interrupts
from transferbench.cli.output import fail, say, stdout_kept
from transferbench.errors import TransferbenchError
from transferbench.streams import guarded_streams, lost_output, open_closed_descriptors

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    name="transferbench",
    help="What is being transferred in transfer learning? A plugin-based benchmark.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(requested: bool) -> None:
    if requested:
        say(f"transferbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # its callback does the work
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


running.register(app)
listing.register(app)
app.add_typer(publishing.submission, name="submission")
app.add_typer(publishing.leaderboard, name="leaderboard")
app.add_typer(authoring.app, name="plugin")


def main() -> None:
    """Run the command line: a user's mistake is a message, a bug keeps its traceback."""
    open_closed_descriptors()
    with stdout_kept(), guarded_streams():
        try:
            with signals_as_interrupts():
                code = _run()
        except KeyboardInterrupt:
            ignore_further_interrupts()
            fail("interrupted; what was finished is kept, and the same command goes on from there")
            code = INTERRUPTED
        if reason := lost_output():
            fail(
                f"part of the output could not be printed: {reason}; what was computed and written "
                "to files is kept: give the command again where its output finds room"
            )
            code = code or 2
    sys.exit(code)


def _run() -> int:
    """The exit code of the command."""
    try:
        app()
    except TransferbenchError as error:
        fail(str(error))
        return 2
    except SystemExit as leaving:
        # Typer turns an interrupt inside a command into this, without a message.
        if leaving.code == INTERRUPTED:
            raise KeyboardInterrupt from leaving
        return int(leaving.code or 0)
    return 0
