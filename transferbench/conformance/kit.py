"""The checks of a plugin, and their Python interfaces: results, and tests of pytest.

The third interface is the command ``transferbench plugin check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from transferbench.conformance import declarations
from transferbench.conformance.checks import (
    CheckResult,
    PluginCheck,
    Violation,
    checks_from,
    result_of,
)
from transferbench.errors import ConformanceError, suggestion
from transferbench.registry import kind_of, parse_params
from transferbench.registry.guard import only_plugins_run
from transferbench.specs import BackboneSpec, Spec

__all__ = [
    "ExpectedFailures",
    "check_plugin",
    "checks_of",
    "expected_of",
    "parametrize_with_checks",
]

ExpectedFailures: TypeAlias = Mapping[str, str] | Mapping[str, Mapping[str, str]]
"""Check name -> why it is known to fail; or plugin name -> such a mapping."""
NONE_EXPECTED: Mapping[str, str] = MappingProxyType({})


def checks_of(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    expected_failures: Mapping[str, str] = NONE_EXPECTED,
) -> list[PluginCheck]:
    """All checks of one plugin, without running them.

    ``params``: parameters to check it with (None: its ``tiny`` ones).
    ``data_root``: the folder that holds the folders of datasets' files.
    ``device``: where diagnostics measure; the others are compared on CPU and CUDA, if there is one.
    ``expected_failures``: check name -> reason; one that does not exist adds a check that fails.
    """
    kind, name = kind_of(spec), _display_name(spec, params)
    checks = list(checks_from(kind, name, spec, declarations.CHECKS))
    values = dict(spec.tiny if params is None else params)
    try:
        parsed = spec.parse(values)
    except Exception:  # noqa: BLE001  # a plugin's validators raise anything; a check reports it
        # Without parameters no other check can run.
        if params is not None:
            parse: Callable[[], object] = partial(parse_params, spec, values, origin="params")
            checks.append(PluginCheck(kind, name, "given-parameters-are-accepted", parse))
    else:
        module = import_module(f"{__package__}.{kind}s")  # only some need the engine
        case = module.CASE(spec, parsed, data_root, device)
        checks += checks_from(kind, name, case, module.CHECKS)
    names = [check.name for check in checks]
    unknown = next((check for check in expected_failures if check not in names), None)
    if unknown is not None:
        verify = partial(_refuse_expected, unknown, names)
        checks.append(PluginCheck(kind, name, "expected-failures-are-checks", verify))
    return checks


def _display_name(spec: Spec, params: Mapping[str, Any] | None) -> str:
    """The name, with the requested member where the plugin is a family."""
    if isinstance(spec, BackboneSpec) and spec.member and params and spec.member in params:
        return f"{spec.name}/{params[spec.member]}"
    return spec.name


def _refuse_expected(unknown: str, names: Sequence[str]) -> None:
    raise Violation(f"a failure is expected of {unknown!r}, which is not a check of it",
                    suggestion(unknown, names))  # fmt: skip


def check_plugin(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    expected_failures: Mapping[str, str] = NONE_EXPECTED,
) -> list[CheckResult]:
    """The results of all checks of one plugin. Never raises: whatever is wrong is a result.

    ``expected_failures``: check name -> why it is known to fail; one that passes is a failure, and
    so is one that does not exist.
    """
    checks = checks_of(
        spec, params=params, data_root=data_root, device=device, expected_failures=expected_failures
    )
    with only_plugins_run():
        return [result_of(check, expected_failures) for check in checks]


def parametrize_with_checks(
    specs: Iterable[Spec],
    expected_failures: ExpectedFailures = NONE_EXPECTED,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A pytest decorator that runs the test with each ``check``::

        @parametrize_with_checks([MY_NET])
        def test_my_plugin_conforms(check):
            check()

    ``expected_failures``: check name -> reason, or plugin name -> such a mapping; strict: a check
    that is expected to fail and passes is a failure.
    """
    import pytest

    parameters = []
    for spec in specs:
        reasons = expected_of(spec, expected_failures)
        for check in checks_of(spec, data_root=data_root, device=device, expected_failures=reasons):
            reason = reasons.get(check.name, "")
            xfail = pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)
            marks = [xfail] if check.name in reasons else []
            parameters.append(pytest.param(check, marks=marks, id=str(check)))
    decorate: Callable[[Callable[..., None]], Callable[..., None]]
    decorate = pytest.mark.parametrize("check", parameters)
    return decorate


def expected_of(spec: Spec, expected: ExpectedFailures) -> Mapping[str, str]:
    """The expected failures of one plugin, by check."""
    by_plugin = {
        name: reasons for name, reasons in expected.items() if isinstance(reasons, Mapping)
    }
    if by_plugin:
        return by_plugin.get(spec.name, {})
    return {name: reason for name, reason in expected.items() if isinstance(reason, str)}
