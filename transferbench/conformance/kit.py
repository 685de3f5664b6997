"""One generator of checks, and its faces in Python: results, and tests of pytest.

The third face is the command ``transferbench plugin check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from transferbench.conformance import declarations
from transferbench.conformance.checks import (
    Broken,
    Check,
    CheckResult,
    kind_of,
    named,
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

__all__ = ["Expected", "check_plugin", "checks_of", "expected_of", "parametrize_with_checks"]

Expected: TypeAlias = Mapping[str, str] | Mapping[str, Mapping[str, str]]
"""Check name -> why it is known to fail; or plugin name -> such a mapping."""


def checks_of(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
) -> list[Check]:
    """Every check of one plugin; none is run.

    ``params``: parameters to check it with (None: its ``tiny`` ones).
    ``data_root``: the folder that holds the folders of datasets' files.
    ``device``: where diagnostics measure; the others are compared on CPU and CUDA, if there is one.
    """
    name = _shown(spec, params)
    checks = list(named(kind_of(spec), name, spec, declarations.CHECKS))
    given = dict(spec.tiny if params is None else params)
    parsed = _parsed(spec, given)
    if parsed is not None:
        return [*checks, *_of_kind(spec, name, parsed, data_root, device)]
    if params is not None:
        checks.append(_failing(spec, name, "given-parameters-are-accepted",
                               lambda: _refuse_params(spec, given)))  # fmt: skip
    return checks  # one of them tells it; nothing else can be looked at


def _parsed(spec: Spec, given: Mapping[str, Any]) -> Params | None:
    try:
        return spec.parse(given)
    except Exception:  # noqa: BLE001  # a plugin's validators raise anything; told by a check
        return None


def _failing(spec: Spec, name: str, check: str, look: Callable[[], None]) -> Check:
    return Check(kind_of(spec), name, check, look)


def _refuse_params(spec: Spec, given: Mapping[str, Any]) -> None:
    parse_params(spec, given, where="params")


def _shown(spec: Spec, params: Mapping[str, Any] | None) -> str:
    """The name, with the member asked for where the plugin is a family."""
    if isinstance(spec, BackboneSpec) and spec.member and params and spec.member in params:
        return f"{spec.name}/{params[spec.member]}"
    return spec.name


def _of_kind(
    spec: Spec, name: str, params: Any, data_root: Path | None, device: str
) -> Iterator[Check]:
    # Each kind's module is imported when it is asked for: only some need the engine.
    case: Any
    if isinstance(spec, DatasetSpec):
        from transferbench.conformance import datasets

        case = datasets.DatasetCase(spec, params, data_root)
        return named("dataset", name, case, datasets.CHECKS)
    if isinstance(spec, PerturbationSpec):
        from transferbench.conformance import perturbations

        case = perturbations.PerturbationCase(spec, params)
        return named("perturbation", name, case, perturbations.CHECKS)
    if isinstance(spec, BackboneSpec):
        from transferbench.conformance import backbones

        case = backbones.BackboneCase(spec, params)
        return named("backbone", name, case, backbones.CHECKS)
    if isinstance(spec, InitializationSpec):
        from transferbench.conformance import initializations

        case = initializations.InitializationCase(spec, params)
        return named("initialization", name, case, initializations.CHECKS)
    if isinstance(spec, DiagnosticSpec):
        from transferbench.conformance import diagnostics

        case = diagnostics.DiagnosticCase(spec, params, device)
        return named("diagnostic", name, case, diagnostics.CHECKS)
    raise TypeError(f"{type(spec).__name__} is no kind of plugin")


def check_plugin(
    spec: Spec,
    *,
    params: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    expected_failures: Mapping[str, str] = MappingProxyType({}),
) -> list[CheckResult]:
    """What every check of one plugin came to; whatever is wrong is a result, and raises nothing.

    ``expected_failures``: check name -> why it is known to fail; one that passes is told as well,
    and so is one that does not exist.
    """
    checks = _with_expected(
        spec, expected_failures, checks_of(spec, params=params, data_root=data_root, device=device)
    )
    return [result_of(check, expected_failures) for check in checks]


def _with_expected(spec: Spec, expected: Mapping[str, str], checks: list[Check]) -> list[Check]:
    """The checks, and one that fails where a failure is expected of a check that there is not."""
    names = [check.name for check in checks]
    unknown = [name for name in expected if name not in names]
    if not unknown:
        return checks

    def refuse() -> None:
        raise Broken(
            f"a failure is expected of {unknown[0]!r}, which is no check of it",
            suggestion(unknown[0], names),
        )

    return [*checks, _failing(spec, spec.name, "expected-failures-are-checks", refuse)]


def parametrize_with_checks(
    specs: Iterable[Spec],
    expected_failures: Expected = MappingProxyType({}),
    *,
    data_root: Path | None = None,
    device: str = "cpu",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A pytest decorator that gives the test one ``check`` after another::

        @parametrize_with_checks([MY_NET])
        def test_my_plugin_conforms(check):
            check()

    ``expected_failures``: check name -> reason, or plugin name -> such a mapping; strict: a check
    that is expected to fail and passes is a failure.
    """
    import pytest

    found: list[Any] = []
    for spec in specs:
        reasons = expected_of(spec, expected_failures)
        checks = checks_of(spec, data_root=data_root, device=device)
        found += [
            _parameter(pytest, check, reasons.get(check.name))
            for check in _with_expected(spec, reasons, checks)
        ]
    decorate: Callable[[Callable[..., None]], Callable[..., None]]
    decorate = pytest.mark.parametrize("check", found)
    return decorate


def _parameter(pytest: Any, check: Check, reason: str | None) -> Any:
    marks = [] if reason is None else [
        pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)
    ]  # fmt: skip
    return pytest.param(check, marks=marks, id=str(check))


def expected_of(spec: Spec, given: Expected) -> Mapping[str, str]:
    """The expected failures of one plugin, by check."""
    nested = {name: one for name, one in given.items() if isinstance(one, Mapping)}
    if nested:
        return nested.get(spec.name, {})
    return {name: one for name, one in given.items() if isinstance(one, str)}
