"""A picture is read as a viewer shows it, whatever its format, and a broken one is named."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from transferbench.data.items import decoded_blocks
from transferbench.data.picture_formats import picture_endings, unread_endings
from transferbench.data.pictures import LONGEST, centre_square
from transferbench.errors import DataError
from transferbench.specs import DatasetItems
from transferbench_plugins.datasets.image_folder import IMAGE_FOLDER

ORIENTATION, EXTRA_SAMPLES, PHOTOMETRIC, BITS = 274, 338, 262, 258
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF 2.32, tag 274: on which sides of the upright picture row 0 and column 0 are."""


def decode_all(paths, image_size):
    labels = np.zeros(len(paths), np.int64)
    items = DatasetItems(labels, labels.astype(str), paths.__getitem__)
    blocks = decoded_blocks(IMAGE_FOLDER, "train", items, image_size)
    return np.concatenate([block.images for block in blocks])


def read(path, image_size):
    return decode_all([path], image_size)[0]


def read_bytes(tmp_path, content, image_size=4):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    return read(path, image_size)


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def draw(side, channels=3, seed=0):
    shape = (side, side, channels) if channels > 1 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# --- ordinary pictures --------------------------------------------------------------------------


def as_before(picture, image_size):
    """The formula of the first version: each published number was computed with it."""
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    transparent = picture.mode in {"LA", "PA", "RGBA", "P"}
    flat = Image.alpha_composite(white, layered) if transparent else picture
    flat = flat.convert("RGB")
    short = min(flat.size)
    width, height = (round(side * image_size / short) for side in flat.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    resized = flat.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + image_size, top + image_size)))


def random_picture(draws, mode):
    size = draws.integers(1, 60, 2)
    if draws.random() < 0.2:
        size[0] = min(LONGEST * size[1], 500)
    pixels = draws.integers(0, 256, (*size, 4)).astype(np.uint8)
    if mode == "P":
        return Image.fromarray(pixels[..., :3]).quantize(40)
    if mode in {"RGBA", "LA"}:
        return Image.fromarray(pixels).convert(mode)
    return Image.fromarray(pixels[..., :3]).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "CMYK", "YCbCr"])
def test_ordinary_pictures_keep_their_bits(tmp_path, mode):
    draws = np.random.default_rng(len(mode))
    for _ in range(40):
        path = tmp_path / ("picture.tif" if mode in {"CMYK", "YCbCr"} else "picture.png")
        picture = random_picture(draws, mode)
        picture.save(path)
        with Image.open(path) as stored:
            assert stored.mode == mode
            expected = as_before(stored, image_size := int(draws.integers(1, 40)))
        assert np.array_equal(read(path, image_size), expected), (picture.size, image_size)


def test_a_palette_with_transparent_entries_keeps_its_bits(tmp_path):
    picture = random_picture(np.random.default_rng(5), "P")
    for transparency in (3, bytes(range(40))):
        picture.save(tmp_path / "picture.png", transparency=transparency)
        with Image.open(tmp_path / "picture.png") as stored:
            expected = as_before(stored, 16)
        assert np.array_equal(read(tmp_path / "picture.png", 16), expected)


# --- long pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2000), (2000, 2), (3, 1000), (1, 700), (701, 1), (7, 999)])
@pytest.mark.parametrize("image_size", [4, 13, 32])
def test_a_long_picture_is_cropped_before_it_is_resized(shape, image_size):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    assert max(shape) > LONGEST * min(shape)
    square = np.asarray(centre_square(picture, image_size)).astype(int)
    assert np.abs(square - as_before(picture, image_size)).max() <= 1


