"""The conformance kit: checks that a plugin keeps the promises of its kind.

One set of checks, three interfaces: ``check_plugin`` returns results, ``parametrize_with_checks``
makes tests of pytest, ``transferbench plugin check`` prints a table. To add a check, add a function
``check_<property>`` to its kind's module.
"""

from __future__ import annotations

from transferbench.conformance.checks import CheckResult, PluginCheck
from transferbench.conformance.kit import (
    ExpectedFailures,
    check_plugin,
    checks_of,
    parametrize_with_checks,
)
from transferbench.conformance.selection import (
    Selection,
    check_selection,
    parameters_of,
    read_expected,
    refuse_missing_files,
    select_plugins,
    with_params,
)
from transferbench.registry.discovery import specs_of

__all__ = [
    "CheckResult",
    "ExpectedFailures",
    "PluginCheck",
    "Selection",
    "check_plugin",
    "check_selection",
    "checks_of",
    "parameters_of",
    "parametrize_with_checks",
    "read_expected",
    "refuse_missing_files",
    "select_plugins",
    "specs_of",
    "with_params",
]
