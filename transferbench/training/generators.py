"""The global generators of random numbers, of which each of several trainings has its own state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["GeneratorStates", "OwnGenerators", "renew_default_generator"]


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


class OwnGenerators:
    """The global generators as one training sees them, whatever others draw in between.

    On a card they are a generator of their own, ``cuda``, which takes the place of the card's: a
    graph then draws from it too.
    """

    def __init__(self, device: torch.device) -> None:
        self._states: GeneratorStates | None = None
        self.cuda: torch.Generator | None = None
        if device.type == "cuda":
            self.cuda = torch.Generator(device)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block the global generators are this training's."""
        with self.on_card():
            outside = GeneratorStates.now()._replace(cuda=None)
            if self._states is not None:
                self._states.restore()
            try:
                yield
            finally:
                self._states = GeneratorStates.now()._replace(cuda=None)
                outside.restore()

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