@pytest.mark.parametrize("shape", [(10, 60), (45, 9)])
def test_a_large_result_is_cropped_before_it_is_resized(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    square = np.asarray(centre_square(picture, 950)).astype(int)
    assert np.abs(square - as_before(picture, 950)).max() <= 1


@pytest.mark.parametrize(
    ("sizes", "image_size", "limit_mb"),
    [
        ([(2, 30_000), (30_000, 2), (60_000, 1), (1, 60_000), (1, 1)], 224, 60),
        ([(10, 640), (640, 10)] * 8, 1024, 160),  # the result has 50 MB
        ([(3000, 3000)] * 13, 8, 400),  # one has 9 MB, and 36 MB in mode RGB
    ],
    ids=["strips", "strips of a large result", "large pictures"],
)
def test_memory_and_time_are_bounded(tmp_path, sizes, image_size, limit_mb):
    for number, size in enumerate(sizes):
        Image.new("L", size, 9).save(tmp_path / f"{number}.png", compress_level=1)
    code = (
        "import os; os.cpu_count = lambda: 32; "
        "import resource, sys; from pathlib import Path; "
        "from test_pictures import decode_all; "
        "paths, image_size = sorted(Path(sys.argv[1]).iterdir()), int(sys.argv[2]); "
        "decode_all(paths[:1], 8); used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "images = decode_all(paths, image_size); "
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used; "
        "assert (images == 9).all(); "
        "assert used < int(sys.argv[3]) * 1000, used"
    )
    command = [sys.executable, "-c", code, tmp_path, str(image_size), str(limit_mb)]
    subprocess.run(command, check=True, timeout=20, cwd=Path(__file__).parent)


# --- orientation --------------------------------------------------------------------------------

TURNED = {
    "JPEG": {}, "PNG": {}, "TIFF": {}, "TIFF, packed": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True}, "AVIF": {}, "MPO": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_as_their_orientation_says(tmp_path, kind, orientation):
    name, picture = kind.partition(",")[0], Image.fromarray(draw(16))
    if name == "AVIF" and ".avif" not in picture_endings():
        pytest.skip("this Pillow reads no AVIF")
    picture.save(tmp_path / "as-stored", name, **TURNED[kind])
    stored = read(tmp_path / "as-stored", 16)
    picture.save(tmp_path / "turned", name, exif=exif_of(orientation), **TURNED[kind])
    assert np.array_equal(read(tmp_path / "turned", 16), TURNS[orientation](stored))


def test_a_picture_is_turned_before_it_is_cropped(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 14, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "stored.png", exif=exif_of(6))
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "upright.png")
    stored, upright = (read(tmp_path / name, 8) for name in ("stored.png", "upright.png"))
    assert np.array_equal(stored, upright)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, depth, colour, before=b"", after=b""):
    """A PNG of rows of packed samples, with chunks before and after them."""
    width = {0: 1, 2: 3}[colour] * depth
    header = struct.pack(">IIBBBBB", 8 * len(rows[0]) // width, len(rows), depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + after + chunk(b"IEND", b"")
    )


def test_the_orientation_of_a_png_may_follow_its_pixels(tmp_path):
    pixels = draw(4, 1)
    exif = exif_of(3).tobytes().removeprefix(b"Exif\0\0")
    content = png([row.tobytes() for row in pixels], 8, 0, after=chunk(b"eXIf", exif))
    assert np.array_equal(read_bytes(tmp_path, content)[..., 0], pixels[::-1, ::-1])


