"""Diagnostics of modules against the loops that say what they compute.

Run: ``pytest -m benchmark tests/benchmarks --benchmark-json results.json``
"""

import copy

import numpy as np
import pytest
import timm
import torch
from racing import Peer

from transferbench.landscape import Criterion, Examples, evaluate_states, lerp_state
from transferbench.modules import build_network, clone_state, load_state, partition
from transferbench.prefix import Prefix
from transferbench_plugins.backbones.fixup import FIXUP_RESNET14
from transferbench_plugins.diagnostics.spectrum import layer_weights, singular_values

pytestmark = pytest.mark.benchmark

COUNT, SIDE, BATCH = 256, 32, 128
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
CRITERION = Criterion("multi-class", "accuracy")


class Paths:
    """A network of 8 modules, its weights from a start to an end, and images to judge it by."""

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
        prefix, losses = Prefix(self.net, self.images, BATCH), []
        for names in self.modules.values():
            with prefix.behind(names) as inputs:
                splits = {"train": Examples(inputs, self.targets)}
                states = self.states(names, alphas)
                found = evaluate_states(self.net, states, splits, CRITERION, batch_size=BATCH)
            losses += [evaluation["train"].loss for evaluation in found]
        return losses

    def by_copies(self, alphas):
        losses = []
        for names in self.modules.values():
            for state in self.states(names, alphas):
                net = copy.deepcopy(self.net)
                net.load_state_dict(state)
                with torch.inference_mode():
                    logits = torch.cat([net(batch) for batch in self.images.split(BATCH)])
                loss = torch.nn.functional.cross_entropy(logits.double(), self.targets)
                losses.append(loss.item())
        return losses


@pytest.mark.benchmark(group="B12 one module's weights, 8 modules, 256 images, f32")
@pytest.mark.parametrize("alphas", [ALPHAS, (0.0,)], ids=["criticality", "rewinding"])
def test_behind_prefixes(alphas, race):
    paths = Paths()
    assert len(paths.modules) == 8
    assert paths.behind_prefixes(alphas) == paths.by_copies(alphas)
    peer = Peer("deepcopy, whole forward", lambda: paths.by_copies(alphas), faster=1.8)
    race(lambda: paths.behind_prefixes(alphas), peer, rounds=3 if len(alphas) > 1 else 5)


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

    found, expected = ours(), peer()
    errors = [np.abs(found[n] - expected[n]).max() / expected[n][0] for n in weights]
    assert max(errors) <= 1e-10
    race(ours, Peer("numpy.linalg.svd, f64", peer, faster=3), rounds=3)
