"""The draws of random numbers that a call makes, and from which states of generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["draws_recorded"]


@contextmanager
def draws_recorded() -> Iterator[dict[object, str]]:
    """The states of generators that the block draws from, with the calls that draw.

    Those of ``numpy.random.default_rng`` are looked at when they are made, since calls of compiled
    classes are seen by nobody.
    """
    drawn: dict[object, str] = {}
    make = np.random.default_rng

    def default_rng(seed: Any = None) -> np.random.Generator:
        generator = make(seed)
        drawn[str(generator.bit_generator.state)] = "numpy.random.default_rng"
        return generator

    with patch.object(np.random, "default_rng", default_rng), _Operations(drawn):
        yield drawn


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Records the operations of torch that draw."""

    def __init__(self, drawn: dict[object, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._drawn = drawn

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        named = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **named)
        generator = _generator_of(*args, *named.values())
        before = _state(generator)
        result = func(*args, **named)
        # Attention has the tag, and draws nothing without dropout.
        if _state(generator) != before:
            self._drawn[before] = f"torch's {func.overloadpacket.__name__}"
        return result


def _generator_of(*arguments: Any) -> torch.Generator:
    generators = (value for value in arguments if isinstance(value, torch.Generator))
    return next(generators, torch.default_generator)


def _state(generator: torch.Generator) -> bytes:
    return generator.get_state().numpy().tobytes()
