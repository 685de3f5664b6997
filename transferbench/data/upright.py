"""A picture as a viewer shows it: upright, on white, in 8-bit colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile as OpenPicture

__all__ = ["on_white", "upright_on_white"]

WHITES = (1, 255, 2**16 - 1)
"""What is white in integers and floats of 32 bits, whose files do not say it."""

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Two tags of TIFF and a value of the second."""

TGA_DESCRIPTOR, TGA_OPACITY_BITS = 17, 0b1111
"""A byte of the header of TGA, and its bits that count those of a pixel's opacity."""

SAMPLE_STEPS = {"L;2": 85, "L;4": 17}
"""How far apart Pillow puts the grey levels of samples of 2 and 4 bits."""

BAND_PIXELS = 2**22
"""A picture with transparency is put on white in bands, not with several copies of the whole."""


def upright_on_white(picture: OpenPicture) -> Picture:
    """The picture in mode RGB, as its orientation and transparency say."""
    rawmode, covered, opaque = _rawmode(picture), _covered(picture), _is_opaque(picture)
    picture.load()
    if covered:
        return _in_bands(_on_canvas(picture, covered), _layered_on_white)
    if rawmode in SAMPLE_STEPS and "transparency" in picture.info:
        picture.info["transparency"] *= SAMPLE_STEPS[rawmode]
    if rawmode == "RGB;16B" and "transparency" in picture.info:
        picture.info["transparency"] = tuple(v >> 8 for v in picture.info["transparency"])
    upright = _upright(picture)
    if opaque:
        upright = _without_opacity(upright)
    if upright.mode in {"I", "F"} or upright.mode.startswith("I;16"):
        return _from_deep_grey(upright, picture)
    return on_white(upright)


def on_white(picture: Picture) -> Picture:
    """The picture in mode RGB; white shows through where it is transparent."""
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    return _in_bands(picture, _layered_on_white)


def _covered(picture: OpenPicture) -> tuple[int, int, int, int] | None:
    """Where the first frame of a GIF is, which Pillow pads in any colour; None: everywhere."""
    extents = picture.tile[0][1] if picture.format == "GIF" and picture.tile else None
    return None if extents == (0, 0, *picture.size) else extents


def _on_canvas(picture: Picture, covered: tuple[int, int, int, int]) -> Picture:
    from PIL import Image  # slow to import

    canvas = Image.new("RGBA", picture.size)
    canvas.paste(picture.crop(covered).convert("RGBA"), covered[:2])
    return canvas


def _is_opaque(picture: OpenPicture) -> bool:
    """Whether a TGA says that its fourth values, or second ones of grey, are no opacity."""
    if picture.format != "TGA" or picture.fp is None:
        return False
    position = picture.fp.tell()
    picture.fp.seek(TGA_DESCRIPTOR)
    descriptor = picture.fp.read(1)
    picture.fp.seek(position)
    return not descriptor[0] & TGA_OPACITY_BITS


def _without_opacity(picture: Picture) -> Picture:
    return picture.convert({"RGBA": "RGB", "LA": "L"}.get(picture.mode, picture.mode))


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


def _layered_on_white(picture: Picture) -> Picture:
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
