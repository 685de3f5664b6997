"""The backbones that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl

__all__ = ["transferbench_backbones"]


@hookimpl
def transferbench_backbones() -> list[object]:
    """Every built-in of this kind, one a line."""
    return []
