"""Printed letters or digits, rendered from the text faces that matplotlib ships.

Each character of each face is stored as a signed distance field. An image samples a field along a
random affine map: this renders antialiased strokes of any weight and size by bilinear lookup.

Shape letters: F faces, K characters, M side of a field, N images, S side of an image.
"""

from __future__ import annotations

import string
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.errors import DataError
from transferbench.specs import DatasetSpec, DatasetSplit, Params

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["CHARACTERS", "FACES", "GLYPHS", "TEST_FACES", "GlyphParams"]

FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic",
    "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10",
)  # fmt: skip
"""All text faces in matplotlib's font folder.

Excluded: cmex10, cmsy10 and LastResort, which have symbols instead of letters, STIXSiz* and
STIXNonUni*, which have no letters, and cmmi10, with the letters of cmti10 and old-style digits.
"""

TEST_FACES = FACES[4::5]
"""Every fifth face: one of each family but DejaVu Sans, upright and slanted, light and bold."""

CHARACTERS = {
    "digits": string.digits,
    "letters": "ABCDEFGHJKLMNPQRSTUVWXYZabdefghimnqrty",
}
"""38 letters with distinct shapes, different from those of the digits.

Letters are rendered at the same size, so c k o p s u v w x z, which look like their capitals, are
excluded, and so is j, which is J with a dot. O o look like the digit 0, I l like the digit 1.
"""

BOX = 20 / 28
"""The longer side of a glyph relative to the image, as in MNIST."""

ROTATION_DEGREES = 12.0
SHEAR = 0.12
SCALE = (0.85, 1.1)
SHIFT = 0.06
STROKE = (0.0, 0.02)
"""Range of outward moves of the outline. Shift and stroke are fractions of the image's side."""
NOISE = 0.02
"""Standard deviation of the pixel noise, as a fraction of full scale."""

FONT_SIZE = 64
FIELD_SIDE = 96
"""Of a distance field, in pixels: the widest glyph at FONT_SIZE has 74."""
RENDERED_PIXELS = 2**21
"""At once: the noise is one stream, however many images are rendered together."""


class GlyphParams(Params):
    """``per_class`` renderings of each character for training, ``test_per_class`` for testing."""

    characters: Literal["letters", "digits"] = "letters"
    per_class: Annotated[int, Field(ge=1, le=100_000)] = 320
    test_per_class: Annotated[int, Field(ge=1, le=100_000)] = 50
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class DistanceFields(NamedTuple):
    """Signed distances to the outlines, positive inside, in pixels of the field.

    Shapes: distance float32 (F, K, M, M); extent float32 (F, K), a glyph's longer side.
    """

    distance: np.ndarray
    extent: np.ndarray


class GlyphSamples(NamedTuple):
    """The character, the face and the affine parameters of each image.

    Shapes: all (N,) but shift (N, 2). Units: radians; fractions of the image's side.
    """

    character: np.ndarray
    face: np.ndarray
    angle: np.ndarray
    shear: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    stroke: np.ndarray


def _load(params: GlyphParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:  # noqa: ARG001  # protocol
    testing = split == "test"
    faces = [face for face in FACES if (face in TEST_FACES) == testing]
    characters = CHARACTERS[params.characters]
    generator = np.random.default_rng([params.seed, int(testing)])
    count = params.test_per_class if testing else params.per_class
    samples = _draw_samples(len(characters), len(faces), count, generator)
    pairs = set(zip(samples.face.tolist(), samples.character.tolist(), strict=True))
    fields = _distance_fields(faces, characters, pairs)
    images = np.empty((len(samples.character), image_size, image_size, 1), np.uint8)
    at_once = max(1, RENDERED_PIXELS // image_size**2)
    for start in range(0, len(images), at_once):
        rows = slice(start, start + at_once)
        batch = GlyphSamples(*(values[rows] for values in samples))
        images[rows, ..., 0] = _render(fields, batch, image_size, generator)
    return DatasetSplit(images, samples.character, np.array(faces)[samples.face])


def _draw_samples(
    characters: int, faces: int, per_class: int, generator: np.random.Generator
) -> GlyphSamples:
    """Balanced classes, with faces as balanced as possible within each class."""
    count = characters * per_class
    face_of = [np.resize(generator.permutation(faces), per_class) for _ in range(characters)]
    return GlyphSamples(
        character=np.repeat(np.arange(characters, dtype=np.int64), per_class),
        face=np.concatenate(face_of),
        angle=np.radians(generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, count)),
        shear=generator.uniform(-SHEAR, SHEAR, count),
        scale=generator.uniform(*SCALE, count),
        shift=generator.uniform(-SHIFT, SHIFT, (count, 2)),
        stroke=generator.uniform(*STROKE, count),
    )


def _distance_fields(
    faces: list[str], characters: str, pairs: Collection[tuple[int, int]]
) -> DistanceFields:
    """Those of the (face, character) pairs that are drawn; the rest is left empty."""
    distance = np.empty((len(faces), len(characters), FIELD_SIDE, FIELD_SIDE), np.float32)
    extent = np.empty(distance.shape[:2], np.float32)
    fonts = [_font(face) for face in faces]
    for f, k in pairs:
        mask = fonts[f].getmask(characters[k], mode="L")
        ink = np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1])
        distance[f, k], extent[f, k] = _distance_field(ink)
    return DistanceFields(distance, extent)


