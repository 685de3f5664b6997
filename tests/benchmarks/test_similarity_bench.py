"""Debiased CKA against three packages: time, error against float64, and memory.

Peers, skipped if not installed: torch-cka 0.21, pytorch-cka 1.1.3, cka-pytorch 1.1.3. A peer's
error, the maximum over all pairs of layers, is part of its name; ours is asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from debiased_cka import debiased_cka
from racing import Peer
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from transferbench.analysis.cka import centre_, cka, hsic
from transferbench.networks.features import module_features

pytestmark = [
    pytest.mark.benchmark,
    # Deprecation warnings of peers, and of missing names.
    pytest.mark.filterwarnings("ignore"),
]

LAYERS, IMAGES, FEATURES = 32, 512, 512
BATCH = 128
CONVOLUTIONS = (
    "conv1",
    *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3, 4) for b in (0, 1) for c in (1, 2)),
)


def layers(count: int, n: int, seed: int) -> list[Tensor]:
    """Layers with a shared component, and a mean as large as their standard deviation."""
    shared = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(99))
    draw = torch.Generator().manual_seed(seed)
    return [1 + 0.3 * shared + torch.randn(n, FEATURES, generator=draw) for _ in range(count)]


@cache
def features() -> tuple[list[Tensor], list[Tensor]]:
    return layers(LAYERS, IMAGES, 1), layers(LAYERS, IMAGES, 2)


def gram_stack(layers: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x @ x.T).fill_diagonal_(0) for x in layers])


def hsic_of_stacks(k: Tensor, other: Tensor) -> Tensor:
    """Nguyen et al. 2021, equation 3: HSIC of all pairs of two stacks of Gram matrices."""
    n = k.shape[1]
    trace = torch.einsum("aij,bij->ab", k, other)
    totals = k.sum((1, 2))[:, None] * other.sum((1, 2))[None]
    return (trace + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * k.sum(1) @ other.sum(1).T) / (
        n * (n - 3)
    )


def reference(parts: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]]) -> Tensor:
    """CKA of all pairs in float64, from full Gram matrices of centred features."""
    cross: Tensor | float = 0.0
    own_a: Tensor | float = 0.0
    own_b: Tensor | float = 0.0
    for part in parts:
        k, other = (
            gram_stack([x.double() - x.double().mean(0) for x in layers]) for layers in part
        )
        cross = cross + hsic_of_stacks(k, other)
        own_a = own_a + hsic_of_stacks(k, k).diagonal()
        own_b = own_b + hsic_of_stacks(other, other).diagonal()
    return cross / (own_a[:, None] * own_b[None]).sqrt()


def error(values: Tensor, expected: Tensor) -> float:
    return float((values.double() - expected).abs().max())


def named(package: str, values: Tensor, expected: Tensor) -> str:
    return f"{package} (error {error(values, expected):.0e})"


def needs_quick_bf16() -> None:
    """Skip where the processor has no fast bfloat16 products."""
    x = torch.randn(1024, 1024)
    y = x.bfloat16()
    seconds = []
    for matrix in (x, y):
        matrix @ matrix
        start = time.process_time()
        for _ in range(5):
            matrix @ matrix
        seconds.append(time.process_time() - start)
    if seconds[0] < 1.5 * seconds[1]:
        pytest.skip(f"bfloat16 is {seconds[0] / seconds[1]:.1f} times as fast as float32 here")


# --- from features ----------------------------------------------------------------------------


@cache
def expected_pairs() -> Tensor:
    return reference([features()])


@pytest.mark.benchmark(group="B6 CKA of 32 x 32 layers, n = d = 512, float32")
def test_against_pytorch_cka(race):
    package = pytest.importorskip("cka")
    a, b = features()
    assert error(debiased_cka(a, b), expected_pairs()) < 1e-6
    name = named("pytorch-cka", package.cka_from_features(a, b), expected_pairs())
    peer = Peer(name, lambda: package.cka_from_features(a, b), faster=1.05)
    race(lambda: debiased_cka(a, b), peer)


@pytest.mark.benchmark(group="B6 CKA of 32 x 32 layers, n = d = 512, float32")
def test_against_torch_cka(race):
    package = pytest.importorskip("torch_cka")
    a, b = features()
    bare = package.CKA.__new__(package.CKA)
    bare.device = "cpu"

    def compare() -> Tensor:
        """The loops of its ``compare``, on features instead of networks."""
        sums = torch.zeros(LAYERS, LAYERS, 3)
        for i, x in enumerate(a):
            k = (x @ x.t()).fill_diagonal_(0.0)
            sums[i, :, 0] += bare._HSIC(k, k)
            for j, y in enumerate(b):
                other = (y @ y.t()).fill_diagonal_(0.0)
                sums[i, j, 1] += bare._HSIC(k, other)
                sums[i, j, 2] += bare._HSIC(other, other)
        return sums[:, :, 1] / (sums[:, :, 0].sqrt() * sums[:, :, 2].sqrt())

    name = named("torch-cka", compare(), expected_pairs())
    race(lambda: debiased_cka(a, b), Peer(name, compare, faster=30), rounds=3)


@pytest.mark.benchmark(group="B7 the same, bfloat16 products")
def test_in_bfloat16(race):
    needs_quick_bf16()
    package = pytest.importorskip("cka")
    a, b = features()
    half_a, half_b = ([x.bfloat16() for x in layers] for layers in (a, b))
    assert error(debiased_cka(half_a, half_b), expected_pairs()) < 1e-4
    name = named("pytorch-cka, float32", package.cka_from_features(a, b), expected_pairs())
    peer = Peer(name, lambda: package.cka_from_features(a, b), faster=1.8)
    race(lambda: debiased_cka(half_a, half_b), peer)


# --- from networks ----------------------------------------------------------------------------


def network(seed: int) -> nn.Module:
    """A ResNet-18 of width 32 for 32 px."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=10, channels=(32, 64, 128, 256))
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net.eval()


