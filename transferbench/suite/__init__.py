"""Suites: the definition of a benchmark as a validated file."""

from __future__ import annotations

from transferbench.suite.schema import *  # noqa: F403  # the package is the schema's public face
from transferbench.suite.schema import __all__ as __all__
