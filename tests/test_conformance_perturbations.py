"""A bad plugin for each check of a perturbation."""

import contextlib
import os
import random
import socket

import numpy as np
import pytest
import torch
from conforming import FADE, FLIP, NOISE, altered, failure, flipped, names_of

from transferbench.conformance.perturbations import CHECKS


def giving(apply):
    """A builder of one function of the images."""
    return {"build": lambda params, image_shape, seed: lambda images, image_ids: apply(images)}


def doubled(params, image_shape, seed):
    return lambda images, image_ids: images.mul_(0.5)


def by_the_batch(params, image_shape, seed):
    return lambda images, image_ids: images - images.mean(dim=0) * params.strength


def by_position(params, image_shape, seed):
    """The first image of a batch is darker."""

    def apply(images, image_ids):
        dark = images.clone()
        dark[0] *= 0.5
        return dark

    return apply


def without_a_seed(params, image_shape, seed):
    def apply(images, image_ids):
        drawn = np.random.default_rng().standard_normal(images.shape)
        return images + torch.from_numpy(drawn).float()

    return apply


def ignoring_the_seed(params, image_shape, seed):
    def apply(images, image_ids):
        drawn = [np.random.default_rng(i).standard_normal(images.shape[1:]) for i in image_ids]
        return images + torch.from_numpy(np.stack(drawn)).float()

    return apply


def with_an_environment(params, image_shape, seed):
    os.environ["OMP_NUM_THREADS"] = "64"
    return lambda images, image_ids: images * (1 - params.strength)


def with_a_global_draw(params, image_shape, seed):
    torch.rand(1)
    random.random()
    return lambda images, image_ids: images * 0.5


def downloading(params, image_shape, seed):
    with contextlib.suppress(OSError):  # a silent fallback
        socket.getaddrinfo("textures.example.org", 443)
    return lambda images, image_ids: images * 0.5


def up_to_16_px(params, image_shape, seed):
    if image_shape[0] not in {8, 16, 32}:
        raise ZeroDivisionError("no such size")
    return lambda images, image_ids: images * 0.5


