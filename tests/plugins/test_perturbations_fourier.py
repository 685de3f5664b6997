"""Phase, amplitude and bands against numpy's transforms in float64."""

import numpy as np
import pytest
import torch
from perturbed_images import perturb, smooth_images

FOURIER = {
    "phase-only": {},
    "amplitude-only": {},
    "amplitude-mix": {"share": 0.7},
    "phase-noise": {"level": 0.4},
    "low-pass": {"radius": 3},
    "high-pass": {"radius": 3},
    "cue-conflict": {"radius": 3},
}
SIDES = [8, 15, 16, 32]


def spectrum(images):
    return np.fft.fft2(np.asarray(images, dtype=np.float64))


def distance_from_mean(height, width):
    """Cycles an image, unshifted, by counting."""
    down = [min(k, height - k) for k in range(height)]
    across = [min(k, width - k) for k in range(width)]
    return np.asarray([[np.hypot(v, u) for u in across] for v in down])


def beyond_mean(values):
    """Without the frequency 0. Shapes: (N, C, H, W) to (N, C, H * W - 1)."""
    return values.reshape(*values.shape[:2], -1)[..., 1:]


def energy(images):
    return (np.abs(beyond_mean(spectrum(images))) ** 2).sum(axis=-1)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", sorted(FOURIER))
def test_the_mean_of_every_channel_stays(name, side):
    images = smooth_images(4, side)
    actual = perturb(name, images, **FOURIER[name])
    torch.testing.assert_close(actual.mean((2, 3)), images.mean((2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(FOURIER))
def test_normalising_the_channels_before_or_after_is_the_same(name):
    images = smooth_images(4, 16)
    mean = torch.tensor([0.3, 0.5, 0.7]).view(1, 3, 1, 1)
    std = torch.tensor([0.1, 0.3, 0.5]).view(1, 3, 1, 1)
    before = perturb(name, (images - mean) / std, **FOURIER[name])
    after = (perturb(name, images, **FOURIER[name]) - mean) / std
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["phase-only", "amplitude-only", "amplitude-mix", "phase-noise"])
@pytest.mark.parametrize("side", SIDES)
def test_what_replaces_only_one_of_the_two_keeps_the_variance(name, side):
    images = smooth_images(4, side)
    params = {"share": 1.0} if name == "amplitude-mix" else FOURIER[name]
    # What an image lacks altogether has no phase, and is given no amplitude.
    np.testing.assert_allclose(energy(perturb(name, images, **params)), energy(images), rtol=5e-3)


@pytest.mark.parametrize("side", SIDES)
def test_phase_only_keeps_the_phases_and_levels_the_amplitudes(side):
    images = smooth_images(4, side)
    old, new = (beyond_mean(spectrum(v)) for v in (images, perturb("phase-only", images)))
    loud = np.abs(old) > 1e-3
    assert loud.mean() > 0.99
    np.testing.assert_allclose(np.angle(new * old.conj())[loud], 0, atol=2e-2)
    expected = np.sqrt((np.abs(old) ** 2).sum(-1, keepdims=True) / loud.sum(-1, keepdims=True))
    np.testing.assert_allclose((np.abs(new) / expected)[loud], 1, rtol=2e-3)


def test_phase_only_gives_no_amplitude_to_rounding_noise():
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::4] = 0.9
    new = np.abs(spectrum(perturb("phase-only", stripes)))[0, 0]
    assert new[1:].max() < 1e-4, "stripes have no frequency along their direction"
    assert new[0, 4] > 1


