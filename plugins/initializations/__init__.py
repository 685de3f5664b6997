"""The initializations that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import InitializationSpec
from transferbench_plugins.initializations.pretrained import PRETRAINED
from transferbench_plugins.initializations.random_draw import RANDOM, SAME_RANDOM

__all__ = ["transferbench_initializations"]


@hookimpl
def transferbench_initializations() -> list[InitializationSpec]:
    """Every built-in of this kind, one a line."""
    return [
        PRETRAINED,
        RANDOM,
        SAME_RANDOM,
    ]
