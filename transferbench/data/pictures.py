"""The decoder of pictures: a square image of a file, of its bytes, or of decoded pixels."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from transferbench.data.folders import printable
from transferbench.data.picture_formats import picture_formats
from transferbench.data.upright import on_white, upright_on_white

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["DecodedPicture", "Fit", "PictureError", "centre_square", "decode"]

LONGEST, ORDINARY, RESIZED_PIXELS = 64, 4, 2**22
"""Pictures longer than 64 short sides are cropped before they are resized, and those longer than 4
that would have more than 2**22 pixels then.

Resizing first takes memory and time as the whole picture would have at that size. The result is
the same but for rounding, so that pictures of ordinary shape go the way that they always went.
"""

PIXELS_AT_ONCE = 2**26
"""How many pixels are decoded at once, about 0.8 GB; a picture that has more is decoded alone."""

MAX_BYTES = 2**31
"""More than a picture has whose pixels Pillow accepts."""

PLANES = (1, 3, 4)
"""Values a pixel may have: grey, colour, or colour and opacity."""


PictureSource: TypeAlias = Path | bytes | np.ndarray
"""The path of a file, its content, or pixels, uint8 (H, W) or (H, W, C) with C of 1, 3 or 4."""


class _Pixels:
    """Pixels that threads use; who asks for more than are left waits."""

    def __init__(self, count: int) -> None:
        self._count = self._left = count
        self._changed = threading.Condition()

    @contextmanager
    def used(self, count: int) -> Iterator[None]:
        count = min(count, self._count)
        with self._changed:
            self._changed.wait_for(lambda: count <= self._left)
            self._left -= count
        try:
            yield
        finally:
            with self._changed:
                self._left += count
                self._changed.notify_all()


_pixels = _Pixels(PIXELS_AT_ONCE)


Fit: TypeAlias = Literal["crop", "pad", "whole"]
"""How a picture becomes a square: its centre, all of it on black, or all of it, distorted."""


class DecodedPicture(NamedTuple):
    """A square image, and the width over the height of what it shows.

    Shapes: pixels uint8 (S, S, 3).
    """

    pixels: np.ndarray
    aspect: float


class PictureError(ValueError):
    """A picture that cannot be read, and why."""


def decode(source: PictureSource, image_size: int, fit: Fit = "crop") -> DecodedPicture:
    """A square of side ``image_size`` of a picture as a viewer shows it: upright, and on white.

    Raises: ``PictureError`` that says why it cannot be read. Several threads may decode at once:
    Pillow works outside the interpreter's lock.
    """
    from PIL import UnidentifiedImageError  # slow to import

    try:
        if isinstance(source, np.ndarray):
            return _square(_drawn(source), image_size, fit)
        return _decode_file(source, image_size, fit)
    except UnidentifiedImageError as error:
        raise PictureError(
            "its content is broken, or of no picture format that Pillow opens"
        ) from error
    except Exception as error:  # what a broken file raises depends on its format
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(printable(reason)) from error


def _decode_file(source: Path | bytes, image_size: int, fit: Fit) -> DecodedPicture:
    from PIL import Image  # slow to import

    size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not size_bytes:
        raise PictureError("it is empty")
    if size_bytes > MAX_BYTES:
        raise PictureError(f"it has {size_bytes / 1e9:.1f} GB, more than a picture may have")
    resized = _longest(image_size) * image_size**2
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with (
        Image.open(stream, formats=picture_formats()) as picture,
        _pixels.used(math.prod(picture.size) + resized),
    ):
        return _square(upright_on_white(picture), image_size, fit)


def _drawn(pixels: np.ndarray) -> Picture:
    """Decoded pixels as a picture. Raises: ``PictureError`` for arrays of another form."""
    from PIL import Image  # slow to import

    planes = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or planes not in PLANES:
        raise PictureError(
            f"it is an array of {pixels.dtype} {pixels.shape}: give uint8 (H, W), (H, W, 1), "
            "(H, W, 3) or (H, W, 4)"
        )
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)
    return on_white(picture)


def _square(picture: Picture, image_size: int, fit: Fit) -> DecodedPicture:
    if fit == "crop":
        return DecodedPicture(np.asarray(centre_square(picture, image_size)), 1.0)
    from PIL.Image import Resampling  # slow to import

    if not min(picture.size):
        raise ValueError("it has no pixels")
    sides = (image_size, image_size)
    if fit == "whole":
        resized = picture.resize(sides, Resampling.BILINEAR)
        return DecodedPicture(np.asarray(resized), picture.width / picture.height)
    longest = max(picture.size)
    width, height = (max(1, round(side * image_size / longest)) for side in picture.size)
    left, top = (image_size - width) // 2, (image_size - height) // 2
    padded = np.zeros((image_size, image_size, 3), np.uint8)
    resized = picture.resize((width, height), Resampling.BILINEAR)
    padded[top : top + height, left : left + width] = np.asarray(resized)
    return DecodedPicture(padded, 1.0)


def _longest(image_size: int) -> int:
    """How long a picture may be, in short sides, that is resized as a whole."""
    return min(LONGEST, max(ORDINARY, RESIZED_PIXELS // image_size**2))


def centre_square(picture: Picture, image_size: int) -> Picture:
    """The centre of a picture, resized by its short side with an antialiased bilinear filter."""
    from PIL.Image import Resampling  # slow to import

    short = min(picture.size)
    if not short:
        raise ValueError("it has no pixels")
    width, height = (round(side * image_size / short) for side in picture.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    if max(picture.size) <= _longest(image_size) * short:
        resized = picture.resize((width, height), Resampling.BILINEAR)
        return resized.crop((left, top, left + image_size, top + image_size))
    across, down = picture.width / width, picture.height / height
    x, y, side, rise = left * across, top * down, image_size * across, image_size * down
    margin = math.ceil(max(across, down)) + 1  # the filter reaches as far
    start_x, start_y = max(0, math.floor(x) - margin), max(0, math.floor(y) - margin)
    end_x = min(picture.width, math.ceil(x + side) + margin)
    end_y = min(picture.height, math.ceil(y + rise) + margin)
    near = picture.crop((start_x, start_y, end_x, end_y))
    x, y = x - start_x, y - start_y
    size = (image_size, image_size)
    return near.resize(size, Resampling.BILINEAR, box=(x, y, x + side, y + rise))
