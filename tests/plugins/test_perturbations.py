"""The built-in perturbations against their released definitions, written independently."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data.perturbation import compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.errors import SuiteError
from transferbench_plugins.perturbations import transferbench_perturbations
from transferbench_plugins.perturbations.identity import IDENTITY
from transferbench_plugins.perturbations.shuffles.block_shuffle import BLOCK_SHUFFLE
from transferbench_plugins.perturbations.shuffles.channel_shuffle import CHANNEL_SHUFFLE
from transferbench_plugins.perturbations.shuffles.pixel_shuffle import PIXEL_SHUFFLE

ALL_OF_224 = [n for n in range(1, 225) if 224 % n == 0]
NOTHING, ONE = [0.0] * 3, [1.0] * 3


def divisors(side):
    return [n for n in range(1, side + 1) if side % n == 0]


def cut_and_paste(images, block, order):
    """Block j of the result is block ``order[j]`` of the image, row-major; any dtype, NHWC."""
    result = np.empty_like(images)
    across = images.shape[2] // block
    for target, source in enumerate(order):
        y, x = target // across * block, target % across * block
        v, u = source // across * block, source % across * block
        result[:, y : y + block, x : x + block] = images[:, v : v + block, u : u + block]
    return result


def moved(spec, images, seed, image_ids=None, **params):
    """float64 NHWC images under the spec's index map."""
    ids = np.arange(len(images)) if image_ids is None else image_ids
    index = spec.index(spec.parse(params), images.shape[1:], seed, ids)
    flat = images.reshape(len(images), -1)
    return np.take_along_axis(flat, np.broadcast_to(index, flat.shape), 1).reshape(images.shape)


def pipeline(spec, images, seed, mean=NOTHING, std=ONE, image_ids=None, **params):
    compiled = compile_perturbation(spec, spec.parse(params), images.shape[1:], seed)
    return ImagePipeline(torch.from_numpy(images), mean, std, compiled, image_ids=image_ids)


def batch(pipe):
    return pipe.batch(torch.arange(len(pipe))).permute(0, 2, 3, 1).double().numpy()


