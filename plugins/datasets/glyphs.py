"""Printed letters or digits, drawn from the text faces that matplotlib ships.

Each character of each face is kept once as a signed distance to its outline; an image samples
that field along a random affine map, which gives antialiased strokes of any weight at any size
for the price of a bilinear lookup.

Shape letters: F faces, K characters, M side of a field, N images, S side of an image.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.errors import DataError
from transferbench.specs import DatasetSpec, DatasetSplit, Params

__all__ = ["CHARACTERS", "FACES", "GLYPHS", "TEST_FACES", "GlyphParams"]

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
"""Every text face in matplotlib's font folder.

cmex10, cmsy10 and LastResort hold symbols where their tables promise letters, STIXSiz* and
STIXNonUni* hold no letters, cmmi10 has the letters of cmti10 and old-style digits.
"""

TEST_FACES = FACES[4::5]
"""Every fifth face: one of each family but DejaVu Sans, upright and slanted, light and bold."""

CHARACTERS = {
    "digits": string.digits,
    "letters": "ABCDEFGHJKLMNPQRSTUVWXYZabdefghimnqrty",
}
"""38 letters with shapes of their own, none of which is a digit's.

All are drawn at one size, so c k o p s u v w x z are their capitals and are left out, and j, which
is J with a dot. O o are the digit 0, and I l the digit 1.
"""

BOX = 20 / 28
"""The longer side of a glyph over the image's, as MNIST's digits lie in their frame."""

ROTATION_DEGREES = 12.0
SHEAR = 0.12
SCALE = (0.85, 1.1)
SHIFT = 0.06
STROKE = (0.0, 0.02)
"""How far the outline moves outwards. Shift and stroke are shares of the image's side."""
NOISE = 0.02
"""Standard deviation of the pixel noise, a share of full scale."""

FONT_SIZE = 64
FIELD_SIDE = 96
"""Of the field: the widest glyph at FONT_SIZE has 74 pixels."""
BLOCK_IMAGES = 512


class GlyphParams(Params):
    """``per_class`` renderings of each character for training, ``test_per_class`` for testing."""

    characters: Literal["letters", "digits"] = "letters"
    per_class: Annotated[int, Field(ge=1, le=100_000)] = 320
    test_per_class: Annotated[int, Field(ge=1, le=100_000)] = 50
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Fields(NamedTuple):
    """Signed distances to the outlines, positive inside, in pixels of the field.

    Shapes: distance float32 (F, K, M, M); extent float32 (F, K), a glyph's longer side.
    """

    distance: np.ndarray
    extent: np.ndarray


class Plan(NamedTuple):
    """What each image shows and how it is bent.

    Shapes: all (N,) but shift (N, 2). Units: radians; shares of the image's side.
    """

    character: np.ndarray
    face: np.ndarray
    angle: np.ndarray
    shear: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    stroke: np.ndarray


def _classes(params: GlyphParams, root: Path | None) -> tuple[str, ...]:  # noqa: ARG001  # protocol
    return tuple(CHARACTERS[params.characters])


def _load(params: GlyphParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    testing = split == "test"
    faces = [face for face in FACES if (face in TEST_FACES) == testing]
    characters = CHARACTERS[params.characters]
    generator = np.random.default_rng([params.seed, int(testing)])
    count = params.test_per_class if testing else params.per_class
    plan = _draw_plan(len(characters), len(faces), count, generator)
    fields = _fields(faces, characters)
    images = np.empty((len(plan.character), image_size, image_size, 1), np.uint8)
    for start in range(0, len(images), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        part = Plan(*(values[block] for values in plan))
        images[block, ..., 0] = _render(fields, part, image_size, generator)
    return DatasetSplit(images, plan.character, np.array(faces)[plan.face])


def _draw_plan(characters: int, faces: int, per_class: int, generator: np.random.Generator) -> Plan:
    """Every class the same number of images, and in it every face as often as can be."""
    count = characters * per_class
    face_of = [np.resize(generator.permutation(faces), per_class) for _ in range(characters)]
    return Plan(
        character=np.repeat(np.arange(characters, dtype=np.int64), per_class),
        face=np.concatenate(face_of),
        angle=np.radians(generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count)),
        shear=generator.uniform(-SHEAR, SHEAR, count),
        scale=generator.uniform(*SCALE, count),
        shift=generator.uniform(-SHIFT, SHIFT, (count, 2)),
        stroke=generator.uniform(*STROKE, count),
    )


def _fields(faces: list[str], characters: str) -> Fields:
    from PIL import ImageFont  # listing plugins stays fast

    distance = np.empty((len(faces), len(characters), FIELD_SIDE, FIELD_SIDE), np.float32)
    extent = np.empty(distance.shape[:2], np.float32)
    for f, face in enumerate(faces):
        # the basic layout: the other one depends on a library that may be absent
        font = ImageFont.truetype(
            str(_font_file(face)), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC
        )
        for k, character in enumerate(characters):
            mask = font.getmask(character, mode="L")
            ink = np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1])
            distance[f, k], extent[f, k] = _field(ink)
    return Fields(distance, extent)


