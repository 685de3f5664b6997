"""What one worker keeps in memory between diagnoses, so that k networks take k forward passes.

Pairs of k networks are k squared jobs, and every job asks for the features of both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

__all__ = ["Memory"]

T = TypeVar("T")


class Memory:
    """Values by key, the least recently asked for forgotten first (``specs.Memoize``).

    ``size_bytes``: of the tensors and arrays in all values together.
    """

    def __init__(self, size_bytes: int) -> None:
        self._room = size_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of ``key``, from ``compute`` where it is not in memory."""
        if key in self._values:
            self._values.move_to_end(key)
            found: T = self._values[key][0]
            return found
        value = compute()
        size = _size_of(value)
        while self._values and self._taken() + size > self._room:
            self._values.popitem(last=False)
        if size <= self._room:
            self._values[key] = value, size
        return value

    def _taken(self) -> int:
        return sum(size for _, size in self._values.values())


def _size_of(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_size_of(one) for one in value.values())
    if isinstance(value, (tuple, list)):
        return sum(_size_of(one) for one in value)
    return int(getattr(value, "nbytes", 0))
