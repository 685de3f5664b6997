"""Compilation of perturbations, and the plugins and parameters that it refuses."""

import numpy as np
import pytest
import torch

from transferbench.data.perturbation import compile_perturbation
from transferbench.errors import PluginError, SuiteError
from transferbench.specs import NoParams, PerturbationSpec

SHAPE = (4, 4, 3)
VALUES = 48


def spec(index=None, **fields):
    return PerturbationSpec(
        name="fake",
        version=1,
        summary="a fake",
        source="none",
        license="none",
        severity=lambda params, image_shape: 1.0,
        index=index,
        **fields,
    )


def compiled(index=None, **fields):
    return compile_perturbation(spec(index, **fields), NoParams(), SHAPE, 0)


def fixed(index):
    return lambda params, image_shape, seed, image_ids: index


IDENTITY = np.arange(VALUES, dtype=np.int32)[None]


def test_an_identity_map_compiles_to_no_map():
    assert compiled(fixed(IDENTITY)).shared is None


def test_a_shared_map_is_coarsened_to_its_longest_runs():
    halves = IDENTITY.reshape(2, 24)[::-1].reshape(1, -1)
    shared = compiled(fixed(halves)).shared
    assert (shared.length, shared.runs.tolist()) == (24, [[1, 0]])


def test_two_maps_for_two_images_are_maps_per_image():
    def index(_params, _image_shape, _seed, image_ids):
        return np.stack([np.roll(IDENTITY[0], -int(image)) for image in image_ids])

    perturbation = compiled(index)
    assert perturbation.shared is None
    np.testing.assert_array_equal(
        perturbation.per_image(np.asarray([5])).values(), np.roll(IDENTITY, -5, axis=1)
    )


def test_runs_take_precedence_over_index():
    def runs(_params, _image_shape, _seed, image_ids):
        return np.asarray([np.roll(np.arange(4), image) for image in image_ids], dtype=np.int32)

    maps = compiled(fixed(IDENTITY), runs=runs).per_image(np.asarray([0, 1]))
    assert (maps.length, maps.runs.tolist()) == (12, [[0, 1, 2, 3], [3, 0, 1, 2]])


def test_a_shared_map_is_a_copy_of_the_plugins_array():
    array = np.asarray([[1, 0, 3, 2]], dtype=np.int32)
    shared = compiled(fixed(IDENTITY), runs=fixed(array)).shared
    array[:] = 0
    assert shared.runs.tolist() == [[1, 0, 3, 2]]


def test_a_transform_is_built_with_parameters_shape_and_seed():
    def build(_params, image_shape, seed):
        return lambda images, image_ids: images * seed + image_shape[0]

    perturbation = compile_perturbation(spec(build=build, stage="pixels"), NoParams(), SHAPE, 7)
    assert (perturbation.stage, perturbation.name) == ("pixels", "fake")
    assert perturbation.transform(torch.ones(1), np.zeros(1)).item() == 11


def test_parameters_that_do_not_fit_the_images_are_refused():
    with pytest.raises(SuiteError) as caught:
        compiled(fixed(IDENTITY), check=lambda params, image_shape: "too small; use larger ones")
    assert str(caught.value) == (
        "perturbation 'fake' does not fit 4 x 4 x 3 images: too small; use larger ones"
    )


@pytest.mark.parametrize(
    ("index", "description"),
    [
        (IDENTITY.astype(np.int64), "int64 (1, 48)"),
        (IDENTITY[0], "int32 (48,)"),
        (IDENTITY[:, :24], "int32 (1, 24)"),
        (np.repeat(IDENTITY, 3, axis=0), "int32 (3, 48)"),
        (IDENTITY[:, :0], "int32 (1, 0)"),
        ([0, 1], "list (2,)"),
    ],
)
def test_a_map_of_the_wrong_type_or_shape_is_refused(index, description):
    with pytest.raises(PluginError) as caught:
        compiled(fixed(index))
    assert str(caught.value) == (
        f"perturbation 'fake' gave a map of {description}, which must be int32 (1 or 2, 48): "
        "fix the plugin"
    )


def test_runs_must_divide_the_image():
    with pytest.raises(PluginError, match=r"must be int32 \(1 or 2, a divisor of 48\)"):
        compiled(fixed(IDENTITY), runs=fixed(np.arange(7, dtype=np.int32)[None]))


def test_a_map_that_repeats_a_value_is_no_permutation():
    index = IDENTITY.copy()
    index[0, 0] = 1
    with pytest.raises(PluginError, match="'fake' gave a map that is not a permutation: it takes"):
        compiled(fixed(index))


@pytest.mark.parametrize("outside", [-1, VALUES])
def test_a_map_out_of_range_is_refused_also_for_later_images(outside):
    def index(_params, _image_shape, _seed, image_ids):
        maps = np.repeat(IDENTITY, len(image_ids), axis=0)
        maps[image_ids == 9, 0] = outside
        return maps

    perturbation = compiled(index)
    with pytest.raises(PluginError, match=rf"gave a map to .*{outside}.*stay within 0\.\.47"):
        perturbation.per_image(np.asarray([9]))
