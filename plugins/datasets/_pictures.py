"""A picture as a viewer shows it: upright, on white, its centre square in 8-bit colour."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from transferbench.data.folders import printable
from transferbench.errors import DataError, listing
from transferbench.interrupts import thread_pool

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile as OpenPicture

__all__ = ["centre_square", "decode_all", "picture_endings", "unread_endings"]

UNREAD_FORMATS = {
    "EPS": "needs Ghostscript",
    "IPTC": "holds any other format",
    "MPEG": "is a video",
}
"""Formats that Pillow opens and that are no pictures by themselves, and why not."""

UNREAD_PICTURES = (".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".raf", ".svg")
"""Endings of pictures that Pillow does not know without more packages."""

WHITES = (1, 255, 2**16 - 1)
"""What is white in integers and floats of 32 bits, whose files do not say it."""

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Two tags of TIFF and a value of the second."""

SAMPLE_STEPS = {"L;2": 85, "L;4": 17}
"""How far apart Pillow puts the grey levels of samples of 2 and 4 bits."""

LONGEST, ORDINARY, RESIZED_PIXELS = 64, 4, 2**22
"""Pictures longer than 64 short sides are cropped before they are resized, and those longer than 4
that would have more than 2**22 pixels then.

Resizing first takes memory and time as the whole picture would have at that size. The result is
the same but for rounding, so that pictures of ordinary shape go the way that they always went.
"""

PIXELS_AT_ONCE = 2**26
"""How many pixels are decoded at once, about 0.8 GB; a picture that has more is decoded alone."""

BAND_PIXELS = 2**22
"""A picture with transparency is put on white in bands, not with several copies of the whole."""

MAX_BYTES = 2**31
"""More than a picture has whose pixels Pillow accepts."""

LISTED_FAULTS = 10


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


