"""What a check is, how it is run, and what its result says.

A check is a function ``check_<property stated as fact>`` of one case, a plugin with its parameters.
It returns where the property holds and raises ``Broken`` where it does not; whatever else the
plugin raises inside it counts as broken too. What cannot be looked at raises ``SkipTest``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from unittest import SkipTest

from transferbench.errors import ConformanceError, TransferbenchError, is_out_of_memory
from transferbench.registry.discovery import SPECS, Kind, cause
from transferbench.specs import Spec

__all__ = ["Broken", "Check", "CheckResult", "Once", "Status", "kind_of", "named", "result_of"]

T = TypeVar("T")
Status = Literal["passed", "failed", "skipped", "expected-failure", "unexpected-pass"]
REPAIR = "repair the plugin there"


class Broken(Exception):  # noqa: N818  # a finding, told as a ConformanceError: nobody sees it raised
    """What was found instead of the property, and the way on."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")


@dataclass(frozen=True)
class CheckResult:
    """What one check of one plugin came to; ``message`` is empty where it passed as it should.

    ``kind`` is ``plugin`` where something could not be loaded, so that its kind is not known.
    """

    kind: Kind | Literal["plugin"]
    plugin: str
    check: str
    status: Status
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done."""
        return self.status in {"passed", "skipped", "expected-failure"}


@dataclass(frozen=True)
class Check:
    """One property of one plugin; calling it looks whether it holds.

    ``plugin``: its name, with the member where it is one of a family.
    """

    kind: Kind
    plugin: str
    name: str
    look: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.kind}-{self.plugin}-{self.name}"

    def __call__(self) -> None:
        """Raises: ``ConformanceError`` where it does not hold, ``SkipTest`` where none can tell."""
        try:
            self.look()
        except SkipTest:
            raise
        except Broken as broken:
            raise ConformanceError(self._message(str(broken))) from broken
        except (Exception, SystemExit) as error:
            raise ConformanceError(self._message(_told(error))) from error

    def _message(self, found: str) -> str:
        return f"{self.kind} {self.plugin!r}: {self.name}: {found}"


def _told(error: BaseException) -> str:
    if isinstance(error, TransferbenchError):
        return str(error)
    if is_out_of_memory(error):
        return f"memory ran out ({error}); give the plugin smaller tiny parameters"
    return f"it raised {cause(error)}; {REPAIR}"


def result_of(check: Check, expected_failures: Mapping[str, str]) -> CheckResult:
    """Run one check; ``expected_failures``: check name -> why it is known to fail. Never raises."""
    reason = expected_failures.get(check.name)

    def result(status: Status, message: str = "") -> CheckResult:
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


class Once(Generic[T]):
    """What a plugin's builder gives, made when first asked for; ``told_by`` reports its failure.

    A builder that fails would fail every check alike: one tells it, the others are skipped.
    """

    def __init__(self, make: Callable[[], T], told_by: str) -> None:
        self._make = make
        self._told_by = told_by
        self._made: list[T] = []
        self._error: BaseException | None = None

    def told(self) -> T:
        """The thing itself. Raises: what the builder raised."""
        if self._error is not None:
            raise self._error
        if not self._made:
            from transferbench.conformance.isolation import isolated

            try:
                # A setting that it changes must be seen to change again, by the check of settings.
                with isolated(f"once, {self._told_by}"):
                    self._made.append(self._make())
            except (Exception, SystemExit) as error:
                self._error = error
                raise
        return self._made[0]

    def __call__(self) -> T:
        """The thing itself. Raises: ``SkipTest`` where there is none."""
        try:
            return self.told()
        except SkipTest:
            raise
        except (Exception, SystemExit) as error:
            raise SkipTest(f"there is nothing to look at, see {self._told_by}") from error


def named(
    kind: Kind, plugin: str, case: Any, functions: Sequence[Callable[[Any], None]]
) -> Iterator[Check]:
    """A check for each function ``check_<property>``, of one case."""
    for function in functions:
        name = function.__name__.removeprefix("check_").replace("_", "-")
        yield Check(kind, plugin, name, _bound(function, case))


def _bound(function: Callable[[Any], None], case: Any) -> Callable[[], None]:
    def look() -> None:
        from transferbench.conformance.isolation import isolated

        with isolated(function.__name__):
            function(case)

    return look


def kind_of(spec: Spec) -> Kind:
    """The kind of plugin that a spec declares."""
    return next(kind for kind, spec_type in SPECS.items() if isinstance(spec, spec_type))
