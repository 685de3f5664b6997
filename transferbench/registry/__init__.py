"""Which plugin offers what: discovered, checked, looked up by name."""

from __future__ import annotations

from transferbench.registry.lookup import (
    ENVIRONMENT_VARIABLE,
    Kind,
    PluginProblem,
    Registry,
    blamed,
    identity,
    load_registry,
    open_registry,
    parse_params,
)

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "Kind",
    "PluginProblem",
    "Registry",
    "blamed",
    "identity",
    "load_registry",
    "open_registry",
    "parse_params",
]
