"""Module diagnostics against naive loops.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
"""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812  # torch's convention
from fake_subject import FakeSubject
from racing import Peer

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states, lerp_state
from transferbench.networks.modules import build_network, clone_state, load_state, partition
from transferbench.networks.prefix_cache import PrefixCache
from transferbench_plugins.backbones.fixup import FIXUP_RESNET14
from transferbench_plugins.diagnostics.modules._module_evaluation import BATCH_SIZE
from transferbench_plugins.diagnostics.modules.swaps import evaluate_swaps
from transferbench_plugins.diagnostics.weights.spectrum import layer_weights, singular_values

pytestmark = pytest.mark.benchmark

COUNT, SIDE = 250, 32
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
CRITERION = Criterion("multi-class", "accuracy")


class Paths:
    """A network of 8 modules, its initial and trained weights, and images to evaluate it on."""

    def __init__(self):
        self.net = build_network(
            FIXUP_RESNET14,
            FIXUP_RESNET14.parse({}),
            num_classes=10,
            in_chans=3,
            image_size=SIDE,
            init_seed=1,
            head_seed=2,
        ).eval()
        self.modules = partition(FIXUP_RESNET14, self.net)
        generator = torch.Generator().manual_seed(0)
        self.start = clone_state(self.net)
        self.end = {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in self.start.items()
        }
        load_state(self.net, self.end)
        self.images = torch.randn(COUNT, 3, SIDE, SIDE, generator=generator)
        self.targets = torch.randint(10, (COUNT,), generator=generator)

    def states(self, names, alphas):
        start, end = ({name: state[name] for name in names} for state in (self.start, self.end))
        return ({**self.end, **lerp_state(start, end, alpha)} for alpha in alphas)

    def behind_prefixes(self, alphas):
        prefix, losses = PrefixCache(self.net, self.images, BATCH_SIZE), []
        for names in self.modules.values():
            with prefix.inputs_of(names) as inputs:
                splits = {"train": Examples(inputs, self.targets)}
                states = self.states(names, alphas)
                evaluations = evaluate_states(
                    self.net, states, splits, CRITERION, batch_size=BATCH_SIZE
                )
            losses += [evaluation["train"].loss for evaluation in evaluations]
        return losses

    def by_copies(self, states):
        losses = []
        for state in states:
            net = copy.deepcopy(self.net)
            net.load_state_dict(state)
            with torch.inference_mode():
                logits = torch.cat([net(batch) for batch in self.images.split(BATCH_SIZE)])
            losses.append(F.cross_entropy(logits.double(), self.targets).item())
        return losses

    def all_modules(self, alphas):
        return (state for names in self.modules.values() for state in self.states(names, alphas))


GROUP = "B12 one module's weights, 8 modules, 250 images, f32"


@pytest.mark.benchmark(group=GROUP)
def test_criticality(race):
    paths = Paths()
    assert len(paths.modules) == 8

    def peer():
        return paths.by_copies(paths.all_modules(ALPHAS))

    assert paths.behind_prefixes(ALPHAS) == peer()
    peers = Peer("deepcopy, whole forward", peer, faster=1.8)
    race(lambda: paths.behind_prefixes(ALPHAS), peers, rounds=3)


@pytest.mark.benchmark(group=GROUP)
def test_rewinding(race):
    # One state per module: caching the inputs takes one pass, which limits the speed-up to 1.6.
    paths = Paths()
    data = dict.fromkeys(("train", "test"), (paths.images, paths.targets))
    trial = FakeSubject({"final": paths.net}, paths.modules, data, **CRITERION._asdict())

    def ours():
        swaps = evaluate_swaps(trial, {"init": paths.start}, None)
        return [evaluation.loss for _, _, evaluation in swaps]

    def peer():
        return paths.by_copies([paths.start, *paths.all_modules((0.0,)), paths.end])

    assert ours() == peer()
    race(ours, Peer("deepcopy, whole forward", peer, faster=1.4), rounds=5)


@pytest.mark.benchmark(group="B16 spectra of a ResNet-50")
def test_all_layers(race):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("resnet50")
    weights = layer_weights(net.state_dict(), {"all": tuple(net.state_dict())})
    assert len(weights) == 54
    matrices = {name: weight.numpy().astype(np.float64) for name, weight in weights.items()}

    def peer():
        return {name: np.linalg.svd(m, compute_uv=False) for name, m in matrices.items()}

    def ours():
        return singular_values(weights)

    values, expected = ours(), peer()
    errors = [np.abs(values[n] - expected[n]).max() / expected[n][0] for n in weights]
    assert max(errors) <= 1e-10
    race(ours, Peer("numpy.linalg.svd, f64", peer, faster=3), rounds=3)
