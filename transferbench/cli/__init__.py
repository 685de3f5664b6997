"""The command line: parse, one call, print. Exit codes: 0, 1 a failure, 2 a mistake, 130."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from transferbench import __version__
from transferbench.cli import authoring, listing, publishing, running
from transferbench.cli.output import fail, say, stdout_kept
from transferbench.errors import TransferbenchError

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
    with stdout_kept():
        try:
            app()
        except TransferbenchError as error:
            fail(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            _interrupted()
        except SystemExit as leaving:
            # Typer turns an interrupt inside a command into this, without a message.
            if leaving.code == INTERRUPTED:
                _interrupted()
            raise


def _interrupted() -> NoReturn:
    fail("interrupted; what was finished is kept, and the same command goes on from there")
    sys.exit(INTERRUPTED)
