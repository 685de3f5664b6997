"""Why a backbone does not take images of one shape, and the nearest image size that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple, TypeAlias

from transferbench.errors import is_out_of_memory

__all__ = ["Attempt", "ImageRequest", "advice_for"]

SECONDS = 15.0
"""For the search of a size; a network is tried in 0.05 to 1 s on the meta device."""

LARGEST = 512
"""Pixels; sizes up to twice the requested one are tried where that is more."""


class ImageRequest(NamedTuple):
    """The images and classes that a network is built for."""

    num_classes: int
    in_chans: int
    image_size: int

    def __str__(self) -> str:
        return f"{self.num_classes} classes, {self.in_chans} channel(s), {self.image_size} px"


Attempt: TypeAlias = Callable[[ImageRequest, str], Exception | None]
"""Builds a network on a device and runs images through it: the error, None where it fits."""


def advice_for(attempt: Attempt, request: ImageRequest, error: Exception) -> str:
    """What to change where ``request`` fails with ``error`` on the CPU."""
    if is_out_of_memory(error):
        return "memory ran out: choose a smaller image size or a smaller backbone"
    device = _device(attempt, request, error)
    other = 1 if request.in_chans == 3 else 3
    if attempt(request._replace(in_chans=other), device) is None:
        return f"it takes images of {other} channel(s): set image.channels to {other}"

    def fits(size: int) -> bool:
        return attempt(request._replace(image_size=size), device) is None

    size, is_next = _nearest(fits, request.image_size, time.monotonic() + SECONDS)
    if size is None:
        return "choose another image size or other parameters, or repair the backbone"
    text = "the next larger image size that fits is" if is_next else "an image size that fits is"
    return f"{text} {size} px: set image.size to it, or choose another backbone"


def _device(attempt: Attempt, request: ImageRequest, error: Exception) -> str:
    """``meta``, without memory or arithmetic, where the network fails there as it does on the CPU.

    Its errors of shapes have other texts; those of tensors without values name the device.
    """
    failure = attempt(request, "meta")
    alike = type(failure) is type(error) and "meta" not in str(failure)
    return "meta" if alike else "cpu"


def _nearest(fits: Callable[[int], bool], size: int, deadline: float) -> tuple[int | None, bool]:
    """A size that fits, and whether it is the smallest above ``size`` that does.

    Above it in coarse steps, then by bisection below the smallest that fits, and at last one by
    one: what fits may depend on divisibility. Below it where none above fits.
    """
    tried = {size}

    def first(candidates: Iterable[int]) -> int | None:
        for candidate in candidates:
            if candidate not in tried and time.monotonic() < deadline:
                tried.add(candidate)
                if fits(candidate):
                    return candidate
        return None

    near, far = _multiples(8, size, size + 65), _multiples(32, size, max(2 * size, LARGEST) + 1)
    above = first(chain(near, far))
    if above is None:
        return first(range(size - size % 32, 0, -32)), False
    above = first(_multiples(8, size, above)) or above
    low = max(candidate for candidate in tried if candidate < above)
    while above - low > 1 and time.monotonic() < deadline:
        middle = (low + above) // 2
        low, above = (low, middle) if first([middle]) else (middle, above)
    above = first(range(size + 1, above)) or above
    return above, time.monotonic() < deadline


def _multiples(step: int, above: int, below: int) -> range:
    return range(above - above % step + step, below, step)