def _font(face: str) -> FreeTypeFont:
    from PIL import ImageFont  # slow to import

    path = _font_file(face)
    try:
        # The default layout engine depends on a library that may be absent.
        return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(
            f"dataset 'glyphs': {path} cannot be read ({error}): reinstall matplotlib with its "
            "bundled fonts"
        ) from error


def _font_file(face: str) -> Path:
    import matplotlib as mpl  # slow to import

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise DataError(
            f"dataset 'glyphs' needs the face {face}, but there is no {path}: "
            "reinstall matplotlib with its bundled fonts"
        )
    return path


def _distance_field(ink: np.ndarray) -> tuple[np.ndarray, int]:
    """The signed distance field of a cropped glyph, and the glyph's longer side."""
    from scipy.ndimage import distance_transform_edt  # slow to import

    inside = np.zeros((FIELD_SIDE, FIELD_SIDE), dtype=bool)
    height, width = ink.shape
    top, left = (FIELD_SIDE - height) // 2, (FIELD_SIDE - width) // 2
    inside[top : top + height, left : left + width] = ink >= 128
    # The outline lies half a pixel from the pixels on both sides.
    signed = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return signed - np.copysign(0.5, signed), max(height, width)


def _render(
    fields: DistanceFields, samples: GlyphSamples, image_size: int, generator: np.random.Generator
) -> np.ndarray:
    """White characters on black, with noise. Shapes: uint8 (N, S, S)."""
    zoom = fields.extent[samples.face, samples.character] / (BOX * image_size * samples.scale)
    signed = _sample_fields(fields, samples, zoom[:, None, None], image_size)
    # A pixel's coverage falls from 1 to 0 while the outline crosses its width.
    outline = signed / zoom[:, None, None] + image_size * samples.stroke[:, None, None] + 0.5
    coverage = np.clip(outline, 0, 1, dtype=np.float32)
    coverage += NOISE * generator.standard_normal(coverage.shape, dtype=np.float32)
    pixels: np.ndarray = np.rint(255 * np.clip(coverage, 0, 1)).astype(np.uint8)
    return pixels


def _sample_fields(
    fields: DistanceFields, samples: GlyphSamples, zoom: np.ndarray, image_size: int
) -> np.ndarray:
    """The distance at each pixel's position in the field, bilinear. Shapes: float (N, S, S)."""
    centre = np.arange(image_size) - (image_size - 1) / 2
    shift = samples.shift[:, :, None, None] * image_size
    y, x = centre[:, None] - shift[:, 0], centre - shift[:, 1]
    cosine, sine = (function(samples.angle)[:, None, None] for function in (np.cos, np.sin))
    x, y = cosine * x + sine * y, cosine * y - sine * x
    x = x + samples.shear[:, None, None] * y
    last = FIELD_SIDE - 1
    row, column = (np.clip(last / 2 + zoom * axis, 0, last - 1e-3) for axis in (y, x))
    return _bilinear(fields.distance, samples, row.astype(np.float32), column.astype(np.float32))


def _bilinear(
    distance: np.ndarray, samples: GlyphSamples, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left
    glyph = (samples.face * distance.shape[1] + samples.character) * FIELD_SIDE**2
    corner = glyph[:, None, None] + top * FIELD_SIDE + left
    flat = distance.reshape(-1)
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + FIELD_SIDE] * (1 - right) + flat[corner + FIELD_SIDE + 1] * right
    blended: np.ndarray = upper * (1 - down) + lower * down
    return blended


GLYPHS = DatasetSpec(
    name="glyphs",
    version=1,
    summary="Printed letters or digits in 21 text faces, slightly distorted, white on black",
    source="The DejaVu, STIX and Computer Modern faces that matplotlib ships",
    license="Bitstream Vera and public domain (DejaVu), OFL-1.1 (STIX), AMS/Knuth (cm)",
    params=GlyphParams,
    tiny={"characters": "digits", "per_class": 34, "test_per_class": 8},
    load=_load,
    classes=lambda params, root: tuple(CHARACTERS[params.characters]),
    channels=1,
    grouping="font face",
)
