"""Side effects of plugins on the process: global randomness, the network, what everybody shares."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from transferbench.registry.guard import changes_undone
from transferbench.registry.numerics import generators, seeded_generators

__all__ = ["isolated", "moved_since", "offline", "randomness"]


def randomness() -> dict[str, Any]:
    """The states of the global generators, by the call that draws from them."""
    return {generator.name: generator.value() for generator in generators()}


def moved_since(before: Mapping[str, Any]) -> list[str]:
    """The calls whose global generator has another state than in ``before``."""
    after = randomness()
    return [name for name in before if before[name] != after[name]]


@contextmanager
def offline() -> Iterator[list[str]]:
    """A block without a network; the list collects the addresses that it requests."""
    addresses: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        address = next((part for part in arguments if isinstance(part, (str, tuple))), "?")
        addresses.append(str(address))
        raise OSError(f"the network is off limits here, and {address} was requested")

    with (
        patch.multiple(socket, getaddrinfo=refuse, gethostbyname=refuse, create_connection=refuse),
        patch.multiple(socket.socket, connect=refuse, connect_ex=refuse),
    ):
        yield addresses


@contextmanager
def isolated(label: str) -> Iterator[list[str]]:
    """Put back what the block changes for everybody; the list holds it once the block has ended.

    What one plugin moves must not reach the next, nor the process that checks it. Inside, the
    global generators are seeded from ``label``: the same in every run, different in every block,
    so that a plugin that draws from them gets other numbers each time.
    """
    with seeded_generators(zlib.crc32(label.encode())), changes_undone(randomness=False) as changes:
        yield changes