@cache
def networks() -> tuple[nn.Module, nn.Module]:
    return network(1), network(2)


@cache
def channels_last_networks() -> tuple[nn.Module, nn.Module]:
    """The networks in the memory format of a finished trial."""
    a, b = (network(seed).to(memory_format=torch.channels_last) for seed in (1, 2))
    return a, b


@cache
def images() -> Tensor:
    return torch.rand(256, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def from_networks(precision: torch.dtype) -> Tensor:
    """CKA over minibatches of both networks' convolutions, as the diagnostic computes it."""
    batches = images().contiguous(memory_format=torch.channels_last).split(BATCH)
    paths = {name: name for name in CONVOLUTIONS}
    a, b = (
        module_features(net, paths, batches, pooled=False, precision=precision)
        for net in channels_last_networks()
    )
    return cka(
        hsic([centre_(x) for x in batch_a], [centre_(y) for y in batch_b])
        for batch_a, batch_b in zip(a, b, strict=True)
    )


@cache
def expected_networks() -> Tensor:
    batches = images().split(BATCH)
    paths = {name: name for name in CONVOLUTIONS}
    a, b = (module_features(net, paths, batches, pooled=False) for net in networks())
    return reference(list(zip(a, b, strict=True)))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(images(), torch.zeros(len(images()))), batch_size=BATCH)


def with_pytorch_cka() -> Callable[[], Tensor]:
    package = pytest.importorskip("cka")
    return lambda: package.compute_cka(
        *networks(), loader(), layers=CONVOLUTIONS, device="cpu", progress=False
    )[0]


def with_torch_cka() -> Callable[[], Tensor]:
    package = pytest.importorskip("torch_cka")

    def run() -> Tensor:
        names = list(CONVOLUTIONS)
        comparison = package.CKA(*networks(), model1_layers=names, model2_layers=names)
        with torch.no_grad():
            comparison.compare(loader())
        for net in networks():
            # It does not remove its hooks, which would slow later benchmarks.
            for module in net.modules():
                module._forward_hooks.clear()
        return comparison.hsic_matrix

    return run