# --- formats ----------------------------------------------------------------------------------


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats to try, those that are told by their first bytes before the others."""
    from PIL import Image, ImageFile  # slow to import

    Image.init()
    stub = ImageFile.StubImageFile  # Pillow knows the format and cannot decode it
    readable = [
        name
        for name, (factory, _) in Image.OPEN.items()
        if name not in UNREAD_FORMATS
        and not (isinstance(factory, type) and issubclass(factory, stub))
    ]
    return tuple(sorted(readable, key=lambda name: Image.OPEN[name][1] is None))


@functools.cache
def picture_endings() -> frozenset[str]:
    """The endings of files that Pillow, as it is installed, opens as pictures; lower case."""
    from PIL import Image  # slow to import

    readable = {*_formats(), "MPO"}  # JPEG with more pictures behind the first
    return frozenset(
        ending for ending, name in Image.registered_extensions().items() if name in readable
    )


@functools.cache
def unread_endings() -> dict[str, str]:
    """Endings of pictures and documents that are left out, and why."""
    from PIL import Image  # slow to import

    names = dict.fromkeys(UNREAD_PICTURES, "") | Image.registered_extensions()
    return {
        ending: UNREAD_FORMATS.get(name, "Pillow cannot open it")
        for ending, name in names.items()
        if ending not in picture_endings()
    }


# --- decoding ---------------------------------------------------------------------------------


def decode_all(paths: Sequence[Path], image_size: int) -> np.ndarray:
    """The centre squares of all pictures. Shapes: uint8 (N, image_size, image_size, 3).

    Raises: ``DataError`` that names the pictures that cannot be read.
    """
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    faults = []
    picture_endings()  # imports Pillow's plugins, which threads should not do at once
    with warnings.catch_warnings(), thread_pool() as pool:
        warnings.simplefilter("ignore")  # of odd metadata and of many pixels
        # Pillow decodes outside the interpreter's lock.
        for path, fault in zip(paths, pool.map(_decode, paths, images), strict=True):
            if fault:
                faults.append(f"{printable(str(path))} cannot be read ({fault})")
    if faults:
        way_on = "replace or remove " + ("it" if len(faults) == 1 else "them")
        lines = listing(faults, LISTED_FAULTS, "\n  ")
        raise DataError(f"dataset 'image-folder': {lines}: {way_on}")
    return images


def _decode(path: Path, square: np.ndarray) -> str | None:
    """Write the centre of a picture to ``square``, or say why it cannot be read."""
    from PIL import Image, UnidentifiedImageError  # slow to import

    try:
        if not (size_bytes := path.stat().st_size):
            return "it is empty"
        if size_bytes > MAX_BYTES:
            return f"it has {size_bytes / 1e9:.1f} GB, more than a picture may have"
        resized = _longest(len(square)) * len(square) ** 2
        with (
            Image.open(path, formats=_formats()) as picture,
            _pixels.used(math.prod(picture.size) + resized),
        ):
            square[:] = centre_square(_upright_on_white(picture), len(square))
    except UnidentifiedImageError:
        return "its content is broken, or of no picture format that Pillow opens"
    except Exception as error:  # noqa: BLE001  # what a broken file raises depends on its format
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return printable(reason)
    return None


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


# --- what a viewer shows ------------------------------------------------------------------------


def _upright_on_white(picture: OpenPicture) -> Picture:
    """The picture in mode RGB, as its orientation and transparency say."""
    rawmode, covered = _rawmode(picture), _covered(picture)
    picture.load()
    if covered:
        return _in_bands(_on_canvas(picture, covered), _on_white)
    if rawmode in SAMPLE_STEPS and "transparency" in picture.info:
        picture.info["transparency"] *= SAMPLE_STEPS[rawmode]
    if rawmode == "RGB;16B" and "transparency" in picture.info:
        picture.info["transparency"] = tuple(v >> 8 for v in picture.info["transparency"])
    upright = _upright(picture)
    if upright.mode in {"I", "F"} or upright.mode.startswith("I;16"):
        return _from_deep_grey(upright, picture)
    if not upright.has_transparency_data:
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    return _in_bands(upright, _on_white)


def _covered(picture: OpenPicture) -> tuple[int, int, int, int] | None:
    """Where the first frame of a GIF is, which Pillow pads in any colour; None: everywhere."""
    extents = picture.tile[0][1] if picture.format == "GIF" and picture.tile else None
    return None if extents == (0, 0, *picture.size) else extents


def _on_canvas(picture: Picture, covered: tuple[int, int, int, int]) -> Picture:
    from PIL import Image  # slow to import

    canvas = Image.new("RGBA", picture.size)
    canvas.paste(picture.crop(covered).convert("RGBA"), covered[:2])
    return canvas


def _rawmode(picture: OpenPicture) -> str | None:
    """How the samples of a PNG are stored."""
    if picture.format != "PNG" or not picture.tile:
        return None
    return str(picture.tile[0][3])


def _upright(picture: Picture) -> Picture:
    """The picture turned and mirrored as its metadata say; broken metadata say nothing.

    Not ``ImageOps.exif_transpose``: it writes the metadata again, which fails on odd ones.
    """
    from PIL import ExifTags  # slow to import
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # broken metadata raise anything
        return picture
    return picture if turn is None else picture.transpose(turn)


def _in_bands(picture: Picture, convert: Callable[[Picture], Picture]) -> Picture:
    """The picture in mode RGB, converted in bands of rows one after another."""
    from PIL import Image  # slow to import

    width, height = picture.size
    flat = Image.new("RGB", picture.size)
    rows = max(1, BAND_PIXELS // max(1, width))
    for top in range(0, height, rows):
        band = picture.crop((0, top, width, min(top + rows, height)))
        flat.paste(convert(band), (0, top))
    return flat


def _on_white(picture: Picture) -> Picture:
    from PIL import Image  # slow to import

    if picture.mode == "La":
        picture = picture.convert("LA")
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _from_deep_grey(picture: Picture, source: OpenPicture) -> Picture:
    """Grey values of more than 8 bits, scaled so that white stays white."""
    from PIL import Image  # slow to import

    tags = getattr(source, "tag_v2", {})
    scale = 255 / _white(picture, source.format, tags)
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    clear = picture.info.get("transparency")

    def to_eight_bits(band: Picture) -> Picture:
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise ValueError("it has values that are not finite")
        grey = np.rint(values * scale).astype(np.uint8)
        if inverted:
            grey = 255 - grey
        if clear is not None:
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")

    return _in_bands(picture, to_eight_bits)


def _white(picture: Picture, form: str | None, tags: Mapping[int, Any]) -> int:
    """The value that is white. Raises: ``ValueError`` where nothing says it."""
    if picture.mode.startswith("I;16"):
        return int(2 ** tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    if picture.mode == "I" and form in {"PNG", "PPM"}:
        return 2**16 - 1
    low, high = cast("tuple[float, float]", picture.getextrema())
    for white in WHITES:
        if low >= 0 and high <= white:
            return white
    raise ValueError(
        f"its values from {low:g} to {high:g} do not say what is white: convert it to 8 or 16 bits"
    )
