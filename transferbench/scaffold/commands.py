"""The commands that follow ``plugin new``: check the plugin, then run a suite with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from transferbench.hookspecs import PROJECT
from transferbench.registry.discovery import Kind
from transferbench.scaffold.naming import Names

__all__ = ["file_commands", "package_commands", "run_command"]

# The options that make a suite use a plugin of each kind.
IN_A_RUN: Mapping[Kind, str] = {
    "backbone": "--backbone {plugin}",
    "dataset": "--set targets.handwriting.dataset.name={plugin}",
    "diagnostic": "--set diagnostics.{label}.name={plugin}",
    "initialization": "--initialization {plugin}",
    "perturbation": "--set perturbations.{label}.name={plugin}",
}


def file_commands(kind: Kind, names: Names, path: Path) -> tuple[str, ...]:
    """For a plugin in a loose file."""
    file = shlex.quote(str(path))
    return f"{PROJECT} plugin check {file}", run_command(kind, names, f"--plugin {file} ")


def package_commands(kind: Kind, names: Names, root: Path) -> tuple[str, ...]:
    """For a distribution; it is installed editable."""
    return (
        f"pip install -e {shlex.quote(f'{root}[test]')}",
        f"pytest {shlex.quote(str(root))}",
        f"{PROJECT} plugin check {names.distribution}",
        run_command(kind, names),
    )


def run_command(kind: Kind, names: Names, plugin: str = "") -> str:
    """A run of a suite that uses it; ``plugin``: the option that loads it, if not installed."""
    use = IN_A_RUN[kind].format(plugin=names.plugin, label=names.label)
    return f"{PROJECT} run quickstart {plugin}{use}"
