"""Batched augmentation against the definitions, applied to one image at a time."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from transferbench.data.augmentation import augment, sample_augmentation
from transferbench.suite import Augmentation

CPU = torch.device("cpu")
SHAPE = (12, 12, 3)
ALL = Augmentation(
    shift=2,
    flip=True,
    rotate=20,
    translate=0.1,
    scale=(0.8, 1.2),
    random_resized_crop=(0.3, 1.0),
    fill=7,
)


def some_images(count=16, shape=SHAPE, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (count, *shape), dtype=np.uint8))


def params_of(augmentation, count=16, shape=SHAPE, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return sample_augmentation(augmentation, count, shape, generator, CPU)


def interpolated(image, x, y, fill):
    """Bilinear in float64 at pixel coordinates; outside ``fill``, or None: the border repeats."""
    height, width, channels = image.shape
    if fill is None:
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    total = np.zeros(channels)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            inside = 0 <= row < height and 0 <= column < width
            outside = 0.0 if fill is None else float(fill)
            total += weight * (image[row, column] if inside else outside)
    return total


def warped(image, warp, fill):
    height, width, _ = image.shape
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            position = np.asarray([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1.0])
            x, y = warp @ position
            result[row, column] = interpolated(
                image, ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2, fill
            )
    return result


@pytest.mark.parametrize("shape", [(12, 12, 3), (7, 9, 1), (8, 5, 3)])
def test_shift_and_flip_equal_slices_of_the_padded_image(shape):
    augmentation = Augmentation(shift=3, flip=True, fill=9)
    images, params = some_images(40, shape), params_of(augmentation, 40, shape)
    augmented = augment(images, params, augmentation)
    height, width, _ = shape
    for i, image in enumerate(images.numpy()):
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), constant_values=9)
        y, x = params.offset[i].tolist()
        expected = padded[y : y + height, x : x + width]
        expected = expected[:, ::-1] if params.flip[i] else expected
        np.testing.assert_array_equal(augmented[i].numpy(), expected)


@pytest.mark.parametrize(
    ("augmentation", "fill"),
    [
        (Augmentation(random_resized_crop=(0.1, 0.9)), None),
        (Augmentation(rotate=30, translate=0.2, scale=(0.7, 1.3), fill=50), 50),
        (Augmentation(rotate=10, random_resized_crop=(0.2, 0.9), fill=50), 50),
    ],
)
def test_warps_equal_bilinear_interpolation_of_single_pixels(augmentation, fill):
    images, params = some_images(6), params_of(augmentation, 6)
    augmented = augment(images, params, augmentation).numpy().astype(float)
    for i, image in enumerate(images.numpy()):
        expected = warped(image, params.warp[i].double().numpy(), fill)
        # Rounded to 8 bits; 0.01 for float32 coordinates.
        assert np.abs(augmented[i] - expected).max() <= 0.51


def torchvision_affine(image, warp):
    """torchvision's affine of one image, with the parameters of this warp."""
    linear, offset = warp[:, :2].double(), warp[:, 2].double()
    side = image.shape[1]
    angle = torch.rad2deg(torch.atan2(linear[0, 1], linear[0, 0])).item()
    translate = (-(linear.inverse() @ offset) * side / 2).tolist()
    scale = (1 / linear.det().sqrt()).item()
    bilinear = v2.InterpolationMode.BILINEAR
    return functional.affine(
        image, angle, translate, scale, [0.0, 0.0], interpolation=bilinear, fill=0
    )


def test_affine_transforms_equal_torchvision():
    augmentation = Augmentation(rotate=40, translate=0.2, scale=(0.8, 1.4))
    images = some_images(8, (24, 24, 3))
    params = params_of(augmentation, 8)
    augmented = augment(images, params, augmentation).permute(0, 3, 1, 2)
    for image, warp, ours in zip(images.permute(0, 3, 1, 2), params.warp, augmented, strict=True):
        # Where a pixel lies half outside, torchvision weights the image twice.
        inside = torchvision_affine(torch.full_like(image, 255), warp) == 255
        assert inside.float().mean() > 0.3
        error = (ours.int() - torchvision_affine(image, warp).int()).abs()
        assert error[inside].max() <= 1


