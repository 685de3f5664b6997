"""What a check is, how it is run, and what its result says.

A check is a function ``check_<property stated as fact>`` of a case: a plugin with its parameters.
It returns where the property holds and raises ``Violation`` where it does not; anything else that
the plugin raises inside it counts as a violation too. ``SkipTest`` means that the property cannot
be checked here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from unittest import SkipTest

from transferbench.errors import (
    ConformanceError,
    TransferbenchError,
    is_out_of_memory,
    listing,
)
from transferbench.registry.discovery import SPECS, Kind, cause
from transferbench.specs import Spec

__all__ = [
    "CheckFunction",
    "CheckOutcome",
    "CheckResult",
    "LazyResult",
    "PluginCheck",
    "Violation",
    "checks_from",
    "defined_in",
    "kind_of",
    "listed",
    "refuse_any",
    "result_of",
]

T = TypeVar("T")
CheckFunction: TypeAlias = Callable[[Any], None]
CheckOutcome = Literal["passed", "failed", "skipped", "expected-failure", "unexpected-pass"]
REPAIR = "repair the plugin there"


class Violation(Exception):  # noqa: N818  # always converted to a ConformanceError
    """A property does not hold: what was observed instead, and advice."""

    def __init__(self, observed: str, advice: str) -> None:
        super().__init__(f"{observed}; {advice}")


def listed(names: Collection[str]) -> str:
    """The first names in alphabetical order, and how many more there are."""
    return listing(sorted(names), 4)


def refuse_any(names: Collection[str], observed: str, advice: str) -> None:
    """Raises: ``Violation`` if there are ``names``; ``observed`` continues a list of them."""
    if names:
        raise Violation(f"{listed(names)} {observed}", advice)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check of one plugin; ``message`` is empty where it simply passed.

    ``kind`` is ``plugin`` where something could not be loaded, so that its kind is unknown.
    """

    kind: Kind | Literal["plugin"]
    plugin: str
    check: str
    status: CheckOutcome
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return self.status in {"passed", "skipped", "expected-failure"}


@dataclass(frozen=True)
class PluginCheck:
    """One property of one plugin; calling it checks whether the property holds.

    ``plugin``: its name, with the member where it is one of a family.
    """

    kind: Kind
    plugin: str
    name: str
    verify: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.kind}-{self.plugin}-{self.name}"

    def __call__(self) -> None:
        """Raises: ``ConformanceError`` for a violation, ``SkipTest`` where it cannot be checked."""
        try:
            self.verify()
        except SkipTest:
            raise
        except Violation as violation:
            raise ConformanceError(self._message(str(violation))) from violation
        except (Exception, SystemExit) as error:
            raise ConformanceError(self._message(_described(error))) from error

    def _message(self, observed: str) -> str:
        return f"{self.kind} {self.plugin!r}: {self.name}: {observed}"


def _described(error: BaseException) -> str:
    if isinstance(error, TransferbenchError):
        return str(error)
    if is_out_of_memory(error):
        return f"memory ran out ({error}); give the plugin smaller tiny parameters"
    return f"it raised {cause(error)}; {REPAIR}"


def result_of(check: PluginCheck, expected_failures: Mapping[str, str]) -> CheckResult:
    """Run one check; ``expected_failures``: check name -> why it is known to fail. Never raises."""
    reason = expected_failures.get(check.name)

    def result(status: CheckOutcome, message: str = "") -> CheckResult:
        return CheckResult(check.kind, check.plugin, check.name, status, message)

    try:
        check()
    except SkipTest as skipped:
        return result("skipped", str(skipped))
    except ConformanceError as error:
        if reason is None:
            return result("failed", str(error))
        return result("expected-failure", f"{reason} ({error})")
    if reason is None:
        return result("passed")
    return result(
        "unexpected-pass",
        f"{check.kind} {check.plugin!r}: {check.name}: it holds, but was expected to fail "
        f"({reason}); take it off the expected failures",
    )


class LazyResult(Generic[T]):
    """The result of a plugin's function, computed on first access and shared by checks.

    A builder that fails would fail every check alike: the check ``reported_by`` reports the error,
    the others are skipped.
    """

    def __init__(self, compute: Callable[[], T], reported_by: str) -> None:
        self._compute = compute
        self._reported_by = reported_by
        self._results: list[T] = []
        self._error: BaseException | None = None

    def or_raise(self) -> T:
        """The result. Raises: what the function raised."""
        if self._error is not None:
            raise self._error
        if not self._results:
            from transferbench.conformance.isolation import isolated

            try:
                # A setting that it changes must change again where the settings are checked.
                with isolated(f"once, {self._reported_by}"):
                    self._results.append(self._compute())
            except (Exception, SystemExit) as error:
                self._error = error
                raise
        return self._results[0]

    def __call__(self) -> T:
        """The result. Raises: ``SkipTest`` where there is none."""
        try:
            return self.or_raise()
        except SkipTest:
            raise
        except (Exception, SystemExit) as error:
            raise SkipTest(f"there is nothing to look at, see {self._reported_by}") from error


def defined_in(module: str) -> Iterator[CheckFunction]:
    """The functions ``check_<property>`` of a module, in the order of its source."""
    for name, function in vars(sys.modules[module]).items():
        if name.startswith("check_") and function.__module__ == module:
            yield function


def checks_from(
    kind: Kind, plugin: str, case: Any, functions: Sequence[CheckFunction]
) -> Iterator[PluginCheck]:
    """A check of ``case`` for each function."""
    for function in functions:
        name = function.__name__.removeprefix("check_").replace("_", "-")
        yield PluginCheck(kind, plugin, name, _in_isolation(function, case))


def _in_isolation(function: CheckFunction, case: Any) -> Callable[[], None]:
    def verify() -> None:
        from transferbench.conformance.isolation import isolated  # imports torch

        with isolated(function.__name__):
            function(case)

    return verify


def kind_of(spec: Spec) -> Kind:
    """The kind of plugin that a spec declares."""
    return next(kind for kind, spec_type in SPECS.items() if isinstance(spec, spec_type))
