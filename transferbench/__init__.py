"""What is being transferred in transfer learning? A plugin-based benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferbench.api import Run, plan_run, run
    from transferbench.conformance import check_plugin
    from transferbench.hookspecs import hookimpl

__all__ = ["Run", "__version__", "check_plugin", "hookimpl", "plan_run", "run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the command line's help must not wait for them.
    if name in {"Run", "plan_run", "run"}:
        from transferbench import api

        return getattr(api, name)
    if name == "check_plugin":
        from transferbench.conformance import check_plugin

        return check_plugin
    if name == "hookimpl":
        from transferbench.hookspecs import hookimpl

        return hookimpl
    raise AttributeError(f"module 'transferbench' has no attribute {name!r}")