def test_sampled_affine_transforms_are_inverse_similarities_within_their_bounds():
    augmentation = Augmentation(rotate=20, translate=0.1, scale=(0.8, 1.25))
    warp = params_of(augmentation, 4000).warp.double()
    linear, offset = warp[:, :, :2], warp[:, :, 2]
    scale = 1 / linear.det().sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 0, 0]))
    translate = -(linear.inverse() @ offset[:, :, None])[:, :, 0]
    for values, low, high in ((scale, 0.8, 1.25), (angle, -20, 20), (translate, -0.2, 0.2)):
        assert low - 1e-5 <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high + 1e-5
    assert torch.allclose(linear[:, 0, 0], linear[:, 1, 1])
    assert torch.allclose(linear[:, 0, 1], -linear[:, 1, 0])


def test_a_rotation_of_a_rectangle_keeps_right_angles():
    wide = params_of(Augmentation(rotate=45), 50, (10, 30, 3)).warp[:, :, :2].double()
    to_pixels = torch.diag(torch.tensor([15.0, 5.0], dtype=torch.float64))
    pixels = to_pixels @ wide @ to_pixels.inverse()
    identity = torch.eye(2, dtype=torch.float64).expand_as(pixels)
    assert torch.allclose(pixels @ pixels.transpose(1, 2), identity, atol=1e-6)


def test_crops_are_at_integer_pixels_with_area_and_ratio_within_bounds():
    shape = (40, 40, 3)
    warp = params_of(Augmentation(random_resized_crop=(0.2, 0.6)), 4000, shape).warp.double()
    wide, high = warp[:, 0, 0] * 40, warp[:, 1, 1] * 40
    left, top = (warp[:, 0, 2] * 40 + 40 - wide) / 2, (warp[:, 1, 2] * 40 + 40 - high) / 2
    for values in (wide, high, left, top):
        assert (values - values.round()).abs().max() < 1e-4
    assert left.min() > -1e-4
    assert (left + wide).max() < 40 + 1e-4
    assert (top + high).max() < 40 + 1e-4
    area, ratio = wide * high / 1600, wide / high
    assert 0.18 < area.min() < 0.23
    assert 0.57 < area.max() < 0.62
    assert 0.7 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.42


def test_a_crop_that_never_fits_is_the_full_image():
    # A third of the area at a ratio of 3/4 or more is higher than an image 1 pixel high.
    shape = (1, 64, 3)
    warp = params_of(Augmentation(random_resized_crop=(0.9, 1.0)), 50, shape).warp
    assert torch.allclose(warp, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(50, 2, 3))


def test_offsets_and_flips_are_uniform():
    params = params_of(Augmentation(shift=2, flip=True), 20_000)
    for column in params.offset.T:
        fraction = torch.bincount(column, minlength=5) / 20_000
        assert (fraction - 0.2).abs().max() < 0.015
    assert abs(params.flip.float().mean().item() - 0.5) < 0.015


def test_augmentations_that_are_off_are_not_sampled():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    params = sample_augmentation(Augmentation(fill=3), 4, SHAPE, generator, CPU)
    assert params == (None, None, None)
    assert torch.equal(generator.get_state(), before)


def test_an_image_depends_only_on_its_own_parameters():
    images, params = some_images(16), params_of(ALL)
    expected = augment(images, params, ALL)
    parts = [
        augment(images[rows], params.chunk(rows), ALL)
        for rows in (slice(0, 5), slice(5, 6), slice(6, 16))
    ]
    assert torch.equal(torch.cat(parts), expected)


def test_augmentation_is_reproduced_by_its_seed_and_not_in_place():
    images = some_images()
    original = images.clone()
    first, again = (augment(images, params_of(ALL), ALL) for _ in range(2))
    other = augment(images, params_of(ALL, seed=4), ALL)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, original)
