"""The checks of a plugin, and their Python interfaces: results, and tests of pytest.

The third interface is the command ``transferbench plugin check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from transferbench.conformance import declarations
from transferbench.conformance.checks import (
    CheckFunction,
    CheckResult,
    PluginCheck,
    Violation,
    checks_from,
    kind_of,
    result_of,
)
from transferbench.errors import ConformanceError, suggestion
from transferbench.registry import parse_params
from transferbench.specs import (
    BackboneSpec,
    DatasetSpec,
    DiagnosticSpec,
    InitializationSpec,
    Params,
    PerturbationSpec,
    Spec,
)

__all__ = [
    "ExpectedFailures",
    "check_plugin",
    "checks_of",
    "expected_of",
    "parametrize_with_checks",
]

ExpectedFailures: TypeAlias = Mapping[str, str] | Mapping[str, Mapping[str, str]]
"""Check name -> why it is known to fail; or plugin name -> such a mapping."""


def checks_of(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
) -> list[PluginCheck]:
    """All checks of one plugin, without running them.

    ``params``: parameters to check it with (None: its ``tiny`` ones).
    ``data_root``: the folder that holds the folders of datasets' files.
    ``device``: where diagnostics measure; the others are compared on CPU and CUDA, if there is one.
    """
    kind, name = kind_of(spec), _display_name(spec, params)
    checks = list(checks_from(kind, name, spec, declarations.CHECKS))
    values = dict(spec.tiny if params is None else params)
    parsed = _parsed(spec, values)
    if parsed is not None:
        case, functions = _case(spec, parsed, data_root, device)
        return [*checks, *checks_from(kind, name, case, functions)]
    if params is not None:
        checks.append(PluginCheck(kind, name, "given-parameters-are-accepted",
                                  lambda: _refuse_params(spec, values)))  # fmt: skip
    return checks  # without parameters no other check can run; one of these fails


def _parsed(spec: Spec, values: Mapping[str, Any]) -> Params | None:
    try:
        return spec.parse(values)
    except Exception:  # noqa: BLE001  # a plugin's validators raise anything; a check reports it
        return None


def _refuse_params(spec: Spec, values: Mapping[str, Any]) -> None:
    parse_params(spec, values, origin="params")


def _display_name(spec: Spec, params: Mapping[str, Any] | None) -> str:
    """The name, with the requested member where the plugin is a family."""
    if isinstance(spec, BackboneSpec) and spec.member and params and spec.member in params:
        return f"{spec.name}/{params[spec.member]}"
    return spec.name


def _case(
    spec: Spec, params: Any, data_root: Path | None, device: str
) -> tuple[Any, Sequence[CheckFunction]]:
    """The plugin with its parameters as its kind's checks take it, and these checks."""
    # Imported by kind: only some need the engine.
    match spec:
        case DatasetSpec():
            from transferbench.conformance import datasets

            return datasets.DatasetCase(spec, params, data_root), datasets.CHECKS
        case PerturbationSpec():
            from transferbench.conformance import perturbations

            return perturbations.PerturbationCase(spec, params), perturbations.CHECKS
        case BackboneSpec():
            from transferbench.conformance import backbones

            return backbones.BackboneCase(spec, params), backbones.CHECKS
        case InitializationSpec():
            from transferbench.conformance import initializations

            return initializations.InitializationCase(spec, params), initializations.CHECKS
        case DiagnosticSpec():
            from transferbench.conformance import diagnostics

            return diagnostics.DiagnosticCase(spec, params, device), diagnostics.CHECKS
    raise TypeError(f"{type(spec).__name__} is no kind of plugin")


def check_plugin(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    expected_failures: Mapping[str, str] = MappingProxyType({}),
) -> list[CheckResult]:
    """The results of all checks of one plugin. Never raises: whatever is wrong is a result.

    ``expected_failures``: check name -> why it is known to fail; one that passes is a failure, and
    so is one that does not exist.
    """
    checks = _with_expected(
        spec, expected_failures, checks_of(spec, params=params, data_root=data_root, device=device)
    )
    return [result_of(check, expected_failures) for check in checks]


def _with_expected(
    spec: Spec, expected: Mapping[str, str], checks: list[PluginCheck]
) -> list[PluginCheck]:
    """The checks, and one that fails if a failure is expected of a check that does not exist."""
    names = [check.name for check in checks]
    unknown = [name for name in expected if name not in names]
    if not unknown:
        return checks

    def refuse() -> None:
        raise Violation(
            f"a failure is expected of {unknown[0]!r}, which is no check of it",
            suggestion(unknown[0], names),
        )

    return [*checks, PluginCheck(kind_of(spec), spec.name, "expected-failures-are-checks", refuse)]


def parametrize_with_checks(
    specs: Iterable[Spec],
    expected_failures: ExpectedFailures = MappingProxyType({}),
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

    parameters: list[Any] = []
    for spec in specs:
        reasons = expected_of(spec, expected_failures)
        checks = checks_of(spec, data_root=data_root, device=device)
        parameters += [
            _parameter(pytest, check, reasons.get(check.name))
            for check in _with_expected(spec, reasons, checks)
        ]
    decorate: Callable[[Callable[..., None]], Callable[..., None]]
    decorate = pytest.mark.parametrize("check", parameters)
    return decorate


def _parameter(pytest: Any, check: PluginCheck, reason: str | None) -> Any:
    marks = [] if reason is None else [
        pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)
    ]  # fmt: skip
    return pytest.param(check, marks=marks, id=str(check))


def expected_of(spec: Spec, expected: ExpectedFailures) -> Mapping[str, str]:
    """The expected failures of one plugin, by check."""
    by_plugin = {
        name: reasons for name, reasons in expected.items() if isinstance(reasons, Mapping)
    }
    if by_plugin:
        return by_plugin.get(spec.name, {})
    return {name: reason for name, reason in expected.items() if isinstance(reason, str)}