def test_the_orientation_may_stand_in_xmp_or_in_a_text(tmp_path):
    exif = exif_of(8).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<rdf tiff:Orientation="8"/>')
    raw = PngImagePlugin.PngInfo()
    raw.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n")
    for number, pnginfo in enumerate((info, raw)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(draw(8)).save(path, pnginfo=pnginfo)
        assert np.array_equal(read(path, 8), np.rot90(draw(8)))


@pytest.mark.parametrize(
    "exif",
    [exif_of(0), exif_of(9), exif_of(65_535), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense",
     b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"],
)  # fmt: skip
def test_a_broken_orientation_says_nothing(tmp_path, exif):
    for name in ("PNG", "JPEG", "WEBP"):
        Image.fromarray(draw(16)).save(tmp_path / "stored", name)
        Image.fromarray(draw(16)).save(tmp_path / "broken", name, exif=exif)
        assert np.array_equal(read(tmp_path / "broken", 16), read(tmp_path / "stored", 16))


# --- transparency -------------------------------------------------------------------------------

CLEAR, HALF = (200, 40, 40, 0), (0, 0, 0, 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("ICO", {}), ("TGA", {}),
     ("JPEG2000", {}), ("QOI", {}), ("SGI", {}), ("DDS", {}), ("ICNS", {})],
)  # fmt: skip
def test_alpha_is_on_white_in_every_format(tmp_path, name, options):
    picture = Image.new("RGBA", (16, 16), HALF)
    picture.paste(CLEAR, (0, 0, 8, 16))
    picture.save(tmp_path / "picture", name, **options)
    image = read(tmp_path / "picture", 16)
    assert image[8, 2].tolist() == [255, 255, 255]
    assert image[8, 13].tolist() == [191, 191, 191]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_on_white_in_every_mode(tmp_path, mode):
    half = Image.new("RGBA", (4, 4), HALF)
    if mode == "PA":
        half = Image.merge("PA", (half.convert("RGB").quantize(2), half.getchannel("A")))
    half.convert(mode).save(tmp_path / "picture.tif")
    assert read(tmp_path / "picture.tif", 4)[0, 0].tolist() == [191, 191, 191]


def tiff(samples, bits, *, photometric=1, sample_format=1, extra=None, big_endian=False):
    """A TIFF of one strip of samples (H, W, channels)."""
    order = ">" if big_endian else "<"
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    tags = {256: width, 257: height, BITS: bits, 259: 1, PHOTOMETRIC: photometric, 273: 8,
            277: channels, 278: height, 279: len(data), 339: sample_format}  # fmt: skip
    if channels > 1:
        tags[BITS] = bits | bits << 16
        tags[339] = sample_format | sample_format << 16
    if extra is not None:
        tags[EXTRA_SAMPLES] = extra
    entries = b""
    for tag, value in sorted(tags.items()):
        count = channels if tag in {BITS, 339} else 1
        kind = 4 if tag in {273, 279} else 3
        values = (value,) if kind == 4 else (value & 0xFFFF, value >> 16)
        field = struct.pack(order + "I" * (kind == 4) + "HH" * (kind == 3), *values)
        entries += struct.pack(order + "HHI", tag, kind, count) + field
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0"


def test_grey_that_is_multiplied_by_its_alpha_is_on_white(tmp_path):
    samples = np.full((4, 4, 2), (30, 64), np.uint8)  # 30 of 64 parts are light
    image = read_bytes(tmp_path, tiff(samples, 8, extra=1))
    assert np.abs(image.astype(int) - (255 - 64 + 30)).max() <= 1


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (1, 0, bytes([0b01000000]), [0], [255, 255, 255, 255]),
        (1, 0, bytes([0b01000000]), [1], [0, 255, 0, 0]),
        (2, 0, bytes([0b00011011]), [1], [0, 255, 170, 255]),
        (4, 0, bytes([0x05, 0xAF]), [5], [0, 255, 170, 255]),
        (8, 0, bytes([0, 5, 170, 255]), [5], [0, 255, 170, 255]),
        (16, 0, struct.pack(">4H", 0, 1285, 43690, 65535), [1285], [0, 255, 170, 255]),
        (8, 2, bytes([0] * 3 + [5] * 3 + [170] * 3 + [9] * 3), [5] * 3, [0, 255, 170, 9]),
        (16, 2, struct.pack(">12H", *[0] * 3, *[1298] * 3, *[43690] * 3, *[2313] * 3),
         [1298] * 3, [0, 255, 170, 9]),
    ],
)  # fmt: skip
def test_a_transparent_colour_is_white_at_any_depth(tmp_path, depth, colour, row, key, expected):
    side = 8 if depth == 1 else 4  # a row is whole bytes
    clear = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    image = read_bytes(tmp_path, png([row] * side, depth, colour, before=clear), side)
    assert image[0, :4, 0].tolist() == expected
    assert np.ptp(image, axis=2).max() == 0


