"""The page of all checks of plugins, by kind."""

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
"""The checks of each kind, in the order in which they run."""

HEAD = """# Checks of plugins

The checks that `transferbench plugin check` runs; built-in plugins pass them too. A plugin is
checked with its `tiny` parameters. A check that does not apply (no GPU, no draws) is skipped with a
reason. Exit code 0: all checks pass; 1: at least one fails.

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
