"""What a check is, how it is run, and its result.

A check is a function ``check_<property stated as fact>`` of a case: a plugin with its parameters.
It returns where the property holds and raises ``Violation`` where it does not; anything else that
the plugin raises inside it counts as a violation too. ``SkipTest`` means that the property cannot
be checked here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar
from unittest import SkipTest

from transferbench.conformance.isolation import isolated
from transferbench.errors import ConformanceError, TransferbenchError, is_out_of_memory, listing
from transferbench.registry.blame import cause, show_traceback
from transferbench.registry.discovery import Kind

__all__ = [
    "CheckFunction",
    "CheckOutcome",
    "CheckResult",
    "PluginCheck",
    "Shared",
    "Violation",
    "checks_from",
    "defined_in",
    "listed",
    "refuse_any",
    "result_of",
    "shared",
]

T = TypeVar("T")
CheckFunction: TypeAlias = Callable[[Any], None]
CheckOutcome = Literal["passed", "failed", "skipped", "expected-failure", "unexpected-pass"]


class Violation(ConformanceError):  # noqa: N818  # a check raises what it refutes
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


# --- results that checks share ----------------------------------------------------------------


class Unavailable(SkipTest):
    """A shared result could not be computed: the check ``reported_by`` reports the error."""

    def __init__(self, error: BaseException, reported_by: str) -> None:
        super().__init__(f"there is nothing to look at, see {reported_by}")
        self.error = error
        self.reported_by = reported_by


class Shared(Generic[T]):
    """An attribute of a case, computed on first access; see ``shared``."""

    def __init__(self, compute: Callable[[Any], T], reported_by: str) -> None:
        self._compute = compute
        self._reported_by = reported_by

    def __get__(self, case: Any, _: type | None = None) -> T:
        """The result. Raises: ``SkipTest`` where there is none."""
        results: dict[Shared[Any], tuple[T] | SkipTest]
        results = vars(case).setdefault("shared_results", {})
        if self not in results:
            results[self] = self._result(case)
        if isinstance(result := results[self], SkipTest):
            raise result
        return result[0]

    def _result(self, case: Any) -> tuple[T] | SkipTest:
        try:
            with isolated(f"once, {self._reported_by}") as changes:
                result = self._compute(case)
        except SkipTest as skipped:
            return skipped
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a plugin's, reported by a check
            return Unavailable(error, self._reported_by)
        changes_of(case).extend(changes)
        return (result,)


def changes_of(case: Any) -> list[str]:
    """What the computation of its shared results changed for everybody, so far."""
    changes: list[str] = vars(case).setdefault("changes_of_shared_results", [])
    return changes


def refuse_changes(changes: Sequence[str]) -> None:
    """Raises: ``Violation`` if there are ``changes``."""
    if changes:
        lines = "; ".join(dict.fromkeys(changes))
        raise Violation(lines, "set it in a with block that restores it, or leave it")


def shared(reported_by: str) -> Callable[[Callable[[Any], T]], Shared[T]]:
    """Compute an attribute of a case once, for several checks.

    A builder that fails would fail every check alike: the check ``reported_by`` reports the error,
    the others are skipped.
    """

    def decorate(compute: Callable[[Any], T]) -> Shared[T]:
        return Shared(compute, reported_by)

    return decorate


# --- checks and results -----------------------------------------------------------------------


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
    verify: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.kind}-{self.plugin}-{self.name}"

    def __call__(self) -> None:
        """Raises: ``ConformanceError`` for a violation, ``SkipTest`` where it cannot be checked."""
        try:
            with isolated(self.name) as changes:
                self.verify()
            refuse_changes(changes)
        except Unavailable as unavailable:
            if unavailable.reported_by != self.name:
                raise
            self._fail(unavailable.error)
        except SkipTest:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a plugin raises anything
            self._fail(error)

    def _fail(self, error: BaseException) -> NoReturn:
        message = f"{self.kind} {self.plugin!r}: {self.name}: {_described(error)}"
        raise ConformanceError(message) from error


def _described(error: BaseException) -> str:
    if isinstance(error, TransferbenchError):
        return str(error)
    if is_out_of_memory(error):
        return f"memory ran out ({error}); give the plugin smaller tiny parameters"
    show_traceback(error)
    return f"it raised {cause(error)}; repair the plugin there"


def result_of(check: PluginCheck, expected_failures: Mapping[str, str]) -> CheckResult:
    """Run one check; ``expected_failures``: check name -> why it is known to fail. Never raises."""
    reason = expected_failures.get(check.name)
    status: CheckOutcome = "passed"
    message = ""
    try:
        check()
    except SkipTest as skipped:
        status, message = "skipped", str(skipped)
    except ConformanceError as error:
        status, message = "failed", str(error)
        if reason is not None:
            status, message = "expected-failure", f"{reason} ({error})"
    else:
        if reason is not None:
            status = "unexpected-pass"
            message = (
                f"{check.kind} {check.plugin!r}: {check.name}: it holds, but was expected to fail "
                f"({reason}); take it off the expected failures"
            )
    return CheckResult(check.kind, check.plugin, check.name, status, message)


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
        yield PluginCheck(kind, plugin, name, partial(function, case))