def noise(count, side, channels=3, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("seed", [0, 1234, 2**32 - 1])
@pytest.mark.parametrize("block", ALL_OF_224)
def test_block_shuffle_is_the_released_one_at_every_divisor_of_224(block, seed):
    order = np.random.RandomState(seed).permutation((224 // block) ** 2)
    places = np.arange(224 * 224 * 3, dtype=np.float64).reshape(1, 224, 224, 3)
    # Block 1 as one fancy index: cutting 50,176 blocks takes a second.
    pixels = places.reshape(-1, 3)
    expected = cut_and_paste(places, block, order) if block > 1 else pixels[order]
    actual = BLOCK_SHUFFLE.index(
        BLOCK_SHUFFLE.parse({"block": block}), (224, 224, 3), seed, np.arange(1)
    )
    np.testing.assert_array_equal(actual[0], expected.reshape(-1))


@pytest.mark.parametrize("block", ALL_OF_224)
def test_batches_of_224_pixels_are_the_released_shuffle_of_normalised_images(block):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    images = noise(2, 224, seed=block)
    order = np.random.RandomState(7).permutation((224 // block) ** 2)
    normal = (images / 255.0 - mean) / std
    expected = (
        normal.reshape(2, -1, 3)[:, order].reshape(normal.shape)
        if block == 1
        else cut_and_paste(normal, block, order)
    )
    actual = batch(pipeline(BLOCK_SHUFFLE, images, 7, mean, std, block=block))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("side", "block", "channels"),
    [(side, block, c) for side in (1, 8, 9, 28, 30) for block in divisors(side) for c in (1, 3)],
)
def test_small_block_shuffles_equal_cut_and_paste(side, block, channels):
    images = noise(3, side, channels).astype(np.float64)
    order = np.random.RandomState(3).permutation((side // block) ** 2)
    expected = cut_and_paste(images, block, order)
    np.testing.assert_array_equal(moved(BLOCK_SHUFFLE, images, 3, block=block), expected)


def test_block_shuffle_of_a_rectangle():
    images = np.random.default_rng(0).random((2, 6, 10, 3))
    order = np.random.RandomState(5).permutation(15)
    expected = cut_and_paste(images, 2, order)
    np.testing.assert_array_equal(moved(BLOCK_SHUFFLE, images, 5, block=2), expected)


def test_a_block_as_large_as_the_image_moves_nothing():
    images = noise(2, 16).astype(np.float64)
    np.testing.assert_array_equal(moved(BLOCK_SHUFFLE, images, 9, block=16), images)


@pytest.mark.parametrize("seed", [0, 1, 1237])
def test_pixel_shuffle_permutes_the_image_flattened_chw(seed):
    images = np.random.default_rng(0).random((4, 6, 10, 3))
    flat = images.transpose(0, 3, 1, 2).reshape(4, -1)
    order = np.random.RandomState(seed).permutation(flat.shape[1])
    expected = flat[:, order].reshape(4, 3, 6, 10).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(moved(PIXEL_SHUFFLE, images, seed), expected)


def test_pixel_shuffle_moves_values_that_were_normalised_where_they_came_from():
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.4, 0.8]
    images = noise(4, 8)
    normal = ((images / 255.0 - mean) / std).transpose(0, 3, 1, 2).reshape(4, -1)
    order = np.random.RandomState(11).permutation(normal.shape[1])
    expected = normal[:, order].reshape(4, 3, 8, 8).transpose(0, 2, 3, 1)
    pipe = pipeline(PIXEL_SHUFFLE, images, 11, mean, std)
    np.testing.assert_allclose(batch(pipe), expected, rtol=0, atol=2e-6)
    wrong = images.transpose(0, 3, 1, 2).reshape(4, -1)[:, order].reshape(4, 3, 8, 8)
    wrong = (wrong.transpose(0, 2, 3, 1) / 255.0 - mean) / std
    assert np.abs(wrong - expected).max() > 1, "the order would not have mattered"


@given(st.integers(0, 2**32 - 1))
def test_channel_shuffle_moves_whole_channels_and_never_none(seed):
    images = noise(2, 4).astype(np.float64)
    actual = moved(CHANNEL_SHUFFLE, images, seed)
    sources = [
        next(c for c in range(3) if (actual[..., target] == images[..., c]).all())
        for target in range(3)
    ]
    assert sorted(sources) == [0, 1, 2]
    assert sources != [0, 1, 2]


def test_channel_shuffle_draws_every_order_but_the_identity():
    drawn = {
        tuple(CHANNEL_SHUFFLE.index(CHANNEL_SHUFFLE.parse({}), (1, 1, 3), seed, np.arange(1))[0])
        for seed in range(60)
    }
    assert len(drawn) == math.factorial(3) - 1


CASES = [
    (IDENTITY, {}),
    (PIXEL_SHUFFLE, {}),
    (CHANNEL_SHUFFLE, {}),
    *(
        (BLOCK_SHUFFLE, {"block": b, "mode": m})
        for b in (1, 2, 3, 6)
        for m in ("fixed", "per-image")
    ),
]


@pytest.mark.parametrize(("spec", "params"), CASES)
@given(seed=st.integers(0, 2**32 - 1), first=st.integers(0, 10**6))
def test_every_map_is_a_permutation_of_int32(spec, params, seed, first):
    actual = spec.index(spec.parse(params), (6, 12, 3), seed, np.arange(first, first + 2))
    assert actual.dtype == np.int32
    assert actual.shape in {(1, 216), (2, 216)}
    np.testing.assert_array_equal(
        np.sort(actual, axis=1), np.broadcast_to(np.arange(216), actual.shape)
    )


@pytest.mark.parametrize(("spec", "params"), CASES)
def test_values_stay_the_inverse_brings_them_back_and_the_input_is_untouched(spec, params):
    images = noise(3, 12)
    before = images.copy()
    pipe = pipeline(spec, images, 4, **params)
    actual = np.rint(batch(pipe) * 255).astype(np.uint8).reshape(3, -1)
    np.testing.assert_array_equal(np.sort(actual), np.sort(before.reshape(3, -1)))
    index = spec.index(spec.parse(params), (12, 12, 3), 4, np.arange(3))
    back = np.take_along_axis(actual, np.broadcast_to(np.argsort(index), actual.shape), axis=1)
    np.testing.assert_array_equal(back, before.reshape(3, -1))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("mode", ["fixed", "per-image"])
@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_runs_say_what_the_index_says(mode, block):
    params = BLOCK_SHUFFLE.parse({"block": block, "mode": mode})
    given_ids = ((8, 16, 3), 6, np.asarray([4, 0, 9]))
    index = BLOCK_SHUFFLE.index(params, *given_ids)
    runs = BLOCK_SHUFFLE.runs(params, *given_ids)
    length = index.shape[1] // runs.shape[1]
    assert length == block * 3
    for image_map, image_runs in zip(index, runs, strict=True):
        spelled = [run * length + offset for run in image_runs for offset in range(length)]
        assert image_map.tolist() == spelled


def test_per_image_block_order_depends_on_the_image_and_the_seed_alone():
    params = BLOCK_SHUFFLE.parse({"block": 2, "mode": "per-image"})

    def index(seed, ids):
        return BLOCK_SHUFFLE.index(params, (12, 12, 3), seed, np.asarray(ids))

    together = index(3, [0, 7, 123_456])
    np.testing.assert_array_equal(index(3, [123_456, 7])[::-1], together[1:])
    assert len(np.unique(np.concatenate([together, index(4, [0, 7])]), axis=0)) == 5


def test_per_image_batches_equal_cut_and_paste_of_each_image():
    images = noise(5, 12)
    ids = np.asarray([3, 1, 4, 15, 9])
    params = {"block": 4, "mode": "per-image"}
    pipe = pipeline(BLOCK_SHUFFLE, images, 8, image_ids=ids, **params)
    actual = np.rint(batch(pipe) * 255)
    places = np.arange(9.0).reshape(1, 3, 3, 1).repeat(4, 1).repeat(4, 2)
    for image, image_id, shuffled in zip(images, ids, actual, strict=True):
        order = moved(BLOCK_SHUFFLE, places, 8, np.asarray([image_id]), **params)[0, ::4, ::4, 0]
        expected = cut_and_paste(image[None], 4, order.astype(int).reshape(-1))[0]
        np.testing.assert_array_equal(shuffled, expected)


def test_per_image_orders_are_uniform():
    params = BLOCK_SHUFFLE.parse({"block": 1, "mode": "per-image"})
    orders = BLOCK_SHUFFLE.index(params, (3, 1, 1), 0, np.arange(60_000))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    # Five degrees of freedom: a fair draw exceeds 20.5 once in a thousand.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 20.5


def test_smaller_blocks_are_stronger_and_the_whole_image_is_the_identity():
    severities = [
        BLOCK_SHUFFLE.severity(BLOCK_SHUFFLE.parse({"block": b}), (224, 224, 3))
        for b in ALL_OF_224[::-1]
    ]
    assert severities[0] == 0
    assert severities == sorted(set(severities))
    assert severities[-1] < PIXEL_SHUFFLE.severity(PIXEL_SHUFFLE.parse({}), (224, 224, 3))
    assert IDENTITY.severity(IDENTITY.parse({}), (224, 224, 3)) == 0


def test_a_block_that_does_not_divide_the_side_lists_those_that_do():
    with pytest.raises(SuiteError) as caught:
        compile_perturbation(BLOCK_SHUFFLE, BLOCK_SHUFFLE.parse({"block": 5}), (28, 28, 3), 0)
    assert str(caught.value) == (
        "perturbation 'block-shuffle' does not fit 28 x 28 x 3 images: "
        "block 5 does not divide the side 28; choose one of 1, 2, 4, 7, 14, 28"
    )


def test_one_channel_cannot_be_shuffled():
    with pytest.raises(SuiteError, match="a single channel cannot be permuted; use images of 3"):
        compile_perturbation(CHANNEL_SHUFFLE, CHANNEL_SHUFFLE.parse({}), (8, 8, 1), 0)


@pytest.mark.parametrize("given_params", [{}, {"block": 0}, {"block": 2, "mode": "random"}])
def test_block_shuffle_refuses_parameters(given_params):
    assert not BLOCK_SHUFFLE.accepts(given_params)


def test_the_table_of_contents_is_sorted_and_every_perturbation_fits_its_tiny_images():
    offered = transferbench_perturbations()
    names = [spec.name for spec in offered]
    assert names == sorted(set(names))
    assert {"block-shuffle", "channel-shuffle", "identity", "pixel-shuffle"} <= set(names)
    for spec in offered:
        compile_perturbation(spec, spec.parse(spec.tiny), (8, 8, 3), 0)