def test_a_transparent_colour_of_a_gif_is_white(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    for transparency, expected in [(None, [10, 20, 30]), (1, [255] * 3), (0, [10, 20, 30])]:
        options = {} if transparency is None else {"transparency": transparency}
        picture.save(tmp_path / "picture.gif", **options)
        assert read(tmp_path / "picture.gif", 4)[0, 0].tolist() == expected


@pytest.mark.parametrize(("mode", "shape"), [("RGBA", (4, 4, 4)), ("LA", (4, 4, 2))])
def test_fourth_values_of_a_tga_that_are_no_opacity_are_left_out(tmp_path, mode, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    pixels[..., -1] = 0
    Image.fromarray(pixels, mode).save(tmp_path / "clear.tga")
    content = bytearray((tmp_path / "clear.tga").read_bytes())
    assert np.all(read(tmp_path / "clear.tga", 4) == 255)
    content[17] &= 0xF0  # no bits of opacity
    (tmp_path / "opaque.tga").write_bytes(content)
    colours = np.repeat(pixels[..., :1], 3, axis=2) if mode == "LA" else pixels[..., :3]
    assert np.array_equal(read(tmp_path / "opaque.tga", 4), colours)


def test_large_transparent_pictures_are_put_on_white_in_bands(tmp_path, monkeypatch):
    pixels = draw(40, 4)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    at_once = read(tmp_path / "picture.png", 40)
    monkeypatch.setattr("transferbench.data.upright.BAND_PIXELS", 130)
    assert np.array_equal(read(tmp_path / "picture.png", 40), at_once)


# --- deep grey and other colours ------------------------------------------------------------------

RAMP = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)
DEEP = RAMP.astype(np.uint16) * 257


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM", "JPEG2000", "ICO"])
def test_grey_of_16_bits_is_scaled(tmp_path, name):
    Image.fromarray(DEEP).save(tmp_path / "picture", name)
    assert np.array_equal(read(tmp_path / "picture", 4)[..., 1], RAMP)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("dtype", "factor", "options", "expected"),
    [
        (np.uint16, 257, {"bits": 16}, RAMP),
        (np.int16, 1, {"bits": 16, "sample_format": 2}, RAMP),
        (np.uint32, 257, {"bits": 32}, RAMP),
        (np.int32, 1, {"bits": 32, "sample_format": 2}, RAMP),
        (np.float32, 1, {"bits": 32, "sample_format": 3}, RAMP),
        (np.float32, 1 / 255, {"bits": 32, "sample_format": 3}, RAMP),
        (np.float32, 257, {"bits": 32, "sample_format": 3}, RAMP),
        (np.float32, 1, {"bits": 32, "sample_format": 3, "photometric": 0}, 255 - RAMP),
    ],
)  # fmt: skip
def test_deep_grey_of_a_tiff_is_scaled(tmp_path, dtype, factor, options, expected, big_endian):
    if big_endian and dtype == np.uint32:
        pytest.skip("Pillow reads no such file")
    samples = (RAMP * np.float64(factor)).astype(dtype)[..., None]
    content = tiff(samples, big_endian=big_endian, **options)
    assert np.array_equal(read_bytes(tmp_path, content)[..., 0], expected)


def test_grey_of_16_bits_may_be_inverted(tmp_path):
    content = tiff(DEEP[..., None], 16, photometric=0)
    assert np.array_equal(read_bytes(tmp_path, content)[..., 0], 255 - RAMP)


def test_white_of_12_bits_is_white(tmp_path):
    values = RAMP.astype(int) * 4095 // 255
    packed = bytearray()
    for a, b in values.reshape(-1, 2):
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    content = tiff(DEEP[..., None], 12).replace(
        DEEP.astype("<u2").tobytes(), bytes(packed) + b"\0" * 8
    )
    assert np.array_equal(read_bytes(tmp_path, content)[..., 0], RAMP)


def test_a_pgm_says_what_is_white(tmp_path):
    content = b"P5 4 4 1023\n" + (RAMP.astype(int) * 1023 // 255).astype(">u2").tobytes()
    assert np.abs(read_bytes(tmp_path, content)[..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("value", [-1.0, 70_000.0, np.nan, np.inf])
def test_values_that_do_not_say_what_is_white_are_refused(tmp_path, value):
    samples = np.ones((4, 4), np.float32)
    samples[1, 2] = value
    Image.fromarray(samples).save(tmp_path / "picture.tif")
    message = r"picture.tif cannot be read \(.*(say what is white: convert it|are not finite)"
    with pytest.raises(DataError, match=message):
        read(tmp_path / "picture.tif", 4)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "1", "L", "RGBX"])
def test_colours_of_every_mode_are_read(tmp_path, mode):
    grey = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    grey.save(tmp_path / "picture.tif")
    assert read(tmp_path / "picture.tif", 4).min() >= 253


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_picture_of_several_is_read(tmp_path, name):
    if name == "AVIF" and ".avif" not in picture_endings():
        pytest.skip("this Pillow reads no AVIF")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "picture", name, save_all=True, append_images=frames[1:])
    red = np.array([255, 0, 0])
    assert np.abs(read(tmp_path / "picture", 16)[8, 8] - red).max() < 15


# --- formats ----------------------------------------------------------------------------------


def test_every_raster_format_of_pillow_is_read():
    before = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".webp"}
    added = {".tiff", ".jfif", ".jpe", ".jp2", ".pnm", ".dib", ".tga", ".mpo", ".apng"}
    assert before | added <= picture_endings()
    assert (".avif" in picture_endings()) == (".avif" in Image.registered_extensions())