def with_cka_pytorch() -> Callable[[], Tensor]:
    package = pytest.importorskip("cka_pytorch.cka", reason="cka-pytorch or lightning is missing")

    def run() -> Tensor:
        calculator = package.CKACalculator(*networks(), list(CONVOLUTIONS), verbose=False)
        matrix = calculator.calculate_cka_matrix(loader(), num_epochs=1)
        for manager in (calculator.hook_manager1, calculator.hook_manager2):
            manager.clear_all()
        assert len(matrix) == len(CONVOLUTIONS)
        return matrix

    return run


PEERS = {
    "pytorch-cka": with_pytorch_cka,
    "torch-cka": with_torch_cka,
    "cka-pytorch": with_cka_pytorch,
}


@pytest.mark.benchmark(group="B8 CKA of 17 x 17 convolutions from networks, bfloat16")
@pytest.mark.parametrize(
    ("package", "goal"), [("pytorch-cka", 2.3), ("torch-cka", 6), ("cka-pytorch", 2.3)]
)
def test_from_networks_in_bfloat16(package, goal, race):
    needs_quick_bf16()
    compare = PEERS[package]()
    assert error(from_networks(torch.bfloat16), expected_networks()) < 5e-3
    name = named(f"{package}, float32", compare(), expected_networks())
    race(lambda: from_networks(torch.bfloat16), Peer(name, compare, faster=goal), rounds=3)


@pytest.mark.benchmark(group="B9 the same, float32, error below 1e-5")
@pytest.mark.parametrize("package", list(PEERS))
def test_from_networks_in_float32(package, race):
    compare = PEERS[package]()
    assert error(from_networks(torch.float32), expected_networks()) < 1e-5
    name = named(package, compare(), expected_networks())
    race(lambda: from_networks(torch.float32), Peer(name, compare, within=1.15), rounds=3)


# --- exact over many images -------------------------------------------------------------------


@cache
def many() -> tuple[list[Tensor], list[Tensor]]:
    a, b = layers(12, 3072, 1), layers(12, 3072, 2)
    return [centre_(x) for x in a], [centre_(y) for y in b]


def whole_stacks() -> Tensor:
    k, other = (gram_stack(layers) for layers in many())
    own = hsic_of_stacks(k, k).diagonal()[:, None] * hsic_of_stacks(other, other).diagonal()[None]
    return hsic_of_stacks(k, other) / own.sqrt()


def tiles() -> Tensor:
    return cka([hsic(*many())])


@pytest.mark.benchmark(group="B10 exact CKA of 12 x 12 layers, n = 3072")
def test_tiles_against_whole_gram_matrices(race):
    tiled, whole = tiles(), whole_stacks()
    # The peer's error comes from a float32 sum over nine million products.
    first = reference([(many()[0][:3], many()[1][:3])])
    assert error(tiled[:3, :3], first) < 1e-6
    name = named("whole Gram matrices", whole, tiled)
    race(tiles, Peer(name, whole_stacks, faster=1.5), rounds=3)


MEASURE = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import torch
import test_similarity_bench as bench
torch.set_num_threads(1)

def kibibytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

a, b = bench.many()
bench.cka([bench.hsic([x[:300] for x in a], [y[:300] for y in b])])
# Return freed memory to the system, so that it is not reused.
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
bench.{run}()
print(kibibytes("VmHWM") - before)
"""
STACKS = 24 * 3072**2 * 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_tiles_need_a_twentieth_of_the_memory():
    """Without the features, which both need."""

    def grown(run: str) -> int:
        code = MEASURE.format(folder=str(Path(__file__).parent), run=run)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return int(done.stdout) * 1024

    assert grown("tiles") <= 0.05 * STACKS
    assert grown("whole_stacks") >= STACKS
