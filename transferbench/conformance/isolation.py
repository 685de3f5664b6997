"""Side effects of plugins on the process: global randomness, the network, torch's settings."""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias
from unittest.mock import patch

import numpy as np
import torch

__all__ = ["changed_settings", "isolated", "moved_since", "offline", "randomness", "settings"]

Accessors: TypeAlias = tuple[Callable[[], Any], Callable[[Any], object]]
"""How a state is read and set."""
SETTINGS: Mapping[str, Accessors] = {
    "torch.is_grad_enabled()": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_num_threads()": (torch.get_num_threads, torch.set_num_threads),
    "torch.are_deterministic_algorithms_enabled()": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms,
    ),
    "torch.get_float32_matmul_precision()": (
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
    ),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
}  # fmt: skip


def settings() -> dict[str, Any]:
    """The values of torch's settings."""
    return {name: read() for name, (read, _) in SETTINGS.items()}


def changed_settings(before: Mapping[str, Any]) -> list[str]:
    """The settings of torch that have other values than ``before``, with both values."""
    return [
        f"{name} went from {before[name]} to {value}"
        for name, value in settings().items() if value != before[name]
    ]  # fmt: skip


def randomness() -> dict[str, Any]:
    """The states of the global generators, by the call that draws from them."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # the global one is what is watched
    states: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy.random": (name, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        states["torch.cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    return states


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
def isolated(label: str) -> Iterator[None]:
    """Restore global randomness and torch's settings after the block.

    What one plugin moves must not reach the next, nor the process that checks it. Inside, the
    global generators are seeded from ``label``: the same in every run, different in every block,
    so that a plugin that draws from them gets other numbers each time.
    """
    generators: tuple[Accessors, ...] = (
        (torch.get_rng_state, torch.set_rng_state),
        (np.random.get_state, np.random.set_state),
        (random.getstate, random.setstate),
    )
    before = [(restore, read()) for read, restore in (*SETTINGS.values(), *generators)]
    seed = zlib.crc32(label.encode())
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one
    random.seed(seed)
    try:
        yield
    finally:
        for restore, value in before:
            restore(value)
