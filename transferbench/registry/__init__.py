"""Which plugin offers what: discovered, checked, looked up by name."""

from __future__ import annotations

from transferbench.registry.lookup import *  # noqa: F403  # the package is its public face
from transferbench.registry.lookup import __all__ as __all__
