"""The common corruptions against Pillow, scipy, matplotlib and the released loops."""

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from perturbed_images import perturb, smooth_images
from PIL import Image
from scipy import ndimage, stats

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._filters import motion_blurred, sampled
from transferbench_plugins.perturbations.corruptions.blurs import disc
from transferbench_plugins.perturbations.corruptions.jpeg import compressed

CPU = torch.device("cpu")
IDS = np.asarray([4, 11])
SEVERITIES = range(1, 6)
# Constants as published, by severity, typed anew from the released code.
C32 = {
    "gaussian-noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot-noise": [500, 250, 100, 75, 50],
    "impulse-noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "speckle-noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian-blur": [0.4, 0.6, 0.7, 0.8, 1],
    "zoom-blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    "defocus-blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "motion-blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "glass-blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    "jpeg": [80, 65, 58, 50, 40],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "elastic": [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6),
                (3.2, 0.96, 0.96)],
    "snow": [(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
             (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
             (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)],
}  # fmt: skip
C224 = {
    "gaussian-noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "shot-noise": [60, 25, 12, 5, 3],
    "impulse-noise": [0.03, 0.06, 0.09, 0.17, 0.27],
    "speckle-noise": [0.15, 0.2, 0.35, 0.45, 0.6],
    "gaussian-blur": [1, 2, 3, 4, 6],
    "zoom-blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    "defocus-blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "motion-blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "glass-blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "saturate": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    "jpeg": [25, 18, 15, 10, 7],
    "pixelate": [0.6, 0.5, 0.4, 0.3, 0.25],
    "elastic": [(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88),
                (29.28, 2.44, 4.88)],
    "snow": [(0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
             (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
             (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)],
}  # fmt: skip


def cases(name, few=SEVERITIES):
    """(side, severity, constant): all severities at 32 px, a few at 224 px."""
    small = [(32, s, C32[name][s - 1]) for s in SEVERITIES]
    return small + [(224, s, C224[name][s - 1]) for s in few]


def at_severities(name, few=SEVERITIES):
    return pytest.mark.parametrize(("side", "severity", "c"), cases(name, few))


def rows(images):
    """float64 NHWC."""
    return images.permute(0, 2, 3, 1).double().numpy()


def check(name, images, severity, expected, atol):
    """``expected``: float64 NHWC."""
    actual = perturb(name, images, seed=5, ids=IDS[: len(images)], severity=severity)
    np.testing.assert_allclose(rows(actual), np.clip(expected, 0, 1), rtol=0, atol=atol)


# --- noise ------------------------------------------------------------------------------------


@at_severities("gaussian-noise", [1, 5])
def test_gaussian_noise_adds_normal_values_of_the_published_deviation(side, severity, c):
    images = smooth_images(2, side)
    drawn = ImageRandom(5, IDS, CPU).normal(3, side, side)
    check("gaussian-noise", images, severity, rows(images) + c * rows(drawn), 1e-6)


@at_severities("speckle-noise", [1, 5])
def test_speckle_noise_grows_with_the_value(side, severity, c):
    images = smooth_images(2, side)
    drawn = ImageRandom(5, IDS, CPU).normal(3, side, side)
    check("speckle-noise", images, severity, rows(images) * (1 + c * rows(drawn)), 1e-6)


@at_severities("shot-noise", [1, 3, 5])
def test_shot_noise_inverts_the_poisson_distribution(side, severity, c):
    images = smooth_images(2, side)[:, :1]
    drawn = rows(ImageRandom(5, IDS, CPU).uniform(1, side, side)) + 2.0**-25
    exact = np.rint(rows(images) * 255) / 255
    check("shot-noise", images, severity, stats.poisson.ppf(drawn, exact * c) / c, 1e-6)


def test_shot_noise_leaves_black_black():
    assert perturb("shot-noise", torch.zeros(2, 1, 32, 32), severity=5).max() == 0


@at_severities("impulse-noise", [1, 5])
def test_impulse_noise_blackens_and_whitens_the_published_share(side, severity, c):
    images = torch.full((40 if side == 32 else 2, 3, side, side), 0.5)
    actual = perturb("impulse-noise", images, severity=severity)
    n = actual.numel()
    for value in (0, 1):
        count = int((actual == value).sum())
        assert stats.binomtest(count, n, c / 2).pvalue > 1e-4
    assert set(actual.unique().tolist()) == {0, 0.5, 1}


# --- blur -------------------------------------------------------------------------------------


@at_severities("gaussian-blur", [1, 5])
def test_gaussian_blur_is_scipys(side, severity, c):
    images = smooth_images(2, side)
    expected = ndimage.gaussian_filter(rows(images), (0, c, c, 0), mode="nearest", truncate=4)
    check("gaussian-blur", images, severity, expected, 2e-6)


@pytest.mark.parametrize(
    ("side", "sigma"), [(8, 0.7), (16, 0.7), (64, 2 * 0.7), (84, 84 / 32 * 0.7), (112, 1.5)]
)
def test_lengths_between_the_published_sizes_are_scaled_with_the_side(side, sigma):
    images = smooth_images(1, side)
    expected = ndimage.gaussian_filter(rows(images), (0, sigma, sigma, 0), mode="nearest")
    check("gaussian-blur", images, 3, expected, 2e-6)


@at_severities("defocus-blur", [1, 3, 5])
def test_defocus_blur_is_a_softened_disc(side, severity, c):
    radius, softness = c
    images = smooth_images(1, side)
    whole = np.zeros((31, 31))
    for y in range(31):
        for x in range(31):
            whole[y, x] = (y - 15) ** 2 + (x - 15) ** 2 <= radius**2
    reach = 1 if radius <= 8 else 2
    soft = ndimage.gaussian_filter(whole, softness, truncate=(reach + 0.25) / softness)
    soft /= soft.sum()
    expected = ndimage.correlate(rows(images)[0], soft[:, :, None], mode="mirror")
    check("defocus-blur", images, severity, expected[None], 3e-6)
    assert disc(radius, softness).sum() == pytest.approx(1)


def smear(image, degrees, radius, sigma):
    """One channel (H, W) along one direction, a pixel at a time."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(degrees)
    result = np.zeros_like(image)
    height, width = image.shape
    for step, weight in zip(steps, weights, strict=True):
        right = int(np.ceil(step * np.cos(turn) - 0.5))
        down = int(np.ceil(step * np.sin(turn) - 0.5))
        ys = np.clip(np.arange(height) + down, 0, height - 1)
        xs = np.clip(np.arange(width) + right, 0, width - 1)
        result += weight * image[ys][:, xs]
    return result


@at_severities("motion-blur", [1, 5])
def test_motion_blur_smears_each_image_in_its_direction(side, severity, c):
    images = smooth_images(2, side)
    degrees = ImageRandom(5, IDS, CPU).uniform().double().numpy() * 90 - 45
    expected = [
        np.stack([smear(channel, turn, *c) for channel in image.double().numpy()], axis=-1)
        for image, turn in zip(images, degrees, strict=True)
    ]
    check("motion-blur", images, severity, np.stack(expected), 2e-6)


def test_motion_of_0_degrees_brings_what_is_on_the_right():
    images = torch.zeros(1, 1, 5, 9)
    images[0, 0, 2, 5] = 1
    actual = motion_blurred(images, torch.zeros(1), 2, 1.0)[0, 0]
    half = np.exp(-(np.arange(5) ** 2) / 2)
    np.testing.assert_allclose(actual[2, 1:6], (half / half.sum())[::-1], rtol=1e-6)
    assert actual.sum() == pytest.approx(1)


@at_severities("zoom-blur", [1, 3])
def test_zoom_blur_is_the_mean_of_the_zooms(side, severity, c):
    stop, step = c
    image = rows(smooth_images(1, side))[0]
    middle = (side - 1) / 2
    zooms = np.arange(1, stop, step)
    total = image.copy()
    for zoom in zooms:
        matrix = np.diag([1 / zoom, 1 / zoom, 1])
        offset = [middle * (1 - 1 / zoom)] * 2 + [0]
        total += ndimage.affine_transform(image, matrix, offset, order=1, mode="mirror")
    check("zoom-blur", smooth_images(1, side), severity, total[None] / (len(zooms) + 1), 2e-5)


@at_severities("glass-blur", [1, 5])
def test_glass_blur_gives_what_the_released_loops_give(side, severity, c):
    sigma, farthest, rounds = c
    images = smooth_images(1, side)
    blurred = ndimage.gaussian_filter(rows(images), (0, sigma, sigma, 0), mode="nearest")[0]
    for turn in range(rounds):
        drawn = ImageRandom(5, IDS[:1], CPU).uniform(2, side * side, stream=turn)[0]
        steps = np.floor(drawn.double().numpy() * 2 * farthest).astype(int) - farthest
        for h in range(side - farthest, farthest, -1):
            for w in range(side - farthest, farthest, -1):
                dy, dx = steps[:, h * side + w]
                # The statement of the released code; on views of a colour image it copies.
                blurred[h, w], blurred[h + dy, w + dx] = blurred[h + dy, w + dx], blurred[h, w]
    expected = ndimage.gaussian_filter(blurred[None], (0, sigma, sigma, 0), mode="nearest")
    check("glass-blur", images, severity, expected, 2e-6)


# --- weather ----------------------------------------------------------------------------------


def clouds(side, decay, seed, image):
    """The diamond-square algorithm a point at a time, on the same draws."""
    heights = np.zeros((side, side))
    step, size, level = side, 100.0, 0

    def fill(points, neighbours, turn):
        count = side // step
        drawn = ImageRandom(seed, np.asarray([image]), CPU).uniform(
            count, count, stream=3 * level + turn
        )
        filled = {}
        for (row, column), u in zip(points, drawn.double().numpy().ravel(), strict=True):
            near = [heights[(row + y) % side, (column + x) % side] for y, x in neighbours]
            filled[row, column] = np.mean(near) + size * (2 * u - 1) * size
        for point, value in filled.items():
            heights[point] = value

    while step >= 2:
        half = step // 2
        whole, middles = range(0, side, step), range(half, side, step)
        diagonal = [(y, x) for y in (-half, half) for x in (-half, half)]
        cross = [(0, half), (0, -half), (half, 0), (-half, 0)]
        fill([(y, x) for y in middles for x in middles], diagonal, 0)
        fill([(y, x) for y in whole for x in middles], cross, 1)
        fill([(y, x) for y in middles for x in whole], cross, 2)
        step, size, level = half, size / decay, level + 1
    heights -= heights.min()
    return heights / heights.max()


@at_severities("fog", [5])
def test_fog_is_a_diamond_square_cloud_for_each_image(side, severity, c):
    thickness, decay = c
    images = smooth_images(2, side) * torch.tensor([0.5, 0.9]).view(2, 1, 1, 1)
    mapped = [clouds(32 if side == 32 else 256, decay, 5, image)[:side, :side] for image in IDS]
    brightest = rows(images).max(axis=(1, 2, 3), keepdims=True)
    foggy = rows(images) + thickness * np.stack(mapped)[..., None]
    check("fog", images, severity, foggy * brightest / (brightest + thickness), 2e-5)


@at_severities("snow", [1, 5])
def test_snow_is_a_smeared_layer_and_its_half_turn_on_a_whitened_scene(side, severity, c):
    mean, deviation, flake, threshold, radius, sigma, weight = c
    images = smooth_images(1, side)
    layer = mean + deviation * ImageRandom(5, IDS[:1], CPU).normal(side, side)[0].double().numpy()
    middle = (side - 1) / 2
    offset = middle * (1 - 1 / flake)
    layer = ndimage.affine_transform(layer, np.eye(2) / flake, offset, order=1, mode="mirror")
    unsure = np.abs(layer - threshold).min()
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    degrees = ImageRandom(5, IDS[:1], CPU).uniform(stream=1).item() * 90 - 135
    layer = smear(layer, degrees, radius, sigma)
    scene = rows(images)
    grey = scene @ [0.299, 0.587, 0.114]
    scene = weight * scene + (1 - weight) * np.maximum(scene, grey[..., None] * 1.5 + 0.5)
    # A flake at its threshold may fall on either side in float32.
    atol = 2e-5 if unsure > 2e-5 else 0.1
    check("snow", images, severity, scene + (layer + layer[::-1, ::-1])[None, ..., None], atol)


# --- colour -----------------------------------------------------------------------------------


@at_severities("contrast")
def test_contrast_pulls_every_channel_to_its_mean(side, severity, c):
    images = smooth_images(2, side)
    means = rows(images).mean(axis=(1, 2), keepdims=True)
    check("contrast", images, severity, (rows(images) - means) * c + means, 1e-6)


def extreme_colours(side):
    """Smooth images with black, white, grey and pure pixels."""
    images = smooth_images(2, side)
    images[:, :, 0, 0], images[:, :, 0, 1], images[:, :, 0, 2] = 0, 1, 0.4
    images[:, :, 0, 3] = torch.tensor([1.0, 0, 0])
    images[:, :, 0, 4] = torch.tensor([0, 1.0, 1.0])
    return images


@at_severities("brightness")
def test_brightness_raises_the_value_of_hsv(side, severity, c):
    images = extreme_colours(side)
    hsv = rgb_to_hsv(rows(images))
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    check("brightness", images, severity, hsv_to_rgb(hsv), 2e-6)


@at_severities("brightness", [3])
def test_brightness_of_grey_images_is_added(side, severity, c):
    images = smooth_images(2, side, channels=1)
    check("brightness", images, severity, rows(images) + c, 1e-6)


@at_severities("saturate")
def test_saturate_scales_the_saturation_of_hsv(side, severity, c):
    images = extreme_colours(side)
    hsv = rgb_to_hsv(rows(images))
    hsv[..., 1] = np.clip(hsv[..., 1] * c[0] + c[1], 0, 1)
    check("saturate", images, severity, hsv_to_rgb(hsv), 5e-6)


def as_pictures(images):
    values = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(v.squeeze()) for v in values]


def test_grayscale_is_pillows_in_all_channels():
    images = smooth_images(3, 16)
    actual = perturb("grayscale", images)
    expected = np.stack([np.asarray(picture.convert("L")) for picture in as_pictures(images)])
    assert torch.equal(actual[:, 0], actual[:, 2])
    np.testing.assert_allclose(actual[:, 1] * 255, expected, rtol=0, atol=0.51)


# --- digital ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "severity", "c"), [*cases("pixelate"), (8, 5, 0.65), (33, 2, 0.9)]
)
def test_pixelate_is_pillows_box_filter_there_and_back(side, severity, c, channels):
    images = smooth_images(2, side, channels)
    fewer, box = int(side * c), Image.Resampling.BOX
    expected = np.stack([
        np.asarray(picture.resize((fewer, fewer), box).resize((side, side), box))
        for picture in as_pictures(images)
    ])  # fmt: skip
    # Pillow rounds to 8 bits after each of the two axes on the way down.
    check("pixelate", images, severity, expected.reshape(2, side, side, -1) / 255, 1.01 / 255)


def saved(picture, quality):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("channels", [1, 3])
@at_severities("jpeg")
def test_jpeg_is_what_pillow_decodes(side, severity, c, channels):
    images = smooth_images(3, side, channels)
    decoded = [saved(picture, c) for picture in as_pictures(images)]
    expected = np.stack(decoded).reshape(3, side, side, channels) / np.float32(255)
    actual = perturb(
        "jpeg", images.contiguous(memory_format=torch.channels_last), severity=severity
    )
    np.testing.assert_array_equal(actual.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("size", [(8, 8), (13, 22), (17, 9), (40, 31)])
@pytest.mark.parametrize("quality", [1, 10, 50, 75, 95, 100])
def test_jpeg_of_noise_of_any_size_and_quality(size, quality):
    values = np.random.default_rng(quality).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    np.testing.assert_array_equal(compressed(values, quality), saved(picture, quality))
    grey = picture.convert("L")
    actual = compressed(np.asarray(grey)[..., None], quality)
    np.testing.assert_array_equal(actual[..., 0], saved(grey, quality))


@at_severities("elastic")
def test_elastic_is_an_affine_map_and_then_a_smooth_displacement(side, severity, c):
    strength, sigma, jitter = c
    images = smooth_images(1, side)
    image = rows(images)[0]
    moves = 2 * ImageRandom(5, IDS[:1], CPU).uniform(3, 2, stream=0)[0].double().numpy() - 1
    middle, reach = side // 2, side // 3
    corners = np.asarray([[middle + reach] * 2, [middle + reach, middle - reach],
                          [middle - reach] * 2])  # fmt: skip
    moved = np.column_stack([corners + jitter * moves, np.ones(3)])
    back = np.linalg.solve(moved, corners)
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    source = np.stack([x, y, np.ones_like(x)], axis=-1) @ back
    places = [source[..., 1], source[..., 0]]
    image = warped(image, places, "mirror")
    if strength:
        noise = (
            2 * ImageRandom(5, IDS[:1], CPU).uniform(2, side, side, stream=1)[0].double().numpy()
            - 1
        )
        shift = [
            strength * ndimage.gaussian_filter(plane, sigma, mode="reflect", truncate=3)
            for plane in noise
        ]
        image = warped(image, [y + shift[1], x + shift[0]], "reflect")
    check("elastic", images, severity, image[None], 2e-3)


def warped(image, places, mode):
    channels = [
        ndimage.map_coordinates(image[..., k], places, order=1, mode=mode)
        for k in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(("about_centres", "mode"), [(True, "mirror"), (False, "reflect")])
def test_sampling_mirrors_beyond_the_border_as_scipy_does(about_centres, mode):
    image = smooth_images(1, 12)
    random = np.random.default_rng(0)
    places = random.uniform(-9, 20, (2, 12, 12))
    columns, down = torch.from_numpy(places).float()[:, None]
    actual = sampled(image, columns, down, about_centres=about_centres)
    expected = warped(rows(image)[0], [places[1], places[0]], mode)
    np.testing.assert_allclose(rows(actual)[0], expected, rtol=0, atol=1e-5)
