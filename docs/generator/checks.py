"""The promises of every kind of plugin, as the checks that hold a plugin to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from generator.markdown import code, prose, table
from transferbench.conformance import (
    backbones,
    datasets,
    declarations,
    diagnostics,
    initializations,
    perturbations,
)

__all__ = ["CHECKS", "page"]

CHECKS: Mapping[str, Sequence[Callable[[Any], None]]] = {
    "Every plugin": declarations.CHECKS,
    "Datasets": datasets.CHECKS,
    "Perturbations": perturbations.CHECKS,
    "Backbones": backbones.CHECKS,
    "Initializations": initializations.CHECKS,
    "Diagnostics": diagnostics.CHECKS,
}
"""What each kind promises, in the order in which it is looked at."""

HEAD = """# Checks of plugins

What a plugin promises, as `transferbench plugin check` looks for it. No check
knows a plugin's name: built-in plugins are held to the same. A plugin is checked with its `tiny`
parameters; what cannot be told here (no GPU, nothing drawn) is skipped, and says why. Exit code 0:
everything holds; 1: something does not.

A check that is known to fail is listed with its reason (`--expected-failures FILE`, or in
`parametrize_with_checks`). It then has to fail.

"""


def page() -> str:
    """The page."""
    return HEAD + "\n".join(_section(kind, checks) for kind, checks in CHECKS.items())


def _section(kind: str, checks: Sequence[Callable[[Any], None]]) -> str:
    rows = [(code(_name(check)), prose(inspect.getdoc(check))) for check in checks]
    return f"## {kind}\n\n{table(['check', ''], rows)}"


def _name(check: Callable[[Any], None]) -> str:
    return check.__name__.removeprefix("check_").replace("_", "-")