def _font_file(face: str) -> Path:
    import matplotlib as mpl  # listing plugins stays fast

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise DataError(
            f"dataset 'glyphs' draws from the face {face}, but there is no {path}: "
            "reinstall matplotlib with its bundled fonts"
        )
    return path


def _field(ink: np.ndarray) -> tuple[np.ndarray, int]:
    """The signed distance field around a glyph's cropped coverage, and its longer side."""
    from scipy.ndimage import distance_transform_edt  # listing stays fast

    inside = np.zeros((FIELD_SIDE, FIELD_SIDE), dtype=bool)
    height, width = ink.shape
    top, left = (FIELD_SIDE - height) // 2, (FIELD_SIDE - width) // 2
    inside[top : top + height, left : left + width] = ink >= 128
    # half a pixel: the outline lies between the last pixel inside and the first outside
    signed = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return signed - np.copysign(0.5, signed), max(height, width)


def _render(
    fields: Fields, plan: Plan, image_size: int, generator: np.random.Generator
) -> np.ndarray:
    """White characters on black, with noise. Shapes: uint8 (N, S, S)."""
    zoom = fields.extent[plan.face, plan.character] / (BOX * image_size * plan.scale)
    signed = _sample(fields, plan, zoom[:, None, None], image_size)
    # a pixel's coverage falls from 1 to 0 while the outline crosses its width
    outline = signed / zoom[:, None, None] + image_size * plan.stroke[:, None, None] + 0.5
    coverage = np.clip(outline, 0, 1, dtype=np.float32)
    coverage += NOISE * generator.standard_normal(coverage.shape, dtype=np.float32)
    pixels: np.ndarray = np.rint(255 * np.clip(coverage, 0, 1)).astype(np.uint8)
    return pixels


def _sample(fields: Fields, plan: Plan, zoom: np.ndarray, image_size: int) -> np.ndarray:
    """The distance at each pixel's place in the field, bilinear. Shapes: float (N, S, S)."""
    centre = np.arange(image_size) - (image_size - 1) / 2
    shift = plan.shift[:, :, None, None] * image_size
    y, x = centre[:, None] - shift[:, 0], centre - shift[:, 1]
    cosine, sine = (turn(plan.angle)[:, None, None] for turn in (np.cos, np.sin))
    x, y = cosine * x + sine * y, cosine * y - sine * x
    x = x + plan.shear[:, None, None] * y
    last = FIELD_SIDE - 1
    row, column = (np.clip(last / 2 + zoom * axis, 0, last - 1e-3) for axis in (y, x))
    return _bilinear(fields.distance, plan, row.astype(np.float32), column.astype(np.float32))


def _bilinear(distance: np.ndarray, plan: Plan, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left
    glyph = (plan.face * distance.shape[1] + plan.character) * FIELD_SIDE**2
    corner = glyph[:, None, None] + top * FIELD_SIDE + left
    flat = distance.reshape(-1)
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + FIELD_SIDE] * (1 - right) + flat[corner + FIELD_SIDE + 1] * right
    blended: np.ndarray = upper * (1 - down) + lower * down
    return blended


GLYPHS = DatasetSpec(
    name="glyphs",
    version=1,
    summary="Printed letters or digits of 21 text faces, slightly bent, white on black",
    source="The DejaVu, STIX and Computer Modern faces that matplotlib ships",
    license="Bitstream Vera and public domain (DejaVu), OFL-1.1 (STIX), AMS/Knuth (cm)",
    params=GlyphParams,
    tiny={"characters": "digits", "per_class": 34, "test_per_class": 8},
    load=_load,
    classes=_classes,
    channels=1,
    grouping="font face",
)
