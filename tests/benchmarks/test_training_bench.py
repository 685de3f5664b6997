"""Training against a usual PyTorch loop, and four trainings on two workers against one.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
"""

import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from racing import Peer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from transferbench.data.pipeline import ImagePipeline
from transferbench.engine.jobs import start_engine
from transferbench.engine.resources import Machine
from transferbench.runner.executors.local import LocalExecutor
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.schedule import JobSchedule, SilentWatcher
from transferbench.suite import Recipe
from transferbench.training import DataSplit, Execution, TaskData, Training
from transferbench_plugins.backbones.fixup import FIXUP_RESNET8

pytestmark = [
    pytest.mark.benchmark,
    # Deprecation warnings of peers.
    pytest.mark.filterwarnings("ignore"),
]

COUNT, SIDE, CLASSES, BATCH = 1024, 32, 10, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEP = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
PRODUCT = 1024
BF16_PAYS = 1.5
"""Skip bf16 if its matrix products are not faster than f32 by this factor."""


# --- B13: the loop --------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """Two 3x3 convolutions with batch statistics beside a shortcut, as in CIFAR's ResNets."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1:
            project = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(width))

    def forward(self, x):
        branch = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        branch = self.norm2(self.conv2(branch))
        return functional.relu(branch.add_(self.shortcut(x)), inplace=True)


def batchnorm_resnet8():
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    blocks = [PlainBlock(16, 16, 1), PlainBlock(16, 32, 2), PlainBlock(32, 64, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*stem, *blocks, *head)


def fixup_resnet8():
    return FIXUP_RESNET8.build(FIXUP_RESNET8.parse({}), CLASSES, 3, SIDE)


NETWORKS = {"fixup-resnet8": fixup_resnet8, "batchnorm-resnet8": batchnorm_resnet8}


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    return images, random.integers(0, CLASSES, COUNT)


class LabelledImages(Dataset):
    """Labelled images in memory behind PIL transforms, as in torchvision's CIFAR10."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual_epoch(net, images, labels):
    """An epoch of a typical tutorial: images decoded one by one, NCHW, the loss read each step."""
    chain = transforms.Compose(
        [
            transforms.RandomCrop(SIDE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(LabelledImages(images, labels, chain), BATCH, shuffle=True, num_workers=0)
    optimizer = torch.optim.SGD(
        net.parameters(), STEP["learning_rate"], STEP["momentum"], weight_decay=STEP["weight_decay"]
    )

    def run():
        net.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return run


def our_epoch(net, images, labels, precision):
    """An epoch of ``Training``, on a network in the memory format of a worker."""
    recipe = Recipe.model_validate(
        {"optimizer": "sgd", "epochs": 1000, "batch_size": BATCH, "precision": precision,
         "augmentation": {"shift": 4, "flip": True}} | STEP
    )  # fmt: skip
    pipeline = ImagePipeline(torch.from_numpy(images), MEAN, STD, augmentation=recipe.augmentation)
    split = DataSplit(pipeline, torch.from_numpy(labels))
    data = TaskData("multi-class", "accuracy", CLASSES, split, split, None)
    net = net.to(memory_format=torch.channels_last).train()
    training = Training(net, data, recipe, Execution(torch.device("cpu")))
    generator = torch.Generator().manual_seed(0)

    def run():
        for indices in torch.randperm(COUNT, generator=generator).split(BATCH):
            training.step(indices, generator)

    return run


def products(dtype, flops):
    """At least ``flops`` operations of matrix products: the peak performance of the CPU."""
    a, b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
    times = -(-flops // (2 * PRODUCT**3))

    def run():
        for _ in range(times):
            torch.mm(a, b)

    return run


def flops_of_an_epoch(net):
    x, y = torch.randn(BATCH, 3, SIDE, SIDE), torch.zeros(BATCH, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(net(x), y).backward()
    return counter.get_total_flops() * (COUNT // BATCH)


def seconds_of(work, rounds=5):
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return sorted(seconds)[rounds // 2]


def bf16_gain():
    flops = 2 * PRODUCT**3
    return seconds_of(products(torch.float32, flops)) / seconds_of(products(torch.bfloat16, flops))


@pytest.mark.benchmark(group="B13 train, 32 pixels")
@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_an_epoch(network, precision, data, race, benchmark):
    if precision == "bf16" and (gain := bf16_gain()) < BF16_PAYS:
        pytest.skip(f"bf16 products take 1/{gain:.1f} of the time of f32 ones here")
    make = NETWORKS[network]
    flops = flops_of_an_epoch(make())
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    race(
        our_epoch(make(), *data, precision),
        Peer("DataLoader on PIL images, f32", usual_epoch(make(), *data), faster=2.2),
        Peer(f"as much work as {precision} matrix products", products(dtype, flops)),
        rounds=7,
    )
    usual, ceiling = benchmark.extra_info["races"]
    most = usual["peer_seconds"] / ceiling["peer_seconds"]
    benchmark.extra_info["note"] = (
        f"its {flops / 1e9:.0f} GFLOP alone, as {precision} matrix products, would be {most:.2f}x "
        "faster than the usual loop: the upper bound on this CPU"
    )


# --- B15: two workers -----------------------------------------------------------------------------


@pytest.fixture
def trials(tmp_path):
    """Four real trials: those of quickstart from random weights, for fewer epochs."""
    pytest.importorskip("mlxtend")
    changes = ("recipes.RI-T.epochs=4", "replicates=4")
    planned = plan_suite(
        "quickstart@1", Options(out=tmp_path / "run", changes=changes, device="cpu")
    )
    cells = planned.plan.cells
    selected = [cell for cell in cells if cell[3:5] == ("none", "RI-T")]
    return planned, [planned.plan.jobs[cell.job] for cell in selected]


def start_two_threads(machine):
    engine = start_engine(machine)
    torch.set_num_threads(2)
    return engine


def computes_afresh(executor, store, jobs, name):
    """Runs the trials under new ids, which the store does not have."""
    rounds = iter(range(10**6))

    def run():
        prefix = f"{name}{next(rounds):06x}"
        renamed = [
            job._replace(id=f"{prefix}{position:x}".ljust(64, "0"))
            for position, job in enumerate(jobs)
        ]
        schedule = JobSchedule(
            {job.id: job for job in renamed}, set(), store, executor, SilentWatcher()
        )
        outcomes = schedule.run()
        assert [outcome.status for outcome in outcomes.values()] == ["ok"] * len(jobs)

    return run


@pytest.mark.benchmark(group="B15 four trials on two cores")
def test_two_workers(trials, race):
    planned, jobs = trials
    store = planned.store
    machine = Machine(store.root, store.root / "datasets", None, "cpu")
    with (
        LocalExecutor(partial(start_engine, machine), 2) as pair,
        LocalExecutor(partial(start_two_threads, machine), 1) as single,
    ):
        # Warm-up rounds also start the workers.
        race(
            computes_afresh(pair, store, jobs, "a"),
            Peer("one process, two threads", computes_afresh(single, store, jobs, "b"), faster=1.1),
            rounds=5,
            clock=time.perf_counter,
        )
