"""The checks that several kinds share: what a plugin must leave alone while it works.

A case calls its plugin twice with equal arguments, and the second call is observed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from transferbench.conformance.checks import LazyResult, Violation
from transferbench.conformance.isolation import NetworkAccessError, Observation

__all__ = [
    "Advice",
    "check_global_randomness_is_untouched",
    "check_no_network_is_used",
    "check_settings_of_torch_are_kept",
    "refuse_network",
]


class Advice(NamedTuple):
    """The advice of a kind for plugins that draw from global generators or use the network."""

    draw: str
    network: str


class ObservedCase(Protocol):
    """What the shared checks read: the second call of the plugin."""

    advice: Advice
    again: LazyResult[Observation[Any]]


def check_global_randomness_is_untouched(case: ObservedCase) -> None:
    """Global generators keep their state: all draws come from the seed or the context."""
    if moved := case.again().moved:
        raise Violation(
            f"the global generator of {' and '.join(moved)} was moved", case.advice.draw
        )


def check_no_network_is_used(case: ObservedCase) -> None:
    """Nothing is fetched: arguments and files hold all that the plugin needs."""
    refuse_network(case, "it")


def refuse_network(case: ObservedCase, action: str) -> None:
    """Raises: ``Violation`` where ``action``, the second call, tried to use the network."""
    try:
        addresses = case.again.or_raise().addresses
    except NetworkAccessError as error:
        addresses = [str(error)]
    if addresses:
        raise Violation(
            f"{action} tried to reach {addresses[0]} on the network", case.advice.network
        )


def check_settings_of_torch_are_kept(case: ObservedCase) -> None:
    """Default type, gradient mode, threads and determinism belong to the whole process."""
    if changed := case.again().settings:
        raise Violation("; ".join(changed), "set it in a with block that restores it")
