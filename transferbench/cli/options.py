"""The ``--plugin`` option, and the plugins that a command then knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferbench.cli.output import note

if TYPE_CHECKING:
    from transferbench.registry import Registry

__all__ = ["Plugins", "known_plugins"]

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="Load this file; may be given again.")
]


def known_plugins(files: list[Path] | None) -> Registry:
    """All plugins that can be loaded; one that cannot is told in a line."""
    from transferbench.runner.request import open_registry

    registry = open_registry(files or ())
    for problem in registry.problems:
        note(str(problem))
    return registry
