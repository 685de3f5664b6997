"""How the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

__all__ = ["as_json", "fail", "note", "table"]


def as_json(value: Any) -> None:
    """Print ``value``, which may hold dataclasses, as JSON to stdout."""
    from transferbench.files import json_text

    typer.echo(json_text(value), nl=False)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print an aligned table to stdout."""
    from tabulate import tabulate

    typer.echo(tabulate(rows, headers=headers, disable_numparse=True))


def note(text: str) -> None:
    """Print what needs no action, to stderr."""
    typer.echo(f"note: {text}", err=True)


def fail(text: str) -> None:
    """Print what is wrong, to stderr."""
    sys.stdout.flush()
    typer.echo(f"error: {text}", err=True)
