"""The kit that tells whether a plugin keeps the promises of its kind.

One generator of checks, three faces: ``check_plugin`` gives results, ``parametrize_with_checks``
makes tests of pytest, ``transferbench plugin check`` prints a table. Adding a check is adding a
function ``check_<property>`` to its kind's module and to that module's ``CHECKS``.
"""

from __future__ import annotations

from transferbench.conformance.checks import Check, CheckResult
from transferbench.conformance.kit import (
    Expected,
    check_plugin,
    checks_of,
    expected_of,
    parametrize_with_checks,
)
from transferbench.conformance.lookup import Asked, ask, check_asked, read_expected
from transferbench.registry.discovery import specs_of

__all__ = [
    "Asked",
    "Check",
    "CheckResult",
    "Expected",
    "ask",
    "check_asked",
    "check_plugin",
    "checks_of",
    "expected_of",
    "parametrize_with_checks",
    "read_expected",
    "specs_of",
]
