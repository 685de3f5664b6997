"""The pipeline against its definition: augment, normalise in float64, then perturb."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data import pipeline as module
from transferbench.data.augmentation import augment, sample_augmentation
from transferbench.data.gather import RunMap, coarsen
from transferbench.data.perturbation import CompiledPerturbation
from transferbench.data.pipeline import ImagePipeline, keep_large_allocations, mixup, normalise
from transferbench.suite import Augmentation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATION = Augmentation(shift=2, flip=True, rotate=10, fill=11)
SIDE, COUNT = 8, 20
VALUES = SIDE * SIDE * 3


def noise(count=COUNT, channels=3, seed=0):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, SIDE, SIDE, channels), dtype=np.uint8)
    return torch.from_numpy(pixels)


def normal(images, mean=MEAN, std=STD):
    """Normalised by the formula, float64 NHWC."""
    return (images.numpy() / 255.0 - np.asarray(mean)) / np.asarray(std)


def nhwc(batch):
    return batch.permute(0, 2, 3, 1).double().numpy()


def order_of(seed, *, keeps_channels, count=1):
    random = np.random.default_rng(seed)
    if keeps_channels:
        pixels = np.stack([random.permutation(SIDE * SIDE) for _ in range(count)])
        return (pixels[:, :, None] * 3 + np.arange(3)).reshape(count, -1)
    return np.stack([random.permutation(VALUES) for _ in range(count)])


def shared(seed=1, stage="normalised", *, keeps_channels=True):
    index = order_of(seed, keeps_channels=keeps_channels)
    return index, CompiledPerturbation("fake", stage, shared=coarsen(index))


def per_image(*, keeps_channels):
    index = order_of(2, keeps_channels=keeps_channels, count=100)
    return index, CompiledPerturbation(
        "fake", "normalised", per_image=lambda image_ids: coarsen(index[image_ids])
    )


def gathered(values, index):
    flat = values.reshape(len(values), -1)
    return np.take_along_axis(flat, np.broadcast_to(index, flat.shape), 1).reshape(values.shape)


def test_a_batch_is_normalised_channels_last_and_in_the_order_of_its_indices():
    images, indices = noise(), torch.tensor([7, 0, 7, 19])
    batch = ImagePipeline(images, MEAN, STD).batch(indices)
    assert batch.shape == (4, 3, SIDE, SIDE)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(nhwc(batch), normal(images[indices]), rtol=0, atol=2e-6)


@given(
    mean=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 2), min_size=3, max_size=3),
)
def test_normalisation_equals_float64(mean, std):
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 1, 3)
    batch = nhwc(ImagePipeline(images, mean, std).batch(torch.arange(256)))
    expected = normal(images, mean, std)
    largest = 1 / min(std) + max(map(abs, mean)) / min(std)
    np.testing.assert_allclose(batch, expected, rtol=0, atol=3e-7 * largest)


def test_normalise_accepts_different_constants_for_each_image():
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (4, 6), generator=random, dtype=torch.uint8)
    scale, shift = torch.rand(2, 4, 6, generator=random)
    out = torch.empty(4, 6)
    normalise(values, (scale, shift), out)
    expected = values.double() * scale.double() + shift.double()
    assert torch.allclose(out.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("keeps_channels", [True, False])
@pytest.mark.parametrize("mean_std", [(MEAN, STD), ((0.5,) * 3, (0.25,) * 3)])
def test_a_shared_map_has_the_result_of_a_map_after_normalisation(keeps_channels, mean_std):
    images = noise()
    index, perturbation = shared(keeps_channels=keeps_channels)
    batch = nhwc(ImagePipeline(images, *mean_std, perturbation).batch(torch.arange(COUNT)))
    expected = gathered(normal(images, *mean_std), index)
    np.testing.assert_allclose(batch, expected, rtol=0, atol=2e-6)


def test_a_map_of_stage_pixels_is_applied_before_normalisation():
    images = noise()
    index, perturbation = shared(stage="pixels", keeps_channels=False)
    batch = nhwc(ImagePipeline(images, MEAN, STD, perturbation).batch(torch.arange(COUNT)))
    expected = normal(torch.from_numpy(gathered(images.numpy(), index)))
    np.testing.assert_allclose(batch, expected, rtol=0, atol=2e-6)
    assert np.abs(batch - gathered(normal(images), index)).max() > 0.1


@pytest.mark.parametrize("keeps_channels", [True, False])
def test_maps_per_image_depend_on_the_image_ids(keeps_channels):
    images, ids = noise(), np.random.default_rng(5).permutation(100)[:COUNT]
    index, perturbation = per_image(keeps_channels=keeps_channels)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, image_ids=ids)
    expected = gathered(normal(images), index[ids])
    batch = nhwc(pipeline.batch(torch.arange(COUNT)))
    np.testing.assert_allclose(batch, expected, rtol=0, atol=2e-6)
    some = torch.tensor([9, 2])
    np.testing.assert_array_equal(nhwc(pipeline.batch(some)), batch[[9, 2]])


def test_image_ids_default_to_positions():
    index, perturbation = per_image(keeps_channels=True)
    images = noise()
    batch = nhwc(ImagePipeline(images, MEAN, STD, perturbation).batch(torch.arange(COUNT)))
    np.testing.assert_allclose(batch, gathered(normal(images), index[:COUNT]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("stage", ["pixels", "normalised"])
def test_a_transform_is_applied_at_its_stage_with_its_image_ids(stage):
    ids, calls = np.arange(50, 50 + COUNT), []

    def transform(batch, image_ids):
        calls.append((batch.dtype, tuple(batch.shape), image_ids.tolist()))
        return (batch**2).contiguous()

    images = noise()
    perturbation = CompiledPerturbation("fake", stage, transform=transform)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, image_ids=ids)
    batch = pipeline.batch(torch.tensor([3, 1]))
    assert calls == [(torch.float32, (2, 3, SIDE, SIDE), [53, 51])]
    some = images[[3, 1]]
    squared = ((some.numpy() / 255.0) ** 2 - np.asarray(MEAN)) / np.asarray(STD)
    expected = squared if stage == "pixels" else normal(some) ** 2
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(nhwc(batch), expected, rtol=0, atol=1e-5)
    assert not pipeline.precompute()


def test_training_images_are_augmented_then_normalised_then_perturbed():
    images, indices = noise(), torch.arange(COUNT)
    index, perturbation = shared(keeps_channels=False)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, AUGMENTATION)
    batch = nhwc(pipeline.batch(indices, torch.Generator().manual_seed(4)))
    params = sample_augmentation(
        AUGMENTATION,
        COUNT,
        (SIDE, SIDE, 3),
        torch.Generator().manual_seed(4),
        torch.device("cpu"),
    )
    augmented = augment(images, params, AUGMENTATION)
    np.testing.assert_allclose(batch, gathered(normal(augmented), index), rtol=0, atol=2e-6)


def test_without_a_generator_nothing_is_augmented():
    images, indices = noise(), torch.arange(COUNT)
    plain = ImagePipeline(images, MEAN, STD).batch(indices)
    with_augmentation = ImagePipeline(images, MEAN, STD, augmentation=AUGMENTATION)
    assert torch.equal(with_augmentation.batch(indices), plain)
    assert not torch.equal(with_augmentation.batch(indices, torch.Generator()), plain)


def test_a_batch_does_not_depend_on_the_chunk_size(monkeypatch):
    images, indices = noise(), torch.randperm(COUNT)
    _, perturbation = per_image(keeps_channels=False)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, AUGMENTATION)
    expected = pipeline.batch(indices, torch.Generator().manual_seed(1))
    monkeypatch.setattr("transferbench.data.gather.CHUNK_BYTES", 3 * VALUES)
    assert torch.equal(pipeline.batch(indices, torch.Generator().manual_seed(1)), expected)


@pytest.mark.parametrize("keeps_channels", [True, False])
def test_precomputed_images_give_equal_batches_without_a_gather(keeps_channels, monkeypatch):
    images, indices = noise(), torch.tensor([4, 4, 17, 0])
    _, perturbation = shared(keeps_channels=keeps_channels)
    original = images.clone()
    pipeline = ImagePipeline(images, MEAN, STD, perturbation)
    before = pipeline.batch(indices)
    assert pipeline.precompute()
    monkeypatch.setattr(module.Gather, "__call__", None)
    assert torch.equal(pipeline.batch(indices), before)
    assert torch.equal(images, original)


def test_maps_per_image_are_precomputed_where_they_keep_channels():
    images, ids = noise(), np.arange(COUNT) + 30
    for keeps_channels in (True, False):
        _, perturbation = per_image(keeps_channels=keeps_channels)
        pipeline = ImagePipeline(images, MEAN, STD, perturbation, image_ids=ids)
        before = pipeline.batch(torch.arange(COUNT))
        assert pipeline.precompute() == keeps_channels
        assert torch.equal(pipeline.batch(torch.arange(COUNT)), before)


def test_nothing_is_precomputed_before_augmentation_or_for_the_identity():
    _, perturbation = shared()
    assert not ImagePipeline(noise(), MEAN, STD, perturbation, AUGMENTATION).precompute()
    assert not ImagePipeline(noise(), MEAN, STD).precompute()


@pytest.mark.parametrize("side", [1, 5, 8])
def test_gray_images_of_any_side(side):
    images = torch.arange(4 * side * side, dtype=torch.uint8).view(4, side, side, 1)
    halves = CompiledPerturbation(
        "fake", "normalised", shared=RunMap(np.arange(side * side)[::-1][None], 1)
    )
    batch = nhwc(ImagePipeline(images, (0.5,), (0.5,), halves).batch(torch.arange(4)))
    expected = normal(images, (0.5,), (0.5,)).reshape(4, -1)[:, ::-1].reshape(images.shape)
    np.testing.assert_allclose(batch, expected, rtol=0, atol=1e-6)


def test_a_pipeline_of_a_slice_of_images_has_its_length_and_images():
    images = noise()
    part = ImagePipeline(images[5:12], MEAN, STD)
    assert len(part) == 7
    full = ImagePipeline(images, MEAN, STD)
    assert torch.equal(part.batch(torch.tensor([1])), full.batch(torch.tensor([6])))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixup_mixes_images_and_targets_with_the_same_weight_and_partner(layout):
    images = torch.rand(16, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=layout)
    targets = torch.eye(16, dtype=torch.float64)
    mixed, soft = mixup(images, targets, 0.7, torch.Generator().manual_seed(2))
    # With one-hot targets the soft targets are the mixing matrix itself.
    expected = (soft @ images.reshape(16, -1)).view(16, 3, 4, 4)
    assert torch.allclose(mixed, expected)
    assert mixed.is_contiguous(memory_format=layout)
    weight = soft.diagonal().min()
    assert 0 < weight < 1
    partners = (soft - weight * torch.eye(16)) / (1 - weight)
    ones = torch.ones(16, dtype=torch.float64)
    assert torch.allclose(partners, partners.round())
    assert torch.allclose(partners.sum(0), ones)
    assert torch.allclose(partners.sum(1), ones)


def test_mixup_weights_are_beta_distributed():
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.zeros(3, 1, 1, 1), torch.eye(3)
    weights = []
    for _ in range(3000):
        _, soft = mixup(images, targets, 0.7, generator)
        partners = soft[~torch.eye(3, dtype=torch.bool)]
        if partners.max() > 0:
            weights.append(1 - partners.max().item())
    variance = 0.7 * 0.7 / ((1.4**2) * 2.4)
    assert abs(np.mean(weights) - 0.5) < 0.03
    assert abs(np.var(weights) - variance) < 0.01


def test_mixup_is_reproduced_by_its_generator():
    images, targets = torch.rand(8, 3, 4, 4), torch.eye(8)
    before = torch.get_rng_state()
    (first, _), (again, _) = (
        mixup(images, targets, 0.7, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


FAULTS = """
import resource, torch
from transferbench.data.pipeline import keep_large_allocations

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = [faults() for _ in range(10)]
supported = keep_large_allocations()
# The first few fill the memory pool.
afterwards = [faults() for _ in range(20)][10:]
print(supported, sum(default), sum(afterwards))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is part of glibc")
def test_freed_memory_stays_with_the_process():
    command = [sys.executable, "-c", FAULTS]
    result = subprocess.run(command, capture_output=True, check=True)  # our own code
    supported, default, afterwards = result.stdout.split()
    assert supported == b"True"
    assert int(afterwards) < int(default) / 4


def test_other_platforms_are_not_supported(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_allocations() is False
