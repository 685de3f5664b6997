"""The pipeline against its meaning: augment, normalise in float64, then perturb, step by step."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data import pipeline as module
from transferbench.data.augmentation import augment, draw
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
    """float64 NHWC, the formula itself."""
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
    found = CompiledPerturbation(
        "fake", "normalised", per_image=lambda image_ids: coarsen(index[image_ids])
    )
    return index, found


def gathered(values, index):
    flat = values.reshape(len(values), -1)
    return np.take_along_axis(flat, np.broadcast_to(index, flat.shape), 1).reshape(values.shape)


def test_a_batch_is_normalised_channels_last_and_in_the_asked_order():
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
def test_normalisation_is_that_of_float64(mean, std):
    every = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 1, 3)
    found = nhwc(ImagePipeline(every, mean, std).batch(torch.arange(256)))
    expected = normal(every, mean, std)
    largest = 1 / min(std) + max(map(abs, mean)) / min(std)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7 * largest)


def test_bfloat16_is_rounded_once():
    images = noise()
    exact = ImagePipeline(images, MEAN, STD).batch(torch.arange(COUNT))
    found = ImagePipeline(images, MEAN, STD, dtype=torch.bfloat16).batch(torch.arange(COUNT))
    assert torch.equal(found, exact.bfloat16())


def test_normalise_takes_rows_of_constants_for_each_image():
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (4, 6), generator=random, dtype=torch.uint8)
    scale, shift = torch.rand(2, 4, 6, generator=random)
    out = normalise(values, scale, shift, torch.empty(4, 6))
    expected = values.double() * scale.double() + shift.double()
    assert torch.allclose(out.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("keeps_channels", [True, False])
@pytest.mark.parametrize("mean_std", [(MEAN, STD), ((0.5,) * 3, (0.25,) * 3)])
def test_one_map_is_applied_as_if_after_normalisation(keeps_channels, mean_std):
    images = noise()
    index, perturbation = shared(keeps_channels=keeps_channels)
    found = nhwc(ImagePipeline(images, *mean_std, perturbation).batch(torch.arange(COUNT)))
    expected = gathered(normal(images, *mean_std), index)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_a_map_of_pixels_is_applied_before_normalisation():
    images = noise()
    index, perturbation = shared(stage="pixels", keeps_channels=False)
    found = nhwc(ImagePipeline(images, MEAN, STD, perturbation).batch(torch.arange(COUNT)))
    expected = normal(torch.from_numpy(gathered(images.numpy(), index)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(found - gathered(normal(images), index)).max() > 0.1


@pytest.mark.parametrize("keeps_channels", [True, False])
def test_maps_of_images_follow_their_ids(keeps_channels):
    images, ids = noise(), np.random.default_rng(5).permutation(100)[:COUNT]
    index, perturbation = per_image(keeps_channels=keeps_channels)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, image_ids=ids)
    expected = gathered(normal(images), index[ids])
    found = nhwc(pipeline.batch(torch.arange(COUNT)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    some = torch.tensor([9, 2])
    np.testing.assert_array_equal(nhwc(pipeline.batch(some)), found[[9, 2]])


def test_images_are_told_apart_by_position_where_no_ids_are_given():
    index, perturbation = per_image(keeps_channels=True)
    images = noise()
    found = nhwc(ImagePipeline(images, MEAN, STD, perturbation).batch(torch.arange(COUNT)))
    np.testing.assert_allclose(found, gathered(normal(images), index[:COUNT]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("stage", ["pixels", "normalised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transform_stands_at_its_stage_and_knows_its_images(stage, dtype):
    ids, seen = np.arange(50, 50 + COUNT), []

    def transform(batch, image_ids):
        seen.append((batch.dtype, tuple(batch.shape), image_ids.tolist()))
        return (batch**2).contiguous()

    images = noise()
    perturbation = CompiledPerturbation("fake", stage, transform=transform)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, dtype=dtype, image_ids=ids)
    batch = pipeline.batch(torch.tensor([3, 1]))
    assert seen == [(torch.float32, (2, 3, SIDE, SIDE), [53, 51])]
    some = images[[3, 1]]
    squared = ((some.numpy() / 255.0) ** 2 - np.asarray(MEAN)) / np.asarray(STD)
    expected = squared if stage == "pixels" else normal(some) ** 2
    assert batch.dtype == dtype
    assert batch.is_contiguous(memory_format=torch.channels_last)
    error = 1e-5 if dtype == torch.float32 else 0.05
    np.testing.assert_allclose(nhwc(batch), expected, rtol=0, atol=error)
    assert not pipeline.precompute()


def test_training_images_are_augmented_then_normalised_then_perturbed():
    images, indices = noise(), torch.arange(COUNT)
    index, perturbation = shared(keeps_channels=False)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, AUGMENTATION)
    found = nhwc(pipeline.batch(indices, torch.Generator().manual_seed(4)))
    draws = draw(
        AUGMENTATION,
        COUNT,
        (SIDE, SIDE, 3),
        torch.Generator().manual_seed(4),
        torch.device("cpu"),
    )
    changed = augment(images, draws, AUGMENTATION)
    np.testing.assert_allclose(found, gathered(normal(changed), index), rtol=0, atol=2e-6)


def test_without_a_generator_nothing_is_augmented():
    images, indices = noise(), torch.arange(COUNT)
    plain = ImagePipeline(images, MEAN, STD).batch(indices)
    with_augmentation = ImagePipeline(images, MEAN, STD, augmentation=AUGMENTATION)
    assert torch.equal(with_augmentation.batch(indices), plain)
    assert not torch.equal(with_augmentation.batch(indices, torch.Generator()), plain)


def test_the_pieces_that_a_batch_is_worked_on_in_cannot_be_seen(monkeypatch):
    images, indices = noise(), torch.randperm(COUNT)
    _, perturbation = per_image(keeps_channels=False)
    pipeline = ImagePipeline(images, MEAN, STD, perturbation, AUGMENTATION)
    whole = pipeline.batch(indices, torch.Generator().manual_seed(1))
    monkeypatch.setattr("transferbench.data.gather.PIECE_BYTES", 3 * VALUES)
    assert torch.equal(pipeline.batch(indices, torch.Generator().manual_seed(1)), whole)


@pytest.mark.parametrize("keeps_channels", [True, False])
def test_materialised_images_give_equal_batches_without_their_map(keeps_channels, monkeypatch):
    images, indices = noise(), torch.tensor([4, 4, 17, 0])
    _, perturbation = shared(keeps_channels=keeps_channels)
    kept = images.clone()
    pipeline = ImagePipeline(images, MEAN, STD, perturbation)
    before = pipeline.batch(indices)
    assert pipeline.precompute()
    monkeypatch.setattr(module.Gather, "__call__", None)
    assert torch.equal(pipeline.batch(indices), before)
    assert torch.equal(images, kept)


def test_images_with_their_own_maps_are_materialised_where_channels_stay():
    images, ids = noise(), np.arange(COUNT) + 30
    for keeps_channels in (True, False):
        _, perturbation = per_image(keeps_channels=keeps_channels)
        pipeline = ImagePipeline(images, MEAN, STD, perturbation, image_ids=ids)
        before = pipeline.batch(torch.arange(COUNT))
        assert pipeline.precompute() == keeps_channels
        assert torch.equal(pipeline.batch(torch.arange(COUNT)), before)


def test_nothing_is_materialised_before_augmentation_or_for_the_identity():
    _, perturbation = shared()
    assert not ImagePipeline(noise(), MEAN, STD, perturbation, AUGMENTATION).precompute()
    assert not ImagePipeline(noise(), MEAN, STD).precompute()


@pytest.mark.parametrize("side", [1, 5, 8])
def test_gray_images_of_any_side(side):
    images = torch.arange(4 * side * side, dtype=torch.uint8).view(4, side, side, 1)
    halves = CompiledPerturbation(
        "fake", "normalised", shared=RunMap(np.arange(side * side)[::-1][None], 1)
    )
    found = nhwc(ImagePipeline(images, (0.5,), (0.5,), halves).batch(torch.arange(4)))
    expected = normal(images, (0.5,), (0.5,)).reshape(4, -1)[:, ::-1].reshape(images.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_pipeline_has_the_length_of_its_images_and_reads_a_slice_of_them():
    images = noise()
    part = ImagePipeline(images[5:12], MEAN, STD)
    assert len(part) == 7
    whole = ImagePipeline(images, MEAN, STD)
    assert torch.equal(part.batch(torch.tensor([1])), whole.batch(torch.tensor([6])))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixup_mixes_images_and_targets_by_one_share_and_partner(layout):
    images = torch.rand(16, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=layout)
    targets = torch.eye(16, dtype=torch.float64)
    mixed, soft = mixup(images, targets, 0.7, torch.Generator().manual_seed(2))
    # With one-hot targets the soft targets are the mixing matrix itself.
    expected = (soft @ images.reshape(16, -1)).view(16, 3, 4, 4)
    assert torch.allclose(mixed, expected)
    assert mixed.is_contiguous(memory_format=layout)
    share = soft.diagonal().min()
    assert 0 < share < 1
    partners = (soft - share * torch.eye(16)) / (1 - share)
    one_each = torch.ones(16, dtype=torch.float64)
    assert torch.allclose(partners, partners.round())
    assert torch.allclose(partners.sum(0), one_each)
    assert torch.allclose(partners.sum(1), one_each)


def test_mixup_shares_are_beta_distributed():
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.zeros(3, 1, 1, 1), torch.eye(3)
    shares = []
    for _ in range(3000):
        _, soft = mixup(images, targets, 0.7, generator)
        moved = soft[~torch.eye(3, dtype=torch.bool)]
        if moved.max() > 0:
            shares.append(1 - moved.max().item())
    variance = 0.7 * 0.7 / ((1.4**2) * 2.4)
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert abs(np.var(shares) - variance) < 0.01


def test_one_generator_state_one_mixture():
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
kept = keep_large_allocations()
# The first few only fill the pool that the later ones are served from.
afterwards = [faults() for _ in range(20)][10:]
print(kept, sum(default), sum(afterwards))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_large_allocations_are_kept_in_a_process_that_asks_for_it():
    command = [sys.executable, "-c", FAULTS]
    ran = subprocess.run(command, capture_output=True, check=True)  # our own code
    kept, default, afterwards = ran.stdout.split()
    assert kept == b"True"
    assert int(afterwards) < int(default) / 4


def test_other_platforms_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_allocations() is False
