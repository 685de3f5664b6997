"""A batch made from its draw alone equals the batch of the pipeline bit for bit."""

import numpy as np
import pytest
import torch
from test_pipeline import COUNT, MEAN, SIDE, STD, noise, per_image, shared

from transferbench.data.gather import coarsen
from transferbench.data.perturbation import CompiledPerturbation
from transferbench.data.pipeline import ImagePipeline, View, draw_mixup, mix, mixup
from transferbench.suite import Augmentation

AUGMENTATION = Augmentation(shift=1, flip=True, rotate=10, scale=(0.8, 1.2), fill=11)
CROPS = Augmentation(random_resized_crop=(0.3, 1.0), flip=True)
INDICES = torch.tensor([7, 0, 7, 19, 3])
PERTURBATIONS = {
    "none": None,
    "shared": shared()[1],
    "shared-pixels": shared(stage="pixels")[1],
    "per-image": per_image(keeps_channels=True)[1],
    "per-image-mixed": per_image(keeps_channels=False)[1],
    "transform": CompiledPerturbation(
        "fake", "pixels", transform=lambda images, ids: images * torch.tensor(ids).view(-1, 1, 1, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION, CROPS])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_batch_is_made_from_its_draw_alone(name, augmentation):
    aspects = torch.linspace(0.5, 2, COUNT).double() if augmentation is CROPS else None
    pipeline = ImagePipeline(
        noise(), MEAN, STD, PERTURBATIONS[name], augmentation, view=View(SIDE, aspects)
    )
    expected = pipeline.batch(INDICES, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    draw = pipeline.draw(INDICES, generator)
    after = generator.get_state()
    ready = pipeline.for_device(draw)
    for batch in (pipeline.make(draw), pipeline.make(ready), pipeline.make(draw)):
        assert torch.equal(batch, expected)
        assert batch.stride() == expected.stride()
    assert torch.equal(generator.get_state(), after)
    if "per-image" in name:
        assert ready.runs is not None


def test_maps_have_one_shape_once_the_shortest_runs_have_come():
    values = SIDE * SIDE * 3
    coarse = np.arange(values).reshape(-1, 24)[::-1].reshape(1, -1)
    fine = np.arange(values).reshape(-1, 3)[::-1].reshape(1, -1)
    maps = np.concatenate([coarse, fine])
    perturbation = CompiledPerturbation(
        "fake", "normalised", per_image=lambda ids: coarsen(maps[ids % 2])
    )
    pipeline = ImagePipeline(noise(), MEAN, STD, perturbation, AUGMENTATION)
    shapes = []
    for indices in ([0, 2], [1, 3], [0, 2]):
        draw = pipeline.draw(torch.tensor(indices), torch.Generator().manual_seed(3))
        ready = pipeline.for_device(draw)
        shapes.append(tuple(ready.runs.shape))
        assert torch.equal(pipeline.make(ready), pipeline.make(draw))
    assert shapes == [(2, 8), (2, 64), (2, 64)]


def test_mixup_mixes_what_was_drawn():
    images, targets = torch.rand(6, 3, SIDE, SIDE), torch.rand(6, 4)
    expected = mixup(images, targets, 0.4, torch.Generator().manual_seed(1))
    draw = draw_mixup(6, 0.4, torch.Generator().manual_seed(1))
    for ours, theirs in zip(mix(images, targets, draw), expected, strict=True):
        assert torch.equal(ours, theirs)
