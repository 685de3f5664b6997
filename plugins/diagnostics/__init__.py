"""The diagnostics that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import DiagnosticSpec
from transferbench_plugins.diagnostics.agreement import AGREEMENT
from transferbench_plugins.diagnostics.learning_curve import LEARNING_CURVE
from transferbench_plugins.diagnostics.relative_drop import RELATIVE_DROP
from transferbench_plugins.diagnostics.speed import SPEED

__all__ = ["transferbench_diagnostics"]


@hookimpl
def transferbench_diagnostics() -> list[DiagnosticSpec]:
    """Every built-in of this kind, one a line."""
    return [
        AGREEMENT,
        LEARNING_CURVE,
        RELATIVE_DROP,
        SPEED,
    ]
