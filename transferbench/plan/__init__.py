"""The graph of jobs that a suite asks for, with their ids."""

from __future__ import annotations

from transferbench.plan.graph import *  # noqa: F403  # the package is the graph's public face
from transferbench.plan.graph import __all__ as __all__
