"""Interpolation between two networks against loss-landscapes and a naive loop.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
The package: ``pip install loss-landscapes==3.0.6``.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from racing import Peer
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states, lerp_state

pytestmark = [
    pytest.mark.benchmark,
    # Deprecation warnings of peers.
    pytest.mark.filterwarnings("ignore"),
]

COUNT, SIDE, CLASSES, POINTS = 512, 32, 10, 11


class Files(Dataset):
    """Images that are decoded and normalised at each access."""

    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])

    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.chain(Image.fromarray(self.pixels[index])), self.labels[index]


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3, 1)
        )
        plain = stride == 1
        self.shortcut = nn.Identity() if plain else nn.Sequential(*conv_norm(inputs, outputs, 1, 2))

    def forward(self, x):
        return (self.branch(x) + self.shortcut(x)).relu()


def conv_norm(inputs, outputs, kernel, stride):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def network(seed):
    """A ResNet-8 of width 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
        return nn.Sequential(*conv_norm(3, 16, 3, 1), nn.ReLU(), *blocks, *head).eval()


def naive(a, b, loader):
    """For each point: a new state in a copied network, and a pass over the loader."""
    losses = []
    for weight in np.linspace(0, 1, POINTS):
        net = copy.deepcopy(a)
        ends = zip(a.state_dict().items(), b.state_dict().values(), strict=True)
        net.load_state_dict({name: (1 - weight) * x + weight * y for (name, x), y in ends})
        total = 0.0
        with torch.no_grad():
            for images, labels in loader:
                total += nn.functional.cross_entropy(net(images), labels, reduction="sum").item()
        losses.append(total / COUNT)
    return losses


@pytest.mark.benchmark(group="B11 interpolation, 11 points, 512 images of 32 px")
@pytest.mark.parametrize(("precision", "faster"), [("f32", 3), ("bf16", 3), ("fast", 3)])
def test_points(precision, faster, race):
    landscapes = pytest.importorskip("loss_landscapes")
    metrics = pytest.importorskip("loss_landscapes.metrics")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    labels = torch.from_numpy(random.integers(0, CLASSES, COUNT))
    files = Files(pixels, labels)
    images = torch.stack([image for image, _ in files])
    a, b = network(0), network(1)
    net = network(0).to(memory_format=torch.channels_last)
    x = images.contiguous(memory_format=torch.channels_last)
    splits = {"test": Examples(x, labels)}
    criterion = Criterion("multi-class", "accuracy")
    states = a.state_dict(), b.state_dict()

    def ours():
        points = (lerp_state(*states, index / (POINTS - 1)) for index in range(POINTS))
        return evaluate_states(net, points, splits, criterion, precision=precision)

    def package():
        judged = metrics.Loss(nn.functional.cross_entropy, images, labels)
        return landscapes.linear_interpolation(a, b, judged, steps=POINTS, deepcopy_model=True)

    loader = DataLoader(files, batch_size=256, num_workers=0)
    losses = [by_split["test"].loss for by_split in ours()]
    assert losses == pytest.approx(naive(a, b, loader), rel=1e-4 if precision == "f32" else 1e-2)
    race(
        ours,
        Peer("loss-landscapes 3.0.6", package, faster=faster),
        Peer("copies and a DataLoader, no workers", lambda: naive(a, b, loader), faster=faster),
        rounds=3,
    )
