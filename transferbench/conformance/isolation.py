"""Side effects of plugins on the process: global randomness, the network, torch's settings.

``observe`` records them during a call, ``isolated`` undoes them after a block.
"""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

__all__ = ["NetworkAccessError", "Observation", "isolated", "moved_since", "observe", "randomness"]

T = TypeVar("T")
LOOKUPS = ("getaddrinfo", "gethostbyname", "create_connection")
SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
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
"""How each setting is read and set."""


class NetworkAccessError(OSError):
    """A plugin failed because it needs the network."""


class Observation(NamedTuple, Generic[T]):
    """The result of a call and its side effects.

    addresses: what it tried to reach on the network, whether or not it caught the error.
    moved: the calls whose global generator it advanced or seeded.
    settings: the settings of torch that it changed, with their values before and after.
    """

    result: T
    addresses: list[str]
    moved: list[str]
    settings: list[str]


def observe(call: Callable[[], T]) -> Observation[T]:
    """Call without a network and record the side effects.

    Raises: ``NetworkAccessError`` where the call fails for lack of a network.
    """
    states, settings = randomness(), _settings()
    with _offline() as addresses:
        try:
            result = call()
        except OSError as error:
            if addresses:
                raise NetworkAccessError(addresses[0]) from error
            raise
    changed = [
        f"{name} went from {before} to {after}"
        for (name, before), after in zip(settings.items(), _settings().values(), strict=True)
        if before != after
    ]
    return Observation(result, addresses, moved_since(states), changed)


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


def moved_since(before: dict[str, Any]) -> list[str]:
    """The calls whose global generator has another state than in ``before``."""
    after = randomness()
    return [name for name in before if before[name] != after[name]]


@contextmanager
def _offline() -> Iterator[list[str]]:
    """A block without a network; the list collects the addresses that it requests."""
    addresses: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        address = next((part for part in arguments if isinstance(part, (str, tuple))), "?")
        addresses.append(str(address))
        raise OSError(f"the network is off limits here, and {address} was requested")

    with ExitStack() as stack:
        for name in LOOKUPS:
            _replace(stack, socket, name, refuse)
        for name in ("connect", "connect_ex"):
            _replace(stack, socket.socket, name, refuse)
        yield addresses


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    # An inherited method is restored by deleting its replacement.
    stack.callback(setattr, owner, name, before) if own else stack.callback(delattr, owner, name)


def _settings() -> dict[str, Any]:
    return {name: read() for name, (read, _) in SETTINGS.items()}


@contextmanager
def isolated(label: str) -> Iterator[None]:
    """Restore global randomness and torch's settings after the block.

    What one plugin moves must not reach the next, nor the process that checks it. Inside, the
    global generators are seeded from ``label``: the same in every run, different in every block,
    so that a plugin that draws from them gets other numbers each time.
    """
    settings = _settings()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  # the global one
    seed = zlib.crc32(label.encode())
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one
    random.seed(seed)
    try:
        yield
    finally:
        for name, (_, restore) in SETTINGS.items():
            restore(settings[name])
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002  # the global one
        random.setstate(states[2])
