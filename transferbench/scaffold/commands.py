"""What to type once a plugin is written: check it, then run a suite with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from transferbench.hookspecs import PROJECT
from transferbench.registry.discovery import Kind
from transferbench.scaffold.naming import Names

__all__ = ["file_commands", "package_commands", "run_command"]

# A suite says what is trained and measured; each of these puts the plugin in, or adds it.
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
    """For a distribution: installed as a link, so that what is edited is what runs."""
    return (
        f"pip install -e {shlex.quote(f'{root}[test]')}",
        f"pytest {shlex.quote(str(root))}",
        f"{PROJECT} plugin check {names.distribution}",
        run_command(kind, names),
    )


def run_command(kind: Kind, names: Names, plugin: str = "") -> str:
    """A run of a suite that uses it; ``plugin``: how it is loaded, where it is not installed."""
    use = IN_A_RUN[kind].format(plugin=names.plugin, label=names.label)
    return f"{PROJECT} run quickstart {plugin}{use}"
