"""How the command line prints: results to stdout, everything else to stderr.

Stdout belongs to the results of a command: what plugins, libraries and worker processes print while
it runs goes to stderr, through Python or through the file descriptor.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperOption

from transferbench.streams import printable

__all__ = ["ResultsCommand", "as_json", "fail", "note", "say", "stdout_kept", "table"]

_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)
"""The stdout of the command that runs."""


class ResultsCommand(TyperCommand):
    """A command whose stdout holds what it prints with ``say``, and nothing else."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option that is given several times: all but the last would be dropped."""
        if not ctx.resilient_parsing:
            order = self.make_parser(ctx).parse_args(args=list(args))[2]
            for option in order:
                is_value = isinstance(option, TyperOption) and not option.is_flag
                if is_value and not option.multiple and order.count(option) > 1:
                    ctx.fail(f"{option.opts[0]} is there several times; give it once")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever else is printed meanwhile goes to stderr."""
        before = _RESULTS.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                return super().invoke(ctx)
        finally:
            _RESULTS.reset(before)


@contextmanager
def stdout_kept() -> Iterator[None]:
    """File descriptor 1 becomes stderr, to the end of the process; ``sys.stdout`` is a copy of it.

    C code and worker processes print to the descriptor, some of them as they end. Does nothing
    where ``sys.stdout`` was replaced (a test, a notebook) or was closed.
    """
    stdout = sys.__stdout__
    if stdout is None or stdout is not sys.stdout or _descriptor(stdout) != 1:
        yield
        return
    stdout.flush()
    copy = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(copy, "w", encoding=stdout.encoding, errors=stdout.errors) as results:
        sys.stdout = results
        try:
            yield
        finally:
            sys.stdout = sys.stderr


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def say(text: str = "", *, end: bool = True) -> None:
    """Print a result to stdout, by default with the end of a line."""
    # Without a file, typer prints UTF-8 to a stream that asks for ASCII.
    typer.echo(printable(text), file=_results(), nl=end)


def _results() -> TextIO:
    return _RESULTS.get() or sys.stdout


def as_json(value: Any) -> None:
    """Print ``value``, which may hold dataclasses, as JSON to stdout."""
    from transferbench.files import json_text

    text = json_text(value)
    try:
        text.encode(_results().encoding or "utf-8")
    except UnicodeEncodeError:
        # A substitute for a character would be another value; JSON has escapes of its own.
        text = f"{json.dumps(json.loads(text), indent=1)}\n"
    typer.echo(text, file=_results(), nl=False)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print an aligned table to stdout."""
    from tabulate import tabulate

    say(tabulate(rows, headers=headers, disable_numparse=True))


def note(text: str) -> None:
    """Print what needs no action, to stderr."""
    typer.echo(printable(f"note: {text}"), file=sys.stderr)


def fail(text: str) -> None:
    """Print what is wrong, to stderr."""
    sys.stdout.flush()
    typer.echo(printable(f"error: {text}"), file=sys.stderr)