def test_what_is_no_picture_by_itself_is_left_out_with_a_reason():
    reasons = unread_endings()
    assert reasons[".eps"] == reasons[".ps"] == "needs Ghostscript"
    assert reasons[".mpg"] == "is a video"
    assert reasons[".pdf"] == reasons[".h5"] == reasons[".wmf"] == "Pillow cannot open it"
    assert not reasons.keys() & picture_endings()


def test_the_content_tells_the_format_not_the_ending(tmp_path):
    Image.fromarray(draw(8)).save(tmp_path / "picture.jpg", "PNG")
    assert np.array_equal(read(tmp_path / "picture.jpg", 8), draw(8))


# --- broken pictures ------------------------------------------------------------------------------


def saved(name, picture=None):
    stream = io.BytesIO()
    (picture or Image.fromarray(draw(32))).save(stream, name)
    return stream.getvalue()


HUGE = (
    png([b"\0"], 8, 0)[:8]
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", b"")
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"not a picture", "its content is broken, or of no picture format that Pillow opens"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "its content is broken, or of no picture f",
        ),
        (saved("PNG")[:-100], "image file is truncated"),
        (saved("JPEG")[:-300], "image file is truncated"),
        (saved("GIF")[:-300], "image file is truncated"),
        (saved("TIFF")[:-500], "."),
        (saved("WEBP")[:-100], "."),
        (HUGE, "Image size .* exceeds limit of .* pixels, could be decompression bomb"),
    ],
)
def test_a_broken_picture_is_named_with_the_reason(tmp_path, content, reason):
    message = rf"^dataset 'image-folder': .*/picture.png cannot be read \({reason}.*\): replace or"
    with pytest.raises(DataError, match=message):
        read_bytes(tmp_path, content)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="it has no pixels"):
        centre_square(Image.new("RGB", (0, 3)), 8)


def test_all_broken_pictures_are_named_at_once(tmp_path):
    Image.fromarray(draw(8)).save(tmp_path / "good.png")
    paths = [tmp_path / "good.png"]
    for index in range(13):
        paths.append(tmp_path / f"{index:02d}.png")
        paths[-1].touch()
    with pytest.raises(DataError, match=r"(?s)00.png .*empty\)\n .*09.png .* and 3 more") as error:
        decode_all(paths, 8)
    assert "good" not in str(error.value)


def test_changed_bytes_give_an_image_or_a_sentence(tmp_path):
    draws = np.random.default_rng(0)
    alpha = Image.fromarray(draw(32, 4))
    originals = [saved(name) for name in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "TGA", "PCX")]
    originals += [saved(name, alpha) for name in ("PNG", "WEBP", "TIFF", "ICO", "JPEG2000", "DDS")]
    refused = []
    for index in range(300):
        content = bytearray(originals[index % len(originals)])
        for _ in range(draws.integers(1, 6)):
            content[draws.integers(0, len(content) if index % 2 else 60)] = draws.integers(256)
        if index % 5 == 0:
            del content[draws.integers(8, len(content)) :]
        try:
            read_bytes(tmp_path, bytes(content), 8)
        except DataError as error:
            refused.append(str(error))
    assert 50 < len(refused) < 250
    assert all("picture.png cannot be read (" in message for message in refused)


@pytest.mark.parametrize("transparent", [None, 0])
def test_what_the_first_frame_of_a_gif_leaves_free_is_white(tmp_path, transparent):
    """A frame of 8 x 8 at the top right of 16 x 16: red above and blue below, blue see-through."""
    frame = Image.new("P", (8, 8), 1)
    frame.putpalette([0, 0, 255, 255, 0, 0])
    frame.paste(0, (0, 4, 8, 8))
    path = tmp_path / "frame.gif"
    frame.save(path, **({} if transparent is None else {"transparency": transparent}))
    content = path.read_bytes()
    at = content.index(struct.pack("<BHHHH", 0x2C, 0, 0, 8, 8))
    descriptor = struct.pack("<BHHHH", 0x2C, 8, 0, 8, 8)
    path.write_bytes(
        content[:6] + struct.pack("<HH", 16, 16) + content[10:at] + descriptor + content[at + 9 :]
    )
    square = read(path, 16)
    red, white, blue = [255, 0, 0], [255, 255, 255], [0, 0, 255]
    assert square[1, 12].tolist() == red
    assert square[6, 12].tolist() == (blue if transparent is None else white)
    for free in ((1, 1), (12, 1), (12, 12)):
        assert square[free].tolist() == white
