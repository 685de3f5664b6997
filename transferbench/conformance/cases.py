"""A plugin under check with its parameters, the checks that several kinds share, and comparisons.

The case of each kind has ``again``: a second call of the plugin with equal arguments, observed. The
shared checks read what that call changed in the process.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from transferbench.conformance.checks import Violation, changes_of, defined_in, refuse_changes
from transferbench.conformance.isolation import moved_since, offline, randomness
from transferbench.networks.modules import StateDict
from transferbench.registry.guard import changes_undone
from transferbench.specs import Spec

__all__ = [
    "CHECKS",
    "Case",
    "Observation",
    "check_global_randomness_is_untouched",
    "check_no_network_is_used",
    "check_nothing_is_printed",
    "check_what_everybody_shares_is_kept",
    "differing",
    "is_number_from_0",
    "not_finite",
    "refuse_gap",
]

T = TypeVar("T")
SpecT = TypeVar("SpecT", bound=Spec)


class Observation(NamedTuple, Generic[T]):
    """The result of a call and its side effects.

    addresses: what it tried to reach on the network, whether or not it caught the error.
    moved: the calls whose global generator it advanced or seeded.
    changes: what it changed for everybody, with settings' values before and after.
    printed: what it wrote to the standard output.
    """

    result: T
    addresses: list[str]
    moved: list[str]
    changes: list[str]
    printed: str


@dataclass(eq=False)
class Case(Generic[SpecT]):
    """A plugin with its parameters, as the checks of its kind take it.

    ``data_root``: the folder that holds the folders of datasets' files, as in ``--data-root``.
    ``device``: where diagnostics measure.
    ``draw_advice``, ``network_advice``: for plugins that draw from global generators, or use the
    network in a ``repeated`` call.
    """

    spec: SpecT
    params: Any
    data_root: Path | None = None
    device: str = "cpu"
    draw_advice: ClassVar[str]
    network_advice: ClassVar[str]
    repeated = "it"

    def observed(self, call: Callable[[], T]) -> Observation[T]:
        """Call without a network. Raises: ``Violation`` where the call fails for lack of it."""
        states = randomness()
        with changes_undone(randomness=False) as changes:
            with offline() as addresses, redirect_stdout(io.StringIO()) as output:
                try:
                    result = call()
                except OSError as error:
                    if addresses:
                        raise self.network_violation(addresses) from error
                    raise
            moved = moved_since(states)
        return Observation(result, addresses, moved, changes, output.getvalue())

    def network_violation(self, addresses: Sequence[str]) -> Violation:
        """That a call tried to use the network."""
        observed = f"{self.repeated} tried to reach {addresses[0]} on the network"
        return Violation(observed, self.network_advice)


# --- shared checks ----------------------------------------------------------------------------


def check_global_randomness_is_untouched(case: Any) -> None:
    """Global generators keep their state: all draws come from the seed or the context."""
    if moved := case.again.moved:
        generators = " and ".join(moved)
        raise Violation(f"the global generator of {generators} was moved", case.draw_advice)


def check_no_network_is_used(case: Any) -> None:
    """Nothing is fetched: arguments and files hold all that the plugin needs."""
    if addresses := case.again.addresses:
        raise case.network_violation(addresses)


def check_what_everybody_shares_is_kept(case: Any) -> None:
    """Settings, functions of libraries, environment and the like belong to the whole process."""
    refuse_changes([*case.again.changes, *changes_of(case)])


def check_nothing_is_printed(case: Any) -> None:
    """The standard output belongs to the command, whose tables and JSON others read."""
    if printed := case.again.printed:
        first = shorten(printed.strip().partition("\n")[0], 60) or "blank lines"
        raise Violation(f"it printed {first!r}", "take the print out, or use logging")


CHECKS = tuple(defined_in(__name__))


# --- numbers and tensors ----------------------------------------------------------------------


def is_number_from_0(value: object) -> bool:
    """Whether it is a finite number of at least 0."""
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value < math.inf


def refuse_gap(a: Tensor, b: Tensor, observed: str, advice: str, *, within: float = 0) -> None:
    """Raises: ``Violation`` where two tensors of one shape differ by more than ``within``.

    ``observed`` continues with the largest difference.
    """
    if not torch.allclose(a.to(b), b, rtol=0, atol=within, equal_nan=True):
        raise Violation(f"{observed} by up to {float((a - b).abs().max()):.3g}", advice)


def differing(a: StateDict, b: StateDict) -> list[str]:
    """The names that are in one state alone, or whose tensors are not bitwise equal."""
    return [
        name for name in a.keys() | b.keys()
        if name not in a or name not in b or not a[name].cpu().equal(b[name].cpu())
    ]  # fmt: skip


def not_finite(state: StateDict) -> list[str]:
    """The names of floating tensors with values that are infinite or NaN."""
    return [
        name for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]  # fmt: skip
