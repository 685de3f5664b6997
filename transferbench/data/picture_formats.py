"""Which files are pictures: the formats that Pillow, as it is installed, opens."""

from __future__ import annotations

import functools

__all__ = ["picture_endings", "picture_formats", "unread_endings"]

UNREAD_FORMATS = {
    "EPS": "needs Ghostscript",
    "IPTC": "holds any other format",
    "MPEG": "is a video",
}
"""Formats that Pillow opens and that are no pictures by themselves, and why not."""

UNREAD_PICTURES = (".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".raf", ".svg")
"""Endings of pictures that Pillow does not know without more packages."""


@functools.cache
def picture_formats() -> tuple[str, ...]:
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

    readable = {*picture_formats(), "MPO"}  # JPEG with more pictures behind the first
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
