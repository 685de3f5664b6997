"""Image processing against a lower bound (a plain copy) and against packages of equal function.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
"""

import numpy as np
import pytest
import torch
from PIL import Image
from racing import Peer
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from transferbench.data.gather import Gather
from transferbench.data.perturbation import compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.suite import Augmentation
from transferbench_plugins.perturbations.shuffles.block_shuffle import BLOCK_SHUFFLE

pytestmark = [
    pytest.mark.benchmark,
    # Deprecation warnings of peers.
    pytest.mark.filterwarnings("ignore"),
]

COUNT, SIDE = 256, 224
SHAPE = (SIDE, SIDE, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8))


def compiled(block, mode="fixed"):
    params = BLOCK_SHUFFLE.parse({"block": block, "mode": mode})
    return compile_perturbation(BLOCK_SHUFFLE, params, SHAPE, 0)


@pytest.mark.benchmark(group="B1 block shuffle, uint8")
@pytest.mark.parametrize("block", [112, 56, 28, 8, 1])
def test_block(block, images, race):
    goal = {8: 2.2, 1: 7.0}.get(block, 1.3)
    flat, gather = images.flatten(1), Gather(compiled(block).shared, CPU)
    out, copied = torch.empty_like(flat), torch.empty_like(flat)
    race(
        lambda: gather(flat, out), Peer("copy", lambda: copied.copy_(flat), within=goal), rounds=41
    )


def permute_afresh(images, out):
    """New permutations for all images in each call, maps included."""
    per_image = compiled(16, "per-image").per_image
    batches = iter(range(0, 10**9, COUNT))

    def run():
        first = next(batches)
        Gather(per_image(np.arange(first, first + COUNT)), CPU)(images.flatten(1), out)

    return run


@pytest.mark.benchmark(group="B2 block 16, permutations drawn afresh")
def test_fresh_against_packages(images, race, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations")
    cv2 = pytest.importorskip("cv2")
    kornia = pytest.importorskip("kornia.augmentation")
    cv2.setNumThreads(1)
    floats = images.permute(0, 3, 1, 2).float().contiguous()
    jigsaw = kornia.RandomJigsaw(grid=(14, 14), p=1.0)
    grid_shuffle = albumentations.RandomGridShuffle(grid=(14, 14), p=1.0)
    arrays = images.numpy()
    race(
        permute_afresh(images, torch.empty(COUNT, SIDE * SIDE * 3, dtype=torch.uint8)),
        Peer("kornia RandomJigsaw", lambda: jigsaw(floats), faster=10),
        Peer(
            "albumentations RandomGridShuffle",
            lambda: [grid_shuffle(image=array)["image"] for array in arrays],
            faster=10,
        ),
        rounds=7,
    )


def one_by_one(floats, permutation):
    """Block shuffle as described by its authors: unfold, reorder the columns, fold."""
    for image in floats:
        columns = functional.unfold(image[None], 16, stride=16)[:, :, permutation]
        functional.fold(columns, (SIDE, SIDE), 16, stride=16)


@pytest.mark.benchmark(group="B3 block 16, image by image")
@pytest.mark.parametrize("maps", ["fresh", "cached"])
def test_unfold_and_fold(maps, images, race):
    goal = {"fresh": 15, "cached": 30}[maps]
    out = torch.empty(COUNT, SIDE * SIDE * 3, dtype=torch.uint8)
    shared, flat = Gather(compiled(16).shared, CPU), images.flatten(1)
    ours = permute_afresh(images, out) if maps == "fresh" else lambda: shared(flat, out)
    floats = images.permute(0, 3, 1, 2).float().contiguous()
    permutation = torch.randperm(196)
    peer = Peer("unfold, index, fold", lambda: one_by_one(floats, permutation), faster=goal)
    race(ours, peer, rounds=7)


@pytest.mark.benchmark(group="B4 normalise")
def test_to_float32(images, race):
    pipeline, indices = ImagePipeline(images, MEAN, STD), torch.arange(COUNT)
    chain = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    batch = images.permute(0, 3, 1, 2).contiguous()
    race(
        lambda: pipeline.batch(indices),
        Peer("torchvision v2 ToDtype, Normalize", lambda: chain(batch), faster=1.8),
    )


class SmallImages(Dataset):
    """Images in memory behind PIL transforms, as torchvision's CIFAR10 serves them."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index]))


@pytest.mark.benchmark(group="B5 32 pixels, crop, flip, normalise")
def test_an_epoch_of_1024(race):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1024, 32, 32, 3), dtype=np.uint8)
    chain = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(SmallImages(images, chain), batch_size=128, shuffle=True, num_workers=0)
    augmentation = Augmentation(shift=4, flip=True)
    pipeline = ImagePipeline(torch.from_numpy(images), MEAN, STD, augmentation=augmentation)
    generator = torch.Generator().manual_seed(0)

    def ours():
        for indices in torch.randperm(1024, generator=generator).split(128):
            pipeline.batch(indices, generator)

    peer = Peer("DataLoader, torchvision on PIL", lambda: [len(batch) for batch in loader], 20)
    race(ours, peer, rounds=9)