@pytest.mark.parametrize("side", SIDES)
def test_amplitude_only_keeps_the_amplitudes_and_peaks_in_the_middle(side):
    images = smooth_images(4, side)
    actual = perturb("amplitude-only", images)
    np.testing.assert_allclose(np.abs(spectrum(actual)), np.abs(spectrum(images)), atol=1e-3)
    peaks = actual.flatten(2).argmax(dim=2)
    assert set(peaks.flatten().tolist()) == {side // 2 * side + side // 2}
    moved = perturb("amplitude-only", images.roll((3, 5), dims=(2, 3)))
    torch.testing.assert_close(moved, actual, rtol=0, atol=1e-5)


def test_amplitude_mix_keeps_the_phases_and_takes_the_amplitude_of_a_texture():
    images = smooth_images(200, 32, channels=1)
    old = spectrum(images)
    new, half = (spectrum(perturb("amplitude-mix", images, share=share)) for share in (1, 0.5))
    for mixed in (new, half):
        turn = np.angle(mixed * old.conj())[np.abs(old) > 1e-2]
        np.testing.assert_allclose(turn, 0, atol=2e-2)
    between = (np.abs(old) + np.abs(new)) / 2
    np.testing.assert_allclose(np.abs(half), between, rtol=1e-3, atol=1e-3)
    # The mean power of the textures falls with the square of the frequency.
    radius = beyond_mean(distance_from_mean(32, 32)[None, None])[0, 0]
    power = (beyond_mean(np.abs(new)) ** 2 / energy(images)[..., None]).mean(axis=(0, 1))
    slope, _ = np.polyfit(np.log(radius), np.log(power), 1)
    assert abs(slope + 2) < 0.05


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_the_exponent_of_the_texture_is_a_parameter(exponent):
    images = smooth_images(100, 32, channels=1)
    new = spectrum(perturb("amplitude-mix", images, share=1, exponent=exponent))
    radius = beyond_mean(distance_from_mean(32, 32)[None, None])[0, 0]
    power = (beyond_mean(np.abs(new)) ** 2 / energy(images)[..., None]).mean(axis=(0, 1))
    slope, _ = np.polyfit(np.log(radius), np.log(power), 1)
    assert abs(slope + 2 * exponent) < 0.1


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("level", [0.25, 1.0])
def test_phase_noise_turns_phases_uniformly_up_to_its_level(side, level):
    images = smooth_images(30, side)
    old, new = spectrum(images), spectrum(perturb("phase-noise", images, level=level))
    np.testing.assert_allclose(np.abs(new), np.abs(old), atol=1e-3)
    turn = np.angle(new * old.conj())
    loud = np.abs(old) > 1e-2
    assert np.abs(turn[loud]).max() <= level * np.pi + 1e-3
    # One turn for all channels: relations between the channels stay.
    np.testing.assert_allclose(turn[:, 0][loud.all(1)], turn[:, 2][loud.all(1)], atol=2e-2)
    quarter = np.abs(turn[:, 0, 1 : (side + 1) // 2, 1 : (side + 1) // 2])
    assert abs(quarter.mean() / (level * np.pi) - 0.5) < 0.05


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("radius", [0, 1, 2.5, 6])
def test_bands_are_discs_around_the_mean(side, radius):
    images = smooth_images(3, side)
    low = distance_from_mean(side, side) <= radius
    mean = distance_from_mean(side, side) == 0
    for name, band in (("low-pass", low), ("high-pass", ~low)):
        expected = np.fft.ifft2(spectrum(images) * (band | mean)).real
        actual = perturb(name, images, radius=radius)
        np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_bands_of_a_rectangle():
    images = smooth_images(2, 20)[:, :, :14]
    band = distance_from_mean(14, 20) <= 4
    expected = np.fft.ifft2(spectrum(images) * band).real
    np.testing.assert_allclose(perturb("low-pass", images, radius=4), expected, atol=2e-6)


@pytest.mark.parametrize("side", SIDES)
def test_cue_conflict_keeps_the_layout_and_repaints_the_rest_at_equal_energy(side):
    images = smooth_images(4, side)
    old, new = spectrum(images), spectrum(perturb("cue-conflict", images, radius=2))
    low = distance_from_mean(side, side) <= 2
    np.testing.assert_allclose(new[..., low], old[..., low], atol=1e-3)
    powers = [(np.abs(values[..., ~low]) ** 2).sum(axis=-1) for values in (old, new)]
    np.testing.assert_allclose(powers[1], powers[0], rtol=1e-3)
    turn = np.angle(new * old.conj())[..., ~low]
    assert np.abs(turn).mean() > 1, "the fine structure is the texture's, phase and all"
