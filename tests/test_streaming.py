"""Images that stay on the disk: equal batches, equal trainings, and no step that waits."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from command_line import SMALL, artefacts, cli, suite_file
from test_training import CPU, recipe_of

from transferbench.data.gather import RunMap
from transferbench.data.perturbation import CompiledPerturbation
from transferbench.data.pipeline import ImagePipeline, View
from transferbench.data.streaming import StreamedImages
from transferbench.data.transfer import BUFFERS, SideStream
from transferbench.errors import DamagedImagesError
from transferbench.suite import Augmentation
from transferbench.training import DataSplit, TaskData, Training

N, SIDE, SIZE = 23, 12, 8
STORED = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
POSITIONS = np.random.default_rng(1).permutation(40)[:N]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def read(positions):
    return STORED[positions]


def permuted(size):
    draw = np.random.default_rng(2)
    shared = RunMap(draw.permutation(size * size * 3)[None].astype(np.int32), 1)
    per_image = RunMap(np.stack([draw.permutation(size * size * 3) for _ in range(40)])
                       .astype(np.int32), 1)  # fmt: skip
    return {
        "none": None,
        "shared": CompiledPerturbation("shared", "normalised", shared=shared),
        "per image": CompiledPerturbation(
            "each", "normalised", per_image=lambda ids: per_image._replace(runs=per_image.runs[ids])
        ),
    }


def pipelines(**options):
    """The same images from memory and from the disk."""
    streamed = StreamedImages(read, POSITIONS, STORED.shape[1:], torch.device("cpu"))
    both = (torch.from_numpy(STORED[POSITIONS]), streamed)
    both_pipelines = [
        ImagePipeline(images, MEAN, STD, image_ids=POSITIONS, **options) for images in both
    ]
    return both_pipelines, streamed


ASPECTS = torch.from_numpy(np.random.default_rng(3).uniform(0.5, 2, N))
VIEWS = {
    "all": (SIDE, View(None)),
    "centre": (SIZE, View(SIZE)),
    "distorted": (SIZE, View(SIZE, ASPECTS)),
}
AUGMENTATIONS = {
    "none": None,
    "flip": Augmentation(flip=True),
    "shift": Augmentation(shift=1),
    "crop": Augmentation.model_validate({"random_resized_crop": (0.3, 1.0)}),
}


@pytest.mark.parametrize("perturbation", ["none", "shared", "per image"])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_batches_are_those_of_memory_bit_for_bit(view, augmentation, perturbation):
    size, view_of = VIEWS[view]
    (memory, disk), _ = pipelines(
        view=view_of,
        augmentation=AUGMENTATIONS[augmentation],
        perturbation=permuted(size)[perturbation],
    )
    memory.precompute()
    assert not disk.precompute()
    assert len(memory) == len(disk) == N
    batches = torch.split(torch.randperm(N, generator=torch.Generator().manual_seed(4)), 7)
    disk.announce(batches)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    for indices in batches:
        batch, streamed = (
            pipeline.batch(indices, generator)
            for pipeline, generator in zip((memory, disk), generators, strict=True)
        )
        assert batch.equal(streamed)
        assert batch.stride() == streamed.stride()
    assert memory.batch(torch.arange(5)).equal(disk.batch(torch.arange(5)))


def test_a_training_from_the_disk_is_that_from_memory_bit_for_bit():
    labels = torch.from_numpy(np.arange(N) % 3)
    augmentation = Augmentation.model_validate({"random_resized_crop": (0.3, 1.0)})
    results = []
    for pipeline in pipelines(view=View(SIZE), augmentation=augmentation)[0]:
        split = DataSplit(pipeline, labels)
        data = TaskData("multi-class", "accuracy", 3, split, split, split)
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE * SIZE * 3, 3))
        recipe = recipe_of(epochs=3, mixup=0.2)
        results.append(Training(net, data, recipe, CPU).train(data_seed=1, augmentation_seed=2))
    memory, disk = results
    assert memory.history == disk.history
    for name, state in memory.states.items():
        assert all(tensor.equal(disk.states[name][key]) for key, tensor in state.items())


def test_no_step_waits_for_an_image():
    """A read takes half as long as a step: without reading ahead a third would be waiting."""
    step, reading, waits = 0.02, 0.01, []

    def slow(positions):
        time.sleep(reading)
        return STORED[positions]

    images = StreamedImages(slow, np.arange(40), STORED.shape[1:], torch.device("cpu"))
    batches = [torch.arange(4) + 4 * (number % 10) for number in range(50)]
    images.announce(batches)
    started = time.perf_counter()
    for indices in batches:
        before = images.waited_seconds
        images.fetch(indices)
        waits.append(images.waited_seconds - before)
        time.sleep(step)
    share = images.waited_seconds / (time.perf_counter() - started)
    assert share < 0.03
    assert np.median(waits) < reading / 4


def test_what_is_announced_is_read_a_little_ahead_and_once():
    positions_read = []

    def noted(positions):
        positions_read.append(positions.tolist())
        return STORED[positions]

    images = StreamedImages(noted, np.arange(40), STORED.shape[1:], torch.device("cpu"))
    batches = list(torch.split(torch.arange(20), 4))
    images.announce(batches)
    images.announce(batches)
    time.sleep(0.05)
    assert len(positions_read) <= 4
    positions_read.clear()
    images.announce(batches)
    for indices in batches:
        assert images.fetch(indices).equal(torch.from_numpy(STORED[indices.numpy()]).flatten(1))
    assert positions_read == [batch.tolist() for batch in batches]


class LateCopies:
    """Streams as a card may have them: a copy is made when something waits for it, no earlier."""

    def __init__(self):
        self.buffers = 0
        self.host_waits = 0
        self.pending = []

    def pinned(self, size_bytes):
        self.buffers += 1
        return torch.zeros(size_bytes, dtype=torch.uint8)

    def copied(self, host):
        images = torch.zeros_like(host)
        copy = LateCopy(self, host, images)
        self.pending.append(copy)
        return images, copy


class LateCopy:
    def __init__(self, streams, host, images):
        self.streams, self.host, self.images = streams, host, images

    def wait(self):
        # A stream copies in its order.
        while self in self.streams.pending:
            copy = self.streams.pending.pop(0)
            copy.images.copy_(copy.host)

    def synchronize(self):
        self.streams.host_waits += self in self.streams.pending
        self.wait()


@pytest.mark.parametrize("ahead", [True, False])
def test_images_through_pinned_buffers_are_those_of_the_file(ahead):
    """Batches of several sizes, of which the buffers are filled again and again."""
    streams = LateCopies()
    images = StreamedImages(
        read, np.arange(40), STORED.shape[1:], torch.device("cpu"), SideStream(streams)
    )
    batches = [*torch.split(torch.arange(37), 5), *torch.split(torch.arange(40), 8)]
    if ahead:
        images.announce(batches)
    for indices in batches:
        assert images.fetch(indices).equal(torch.from_numpy(STORED[indices.numpy()]).flatten(1))
    assert streams.host_waits == 0
    assert streams.buffers <= 2 * BUFFERS


def test_a_buffer_is_filled_when_it_has_been_copied():
    """Of batches that nobody takes, none writes over one that is still to be copied."""
    streams = LateCopies()
    transfer = SideStream(streams)
    arrived = [transfer(np.full((2, 3), number, np.uint8)) for number in range(2 * BUFFERS)]
    assert streams.host_waits == BUFFERS
    assert [int(image()[0, 0]) for image in arrived] == list(range(2 * BUFFERS))


def test_damage_is_told_where_the_batch_is_used():
    def damaged(positions):
        if 9 in positions:
            raise DamagedImagesError("it changed")
        return STORED[positions]

    images = StreamedImages(damaged, np.arange(40), STORED.shape[1:], torch.device("cpu"))
    batches = torch.split(torch.arange(12), 4)
    images.announce(batches)
    images.fetch(batches[0])
    images.fetch(batches[1])
    with pytest.raises(DamagedImagesError, match="it changed"):
        images.fetch(batches[2])


def test_a_run_from_the_disk_has_the_numbers_of_one_from_memory(tmp_path):
    records, states = [], []
    for name, options in {"memory": (), "disk": ("--image-memory", 0)}.items():
        suite = suite_file(tmp_path / name, SMALL)
        said = cli("run", suite, "--out", tmp_path / name / "run", "--jobs", 1, *options)
        assert said.code == 0, said.err
        records.append((tmp_path / name / "run" / "records.jsonl").read_text())
        finals = (job / "final.safetensors" for job in artefacts(tmp_path / name / "store"))
        states.append([path.read_bytes() for path in finals if path.exists()])
    assert records[0] == records[1]
    assert len(states[0]) == 3
    assert states[0] == states[1]
