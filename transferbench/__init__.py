"""What is being transferred in transfer learning? A plugin-based benchmark."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferbench.api import (
        Run,
        cancel_run,
        compare_runs,
        export_run,
        new_suite,
        pack_run,
        plan_run,
        run,
        try_pictures,
        verify_store,
    )
    from transferbench.api import cancel_run as cancel
    from transferbench.api import compare_runs as compare
    from transferbench.api import export_run as export
    from transferbench.api import pack_run as pack
    from transferbench.api import verify_store as verify
    from transferbench.conformance import check_plugin
    from transferbench.hookspecs import hookimpl

__all__ = [
    "Run",
    "__version__",
    "cancel",
    "cancel_run",
    "check_plugin",
    "compare",
    "compare_runs",
    "export",
    "export_run",
    "hookimpl",
    "new_suite",
    "pack",
    "pack_run",
    "plan_run",
    "run",
    "try_pictures",
    "verify",
    "verify_store",
]

__version__ = "0.1.0"

_ALIASES = {
    "cancel": "cancel_run",
    "compare": "compare_runs",
    "export": "export_run",
    "pack": "pack_run",
    "verify": "verify_store",
}
_MODULES = {"check_plugin": "transferbench.conformance", "hookimpl": "transferbench.hookspecs"}


def __getattr__(name: str) -> Any:
    # Imported at the first access: the command line's help must not wait for them.
    if name not in __all__:
        raise AttributeError(f"module 'transferbench' has no attribute {name!r}")
    module = import_module(_MODULES.get(name, "transferbench.api"))
    return getattr(module, _ALIASES.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