def cropping_odd_sides(params, image_shape, seed):
    height, width = (side // 2 * 2 for side in image_shape[:2])
    return lambda images, image_ids: images[..., :height, :width] * 0.5


def twice_the_first(params, image_shape, seed, image_ids):
    index = flipped(params, image_shape, seed, image_ids)
    index[0, 1] = index[0, 0]
    return index


def printing(params, image_shape, seed):
    print("hello")  # noqa: T201  # what is caught
    return FADE.build(params, image_shape, seed)


BAD = {
    "a builder that prints": (
        FADE,
        {"build": printing},
        "nothing-is-printed",
        "it printed 'hello'; take the print out, or use logging",
    ),
    "no size fits": (
        FADE,
        {"check": lambda params, image_shape: "never"},
        "it-fits-some-images",
        "check refuses grey and colour images of 8, 16, 32, 64, 96, 224 px (never); give tiny",
    ),
    "it applies to nothing": (
        FADE,
        {"applies_to": frozenset()},
        "it-fits-some-images",
        "applies_to is empty; name train-and-test, test-only or both",
    ),
    "a builder that raises": (
        FADE,
        {"build": lambda params, image_shape, seed: params.no_such_field},
        "shape-type-and-range-are-kept",
        "it raised AttributeError: 'Strength' object has no attribute 'no_such_field'",
    ),
    "an array for a tensor": (
        FADE,
        giving(lambda images: images.numpy()),
        "shape-type-and-range-are-kept",
        "it returned ndarray for a batch; return a tensor",
    ),
    "grey out of colour": (
        FADE,
        giving(lambda images: images.mean(dim=1)),
        "shape-type-and-range-are-kept",
        "torch.float32 (8, 1, 16, 16) became torch.float32 (8, 16, 16); return the shape",
    ),
    "doubles": (
        FADE,
        giving(lambda images: images.double()),
        "shape-type-and-range-are-kept",
        "became torch.float64 (8, 1, 16, 16); return the shape and the type of the input",
    ),
    "a division by zero": (
        FADE,
        giving(lambda images: images / 0),
        "shape-type-and-range-are-kept",
        "it returned values that are not finite; guard divisions",
    ),
    "pixels above white": (
        FADE,
        giving(lambda images: images + 1),
        "shape-type-and-range-are-kept",
        "; clamp the result to [0, 1]",
    ),
    "a map that takes a value twice": (
        FLIP,
        {"index": twice_the_first, "runs": None},
        "the-map-is-a-permutation",
        "the map takes some values twice and leaves others out; return a permutation",
    ),
    "a map of int64": (
        FLIP,
        {"index": lambda *arguments: flipped(*arguments).astype(np.int64), "runs": None},
        "the-map-is-a-permutation",
        "index returned int64 (1, 256) for 3 images of 256 values; return int32 (1, 256)",
    ),
    "a map beyond the image": (
        FLIP,
        {"index": lambda *arguments: flipped(*arguments) + np.int32(1), "runs": None},
        "the-map-is-a-permutation",
        "index points to 1..256; stay within the image: 0..255",
    ),
    "runs that say something else": (
        FLIP,
        {"runs": lambda *arguments: flipped(*arguments)[:, ::-1].copy()},
        "runs-say-what-the-index-says",
        "runs and index move values to different places; make index from runs",
    ),
    "runs of no length": (
        FLIP,
        {"runs": lambda *arguments: flipped(*arguments)[:, :-1].copy()},
        "runs-say-what-the-index-says",
        "runs are int32 (1, 255); return int32 (M, R) with an R that divides 256",
    ),
    "in place": (
        FADE,
        {"build": doubled},
        "the-input-is-left-untouched",
        "; clone it first, or leave out the underscore of an in-place call",
    ),
    "the mean of the batch": (
        NOISE,
        {"build": by_the_batch},
        "an-image-does-not-depend-on-its-batch",
        "; use nothing but the image, its id in image_ids and the seed",
    ),
    "the position in the batch": (
        NOISE,
        {"build": by_position},
        "an-image-does-not-depend-on-its-batch",
        "; use nothing but the image, its id in image_ids and the seed",
    ),
    "draws without a seed": (
        NOISE,
        {"build": without_a_seed},
        "the-same-seed-gives-the-same-images",
        "two calls with one seed differ by up to",
    ),
    "draws by the id alone": (
        NOISE,
        {"build": ignoring_the_seed},
        "another-seed-gives-other-draws",
        "on the ids of images, but are the same for seeds (3, 4, 5); make the generator from both",
    ),
    "global generators": (
        FADE,
        {"build": with_a_global_draw},
        "global-randomness-is-untouched",
        "the global generator of torch and random was moved; draw from a generator made from",
    ),
    "a variable of the environment": (
        FADE,
        {"build": with_an_environment},
        "what-everybody-shares-is-kept",
        "os.environ['OMP_NUM_THREADS'] was set or removed; set it in a with block that restores",
    ),
    "a download": (
        FADE,
        {"build": downloading},
        "no-network-is-used",
        "it tried to reach textures.example.org on the network; ship what it needs with the plugin",
    ),
    "a severity below 0": (
        FADE,
        {"severity": lambda params, image_shape: -1.0},
        "severity-is-a-number-from-0",
        "severity is -1.0; return a finite float: 0 is the identity, larger is stronger",
    ),
    "a severity in words": (
        FADE,
        {"severity": lambda params, image_shape: "strong"},
        "severity-is-a-number-from-0",
        "severity is 'strong'; return a finite float: 0 is the identity",
    ),
    "an identity to rounding": (
        FADE,
        {**giving(lambda images: images * 0.999), "severity": lambda params, image_shape: 0.0},
        "severity-0-is-the-identity",
        "Strength(strength=0.5) has severity 0 and changes images by up to",
    ),
    "a setting that does nothing": (
        FADE,
        giving(lambda images: images.clone()),
        "a-severity-above-0-changes-images",
        (
            "Strength(strength=0.5) has severity 0.5 and changes nothing on images of (16, 16, 1); "
            "give it severity 0"
        ),
    ),
    "severity the wrong way round": (
        FADE,
        {"severity": lambda params, image_shape: 1 - params.strength},
        "images-move-further-as-severity-grows",
        "; reverse severity, or declare severity_is_distance=False and say why",
    ),
    "a size that raises": (
        FADE,
        {"build": up_to_16_px},
        "what-does-not-fit-is-refused-in-words",
        "check accepts images of (1, 1, 1), which then fail: ZeroDivisionError: no such size",
    ),
    "odd sides cropped": (
        FADE,
        {"build": cropping_odd_sides},
        "what-does-not-fit-is-refused-in-words",
        "check accepts images of (1, 1, 1), and the result is of (2, 1, 0, 0); let check refuse",
    ),
    "a refusal without words": (
        FADE,
        {"check": lambda params, image_shape: None if image_shape[0] % 8 == 0 else True},
        "what-does-not-fit-is-refused-in-words",
        "check returned True at (1, 1, 1); return a sentence, or None",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_each_bad_perturbation_is_caught_with_advice(bad):
    good, changes, check, words = BAD[bad]
    assert words in failure(altered(good, **changes), check)


def test_every_check_fails_for_a_bad_plugin():
    """But for CUDA, which has a test of its own that needs a device."""
    failing = {check for *_, check, _ in BAD.values()}
    assert failing == names_of(CHECKS) - {"cpu-and-cuda-agree"}


@pytest.mark.gpu
def test_draws_of_the_device_are_caught():
    def build(params, image_shape, seed):
        def apply(images, image_ids):
            generator = torch.Generator(images.device).manual_seed(seed)
            return images + torch.randn(images.shape, generator=generator, device=images.device)

        return apply

    message = failure(altered(NOISE, build=build), "cpu-and-cuda-agree")
    assert "; draw on the CPU and copy the draws to the device" in message
