"""The global generators of random numbers, of which each of several trainings has its own state."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["GeneratorStates", "OwnGenerators", "renew_default_generator"]


TWISTER_BYTES = (624 + 1) * 4
"""Of the state of a Mersenne Twister (numpy/random/src/mt19937)."""


class _Restored:
    """How often states have been restored in this process."""

    times = 0


class GeneratorStates(NamedTuple):
    """The states of the global generators; ``cuda`` is that of the current card, if it is used."""

    python: tuple[Any, ...]
    numpy: Any
    torch: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def now(cls) -> GeneratorStates:
        """The states at this moment."""
        cuda = torch.cuda.get_rng_state() if _uses_card() else None
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)  # noqa: NPY002  # the global one

    def equals(self, other: GeneratorStates) -> bool:
        """Whether the same numbers would be drawn."""
        tensors = [(self.torch, other.torch)]
        if self.cuda is not None and other.cuda is not None:
            tensors.append((self.cuda, other.cuda))
        name, words, *rest = self.numpy
        other_name, other_words, *other_rest = other.numpy
        return (
            self.python == other.python
            and (name, rest) == (other_name, other_rest)
            and np.array_equal(words, other_words)
            and all(torch.equal(first, second) for first, second in tensors)
        )

    def restore(self) -> None:
        """Set the global generators to these states."""
        _Restored.times += 1
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002  # the global one
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


def renew_default_generator() -> None:
    """As ``OwnGenerators.renew``, of the card's own generator, which is part of each capture."""
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    default.graphsafe_set_state(_renewed(default))


def _renewed(generator: torch.Generator) -> torch.Generator:
    renewed = torch.Generator(generator.device)
    renewed.set_state(generator.get_state())
    return renewed


def _uses_card() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch leaves it untyped


class _NumpyState(NamedTuple):
    """The state of numpy's global generator; ``memory``: of its Mersenne Twister, if it is one.

    To read or set all of it takes a tenth of a millisecond, as long as a captured step; to copy its
    memory a hundredth of that. ``full`` may also hold a normal number for the next call, which the
    memory does not tell: then only ``full`` is used. ``restored``: how often ``GeneratorStates``
    had been restored.
    """

    full: Any
    memory: bytes | None
    restored: int

    @classmethod
    def now(cls, earlier: _NumpyState | None) -> _NumpyState:
        """The state at this moment, which is often an ``earlier`` one."""
        address = _twister_address()
        memory = None if address is None else ctypes.string_at(address, TWISTER_BYTES)
        if (
            earlier is not None
            and (earlier.memory, earlier.restored) == (memory, _Restored.times)
            and earlier.is_memory
        ):
            return earlier
        return cls(np.random.get_state(), memory, _Restored.times)  # noqa: NPY002  # the global one

    @property
    def is_memory(self) -> bool:
        """Whether the memory is all of the state."""
        return self.memory is not None and not self.full[3]

    def restore(self, present: _NumpyState) -> None:
        """Set the generator, which is in the state ``present``, to this one."""
        address = _twister_address()
        if address is not None and self.memory and self.is_memory and present.is_memory:
            ctypes.memmove(address, self.memory, TWISTER_BYTES)
        else:
            np.random.set_state(self.full)  # noqa: NPY002  # the global one


def _twister_address() -> int | None:
    """Where numpy's global generator has its 624 words and its position among them."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # numpy leaves it out
    if type(generator) is not np.random.MT19937:
        return None
    return int(generator.ctypes.state_address)


class _HostStates(NamedTuple):
    """The states of the global generators of the host."""

    python: tuple[Any, ...]
    numpy: _NumpyState
    torch: torch.Tensor

    @classmethod
    def now(cls, earlier: _HostStates | None) -> _HostStates:
        """The states at this moment."""
        numpy = _NumpyState.now(None if earlier is None else earlier.numpy)
        return cls(random.getstate(), numpy, torch.get_rng_state())

    def restore(self, present: _HostStates) -> None:
        """Set the generators, which are in the states ``present``, to these."""
        random.setstate(self.python)
        self.numpy.restore(present.numpy)
        torch.set_rng_state(self.torch)


class OwnGenerators:
    """The global generators as one training sees them, whatever others draw in between.

    On a card they are a generator of their own, ``cuda``, which takes the place of the card's: a
    graph then draws from it too.
    """

    def __init__(self, device: torch.device) -> None:
        self._states: _HostStates | None = None
        self._outside: _HostStates | None = None
        self.cuda: torch.Generator | None = None
        if device.type == "cuda":
            self.cuda = torch.Generator(device)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block the global generators are this training's."""
        with self.on_card():
            outside = self._outside = _HostStates.now(self._outside)
            if self._states is not None:
                self._states.restore(outside)
            try:
                yield
            finally:
                self._states = _HostStates.now(self._states)
                outside.restore(self._states)

    def renew(self) -> None:
        """Go on from the same state in another generator of the card.

        Torch (2.6 to 2.12) leaves a generator in a capture that failed, where it draws no more.
        """
        if self.cuda is not None:
            self.cuda = _renewed(self.cuda)

    @contextmanager
    def on_card(self) -> Iterator[None]:
        """As ``active``, of the card alone: allowed while a graph is captured."""
        if self.cuda is None:
            yield
            return
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        outside = default.graphsafe_get_state()
        default.graphsafe_set_state(self.cuda)
        try:
            yield
        finally:
            default.graphsafe_set_state(outside)
