"""The diagnostics that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl

__all__ = ["transferbench_diagnostics"]


@hookimpl
def transferbench_diagnostics() -> list[object]:
    """Every built-in of this kind, one a line."""
    return []
