"""The command line: parse, one call, print. Exit codes: 0, 1 a failure, 2 a mistake, 130."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from transferbench import __version__
from transferbench.cli import authoring, listing, pictures, publishing, running, storing
from transferbench.cli.output import fail, say, stdout_kept
from transferbench.errors import TransferbenchError
from transferbench.files import advice_on
from transferbench.interrupts import ignore_further_interrupts, signals_as_interrupts
from transferbench.streams import guarded_streams, lost_output, open_closed_descriptors

__all__ = ["app", "main"]

INTERRUPTED = 130
LIMITS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE,
          errno.ENOMEM, errno.EIO}  # fmt: skip
"""Errors of the system that name no file and are nobody's bug."""
MAX_PATH_CHARACTERS = 200
SHARED_LIBRARY = ".so"

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
pictures.register(app)
listing.register(app)
app.add_typer(pictures.suite, name="suite")
app.add_typer(publishing.submission, name="submission")
app.add_typer(publishing.leaderboard, name="leaderboard")
app.add_typer(authoring.app, name="plugin")
app.add_typer(storing.app, name="store")


def main() -> None:
    """Run the command line: a user's mistake is a message, a bug keeps its traceback."""
    open_closed_descriptors()
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever backend is named and not there
    with stdout_kept(), guarded_streams():
        try:
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
    guarded = sys.modules.get("transferbench.registry.surroundings")
    if guarded is not None and guarded.stray_threads():
        os._exit(code)  # the end of Python would wait for what a plugin left running
    sys.exit(code)


def _run() -> int:
    """The exit code of the command."""
    try:
        with signals_as_interrupts():
            _require_working_directory()
            app()
    except TransferbenchError as error:
        fail(str(error))
        return 2
    except OSError as error:
        # A path of the user's or a limit of the system, wherever in the code it came up.
        if error.filename is None and error.errno not in LIMITS:
            raise
        fail(_refusal(error))
        return 2
    except ImportError as error:
        if SHARED_LIBRARY not in str(error):
            raise
        fail(f"{error}: is memory limited (ulimit -v), or is the installation damaged?")
        return 2
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def _require_working_directory() -> None:
    """Raise a ``TransferbenchError`` where it was removed: libraries end the process over it."""
    try:
        Path.cwd()
    except OSError as error:
        raise TransferbenchError(
            f"the working directory cannot be used: {error.strerror}; change to one that exists"
        ) from error


def _refusal(error: OSError) -> str:
    """What the system refused, and why."""
    reason = error.strerror or str(error)
    if error.filename is None:
        way_on = advice_on(error.errno) or "run the command again when it is remedied"
        return f"the operating system reported: {reason}; {way_on}"
    path = os.fsdecode(error.filename)
    if len(path) > MAX_PATH_CHARACTERS:
        path = f"{path[:MAX_PATH_CHARACTERS]}..."
    advice = advice_on(error.errno) or "check the path, its permissions, and the room that is left"
    return f"cannot use {path}: {reason}; {advice}"
