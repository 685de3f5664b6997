"""The bounds of an interval as text."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["bracketed"]

FEWEST, MOST = 3, 6
"""Digits of a bound: the usual, and the most that tell it from the other."""


def bracketed(low: float, high: float, write: Callable[[float, int], str]) -> str:
    """``[low, high]`` with three digits, or as many as it takes that different bounds differ.

    Bounds that six digits do not tell apart have three. ``write``: a number with so many digits.
    """
    for digits in range(FEWEST, MOST + 1):
        texts = write(low, digits), write(high, digits)
        if texts[0] != texts[1]:
            return f"[{', '.join(texts)}]"
    return f"[{write(low, FEWEST)}, {write(high, FEWEST)}]"
