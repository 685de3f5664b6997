"""Growth of the cost of diagnoses with the number of images, layers and trials.

Each row compares a larger job with a smaller one. The goals: quadratic in images, linear in
layers, linear in trials as long as forward passes dominate.
"""

from itertools import combinations

import pytest
import torch
from debiased_cka import debiased_cka
from fake_subject import FakeSubject
from racing import Peer
from test_similarity_bench import layers, network

from transferbench.engine.resources import lru_cache
from transferbench.specs import DiagnosticContext
from transferbench_plugins.diagnostics.features.cka import CKA

pytestmark = pytest.mark.benchmark

SLACK = 1.15
"""Tolerance for the smaller job fitting into a cache that the larger one exceeds."""


@pytest.mark.benchmark(group="G1 CKA of 8 x 8 layers, by images")
@pytest.mark.parametrize("n", [512, 1024, 2048])
def test_images(n, race):
    large, small = ((layers(8, count, 1), layers(8, count, 2)) for count in (n, n // 2))
    peer = Peer(f"{n // 2} images", lambda: debiased_cka(*small), within=4 * SLACK)
    race(lambda: debiased_cka(*large), peer, rounds=5)


@pytest.mark.benchmark(group="G2 CKA of L x L layers, n = 512")
@pytest.mark.parametrize("count", [8, 16, 32])
def test_layers(count, race):
    large, small = ((layers(many, 512, 1), layers(many, 512, 2)) for many in (count, count // 2))
    peer = Peer(f"{count // 2} layers", lambda: debiased_cka(*small), within=2 * SLACK)
    race(lambda: debiased_cka(*large), peer, rounds=5)


def trial(seed, images):
    """A subject with the network of the benchmark."""
    net = network(seed)
    modules = {
        part: [n for n in net.state_dict() if n.startswith(part)]
        for part in ("conv1", "layer1", "layer2", "layer3", "layer4")
    }
    modules["conv1"] += [n for n in net.state_dict() if n.startswith("bn1")]
    modules["head"] = ["fc.weight", "fc.bias"]
    return FakeSubject({"final": net}, modules, {"test": (images, None)}, job=f"trial {seed}")


def all_pairs(trials):
    """CKA of all pairs, as the jobs of one worker."""
    memoize = lru_cache(2**30)
    context = DiagnosticContext(torch.device("cpu"), torch.Generator(), 0, memoize)
    for pair in combinations(trials, 2):
        list(CKA.measure(CKA.parse({}), pair, context))


@pytest.mark.benchmark(group="G3 CKA of all pairs of k trials, 128 images")
@pytest.mark.parametrize("k", [4, 8])
def test_trials(k, race):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(128, 3, 32, 32, generator=draw)
    trials = [trial(seed, images) for seed in range(k)]
    pairs, fewer = k * (k - 1) // 2, k * (k // 2 - 1) // 4
    name = f"{k // 2} trials: {fewer} of {pairs} pairs"
    # Twice the forward passes; only the matrix products grow with the number of pairs.
    peer = Peer(name, lambda: all_pairs(trials[: k // 2]), within=3)
    race(lambda: all_pairs(trials), peer, rounds=3)
