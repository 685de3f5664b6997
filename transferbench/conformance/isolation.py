"""What a plugin must leave alone while it works: global randomness, the network, torch's settings.

Each is watched by a block, and what was touched is told in words.
"""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from transferbench.conformance.checks import Broken

__all__ = [
    "isolated",
    "moved_since",
    "offline",
    "randomness",
    "refuse_moved",
    "settings_kept",
    "untouched_randomness",
]

LOOKUPS = ("getaddrinfo", "gethostbyname", "create_connection")


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
    """The calls whose global generator is no longer where it was."""
    after = randomness()
    return [name for name in before if before[name] != after[name]]


def refuse_moved(moved: list[str], instead: str) -> None:
    """Raises: ``Broken`` where a global generator was moved; ``instead``: what to draw from."""
    if moved:
        raise Broken(f"the global generator of {' and '.join(moved)} was moved", instead)


@contextmanager
def untouched_randomness(instead: str) -> Iterator[None]:
    """A block that may not move a global generator."""
    before = randomness()
    yield
    refuse_moved(moved_since(before), instead)


@contextmanager
def offline() -> Iterator[list[str]]:
    """A block without a network; the list tells what was asked for, caught or not."""
    asked: list[str] = []

    def refuse(*given: Any, **_: Any) -> Any:
        address = next((one for one in given if isinstance(one, (str, tuple))), "?")
        asked.append(str(address))
        raise OSError(f"the network is off limits here, and {address} was asked for")

    with ExitStack() as stack:
        for name in LOOKUPS:
            _replaced(stack, socket, name, refuse)
        for name in ("connect", "connect_ex"):
            _replaced(stack, socket.socket, name, refuse)
        yield asked


def _replaced(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    # A method that a class inherits is given back by taking ours away.
    stack.callback(setattr, owner, name, before) if own else stack.callback(delattr, owner, name)


def _settings() -> dict[str, Any]:
    return {
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.are_deterministic_algorithms_enabled()": (
            torch.are_deterministic_algorithms_enabled()
        ),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


def _give_back(before: dict[str, Any]) -> None:
    torch.set_grad_enabled(before["torch.is_grad_enabled()"])
    torch.set_default_dtype(before["torch.get_default_dtype()"])
    torch.set_num_threads(before["torch.get_num_threads()"])
    torch.use_deterministic_algorithms(before["torch.are_deterministic_algorithms_enabled()"])
    torch.set_float32_matmul_precision(before["torch.get_float32_matmul_precision()"])
    torch.backends.cudnn.benchmark = before["torch.backends.cudnn.benchmark"]


@contextmanager
def isolated(label: str) -> Iterator[None]:
    """A block after which global randomness and torch's settings are as they were.

    What one plugin moves must not reach the next, nor the process that checks it. Inside, the
    global generators stand where ``label`` puts them: the same in every run, and elsewhere in
    every block, so that a plugin that draws from them in secret draws something else each time.
    """
    settings = _settings()
    drawn = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  # the global one
    seed = zlib.crc32(label.encode())
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one
    random.seed(seed)
    try:
        yield
    finally:
        _give_back(settings)
        torch.set_rng_state(drawn[0])
        np.random.set_state(drawn[1])  # noqa: NPY002  # the global one
        random.setstate(drawn[2])


@contextmanager
def settings_kept() -> Iterator[None]:
    """A block that may not change how torch computes elsewhere in the process."""
    before = _settings()
    yield
    after = _settings()
    changed = [f"{name} went from {before[name]} to {after[name]}" for name in before
               if before[name] != after[name]]  # fmt: skip
    if changed:
        raise Broken("; ".join(changed), "set it in a with block that gives it back")
