"""Images stored larger than the input, and pictures that are not square."""

import math

import numpy as np
import pytest
import torch
from command_line import SMALL, cli, suite_file
from noise_pictures import noise_pictures
from PIL import Image
from test_augmentation import interpolated, some_images
from test_items import Listing, items_spec

from transferbench.data.augmentation import augment, central, sample_augmentation
from transferbench.data.cache import StoredForm, prepare
from transferbench.data.pictures import decode
from transferbench.data.pipeline import ImagePipeline, View
from transferbench.suite import Augmentation

CPU = torch.device("cpu")
STORED, SIZE = 12, 8
CROP = Augmentation(random_resized_crop=(0.3, 1.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- pictures ---------------------------------------------------------------------------------


def ramp(width, height, across):
    """Grey levels that rise by 2 a pixel along one axis."""
    rows, columns = np.indices((height, width))
    return (2 * (columns if across else rows)).astype(np.uint8)


def test_a_padded_picture_is_all_of_it_on_black():
    pixels, aspect = decode(np.full((10, 20, 3), 200, np.uint8), 10, "pad")
    assert aspect == 1
    expected = np.zeros((10, 10, 3))
    expected[2:7] = 200  # 20 x 10 becomes 10 x 5
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (30, 30), (61, 20)])
def test_a_whole_picture_keeps_its_content_and_its_aspect(width, height):
    source = ramp(width, height, across=True)
    pixels, aspect = decode(source, 20, "whole")
    assert aspect == pytest.approx(width / height)
    resized = Image.fromarray(source).resize((20, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[..., 0], np.asarray(resized))


@pytest.mark.parametrize(("width", "height"), [(80, 40), (40, 80), (50, 50), (100, 40)])
@pytest.mark.parametrize("across", [True, False])
def test_the_centre_of_a_distorted_picture_is_that_of_the_picture(width, height, across):
    source, side = ramp(width, height, across), min(width, height)
    pixels, aspect = decode(source, side, "whole")
    size = side // 2
    centre = central(torch.tensor(pixels)[None], size, torch.tensor([aspect]).double())[0]
    top, left = (height - size) // 2, (width - size) // 2
    expected = source[top : top + size, left : left + size].astype(int)
    assert np.abs(centre[..., 0].numpy().astype(int) - expected).max() <= 2


@pytest.mark.parametrize("fit", ["pad", "whole"])
def test_a_fit_is_part_of_the_data(tmp_path, fit):
    forms = [StoredForm(SIZE, 3), StoredForm(SIZE, 3, fit)]
    data = [prepare(items_spec(), {}, form, cache=tmp_path, data_root=None) for form in forms]
    assert data[0].fingerprint != data[1].fingerprint
    aspects = data[1].splits["train"].aspects
    assert data[0].splits["train"].aspects is None
    if fit == "pad":
        assert aspects is None
    else:
        assert aspects == pytest.approx(np.full(len(aspects), 9 / 12))


def test_other_aspects_of_equal_pixels_are_other_data(tmp_path):
    shapes = {"tall": (12, 6), "wide": (6, 12)}
    prints = set()
    for name, shape in shapes.items():
        listing = Listing(lambda array, shape=shape: np.full((*shape, 3), array[0, 0, 0], np.uint8))
        form = StoredForm(SIZE, 3, "whole")
        data = prepare(items_spec(listing), {}, form, cache=tmp_path / name, data_root=None)
        prints.add(data.fingerprint)
    assert len(prints) == 2


# --- inputs -----------------------------------------------------------------------------------


def pipeline(images, augmentation=None, aspects=None, size=SIZE):
    return ImagePipeline(images, [0.5] * 3, [0.2] * 3, None, augmentation,
                         view=View(size, aspects))  # fmt: skip


@pytest.mark.parametrize("augmentation", [None, CROP, Augmentation(flip=True)])
def test_networks_see_the_centre_of_what_is_stored(augmentation):
    images = some_images(5, (STORED, STORED, 3))
    centre = images[:, 2:10, 2:10].contiguous()
    order = torch.tensor([3, 0, 4])
    batch = pipeline(images, augmentation).batch(order)
    assert torch.equal(batch, pipeline(centre).batch(order))


def test_augmentation_without_a_crop_is_that_of_the_centre():
    images = some_images(5, (STORED, STORED, 3))
    augmentation, order = Augmentation(shift=1, flip=True, rotate=10), torch.arange(5)
    batch = pipeline(images, augmentation).batch(order, generator())
    centre = pipeline(images[:, 2:10, 2:10].contiguous(), augmentation)
    assert torch.equal(batch, centre.batch(order, generator()))


@pytest.mark.parametrize("aspect", [None, 1.5, 0.5])
def test_crops_are_taken_from_all_that_is_stored(aspect):
    images = some_images(6, (STORED, STORED, 3))
    aspects = None if aspect is None else torch.full((6,), aspect, dtype=torch.float64)
    shape = (STORED, STORED, 3)
    params = sample_augmentation(CROP, 6, shape, generator(), CPU, aspects)
    crops = augment(images, params, CROP, SIZE)
    assert crops.shape == (6, SIZE, SIZE, 3)
    for image, warp, crop in zip(images.numpy(), params.warp.double().numpy(), crops, strict=True):
        for row, column in [(0, 0), (3, 5), (7, 7)]:
            ends = np.array([(2 * column + 1) / SIZE - 1, (2 * row + 1) / SIZE - 1, 1.0])
            x, y = ((warp @ ends + 1) * STORED - 1) / 2
            expected = interpolated(image, x, y, None)
            assert np.abs(crop[row, column].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.4])
def test_the_area_and_the_ratio_of_crops_are_those_of_the_picture(aspect):
    """Not those of the distorted image: a crop of 4:3 is one of what the picture shows."""
    count, side = 2000, 200
    aspects = torch.full((count,), aspect, dtype=torch.float64)
    params = sample_augmentation(CROP, count, (side, side, 3), generator(), CPU, aspects)
    width, height = side * max(aspect, 1), side * max(1 / aspect, 1)
    wide, high = params.warp[:, 0, 0] * width, params.warp[:, 1, 1] * height
    area, ratio = wide * high / (width * height), wide / high
    assert area.min() > 0.29
    inner = ratio[area < 0.999].log()  # elsewhere none of ten crops fitted
    assert len(inner) > 0.8 * count
    assert abs(inner).max() < math.log(4 / 3) + 0.03
    left = params.warp[:, 0, 2] - params.warp[:, 0, 0]
    assert left.min() >= -1 - 1e-6
    assert (params.warp[:, 0, 2] + params.warp[:, 0, 0]).max() <= 1 + 1e-6


# --- suites -----------------------------------------------------------------------------------


def test_what_is_stored_holds_the_input(tmp_path):
    path = suite_file(tmp_path, SMALL, image=SMALL["image"] | {"stored": 7})
    said = cli("validate", path)
    assert said.code == 2
    assert "stored 7 is smaller than size" in said.err


def test_a_suite_trains_on_crops_of_whole_pictures(tmp_path):
    noise_pictures(tmp_path / "data", {"train": 6, "test": 3}, "ab", size=20)
    for path in (tmp_path / "data").rglob("*.png"):
        with Image.open(path) as picture:
            wide = picture.resize((20, 12))
        wide.save(path)
    dataset = {"name": "image-folder", "params": {"train": "train", "test": "test"}}
    target = SMALL["targets"]["handwriting"] | {"dataset": dataset, "labels_per_class": 2}
    recipes = {
        label: recipe | {"augmentation": {"random_resized_crop": [0.3, 1.0]}}
        for label, recipe in SMALL["recipes"].items()
    }
    image = SMALL["image"] | {"stored": 12, "fit": "whole"}
    path = suite_file(tmp_path, SMALL, image=image, targets={"handwriting": target},
                      recipes=recipes)  # fmt: skip
    said = cli("run", path, "--data-root", tmp_path / "data", "--out", tmp_path / "runs" / "run",
               "--jobs", 1)  # fmt: skip
    assert said.code == 0, said
    assert len(list((tmp_path / "runs" / "store" / "datasets").glob("*/train.aspects"))) == 1
