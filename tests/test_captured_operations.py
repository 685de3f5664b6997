"""What a capture leaves out: the operations of a step are done again, and not its Python."""

import random

import numpy as np
import pytest
import torch
from operations_graph import RecordedOperations
from test_training_groups import alone, assert_equal, together
from torch import nn
from training_groups import FEATURES, Layers, Network


@pytest.mark.parametrize("feature", FEATURES)
def test_replayed_operations_equal_steps(feature):
    """Nothing of a step depends on Python: rates, draws, momenta that the first step makes."""
    said = []
    (ended,), _ = together([feature], graph=RecordedOperations, said=said)
    assert not said
    assert ended.error is None
    assert_equal(ended.result, alone(0, feature))


class AsksDevice(Network):
    """Asks its device for a number, and draws from its generator after that."""

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


class CountsSteps(Network):
    """Changes at its fifth step: no comparison of the first steps shows it."""

    def __init__(self, seed):
        super().__init__(seed)
        self.head.steps = 0

    def forward(self, x):
        self.head.steps += self.training
        return super().forward(x) * (2.0 if self.head.steps > 5 else 1.0)


class DrawsOnHost(Network):
    def forward(self, x):
        return super().forward(x) * (1 + 0.01 * random.random())


class DrawsWithNumpy(Network):
    def forward(self, x):
        return super().forward(x) * (1 + 0.01 * np.random.rand())  # noqa: NPY002  # the global one


class Rebinds(Layers):
    """Holds a mean of its steps in another tensor after each, beside its buffers."""

    def __init__(self, seed):
        super().__init__(seed)
        self.mean = torch.zeros(3)

    def forward(self, x):
        logits = super().forward(x)
        if self.training:
            self.mean = (0.5 * self.mean + logits.mean(0)).detach()
        return logits - self.mean


class MakesOnce(Layers):
    """Makes in its first step what it then uses: that is no count."""

    def __init__(self, seed):
        super().__init__(seed)
        self.size, self.scale = 0, None

    def forward(self, x):
        if self.size != x[0].numel():
            self.size, self.scale = x[0].numel(), torch.tensor(1.5)
        return super().forward(x) * self.scale


class HoldsOneValue(Layers):
    """Beside its parameters, tensors that cannot be written."""

    def __init__(self, seed):
        super().__init__(seed)
        self.scale = torch.full((1,), 1.5).expand(3)
        with torch.inference_mode():
            self.shift = torch.ones(3)

    def forward(self, x):
        return super().forward(x) * self.scale + self.shift.clone()


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (AsksDevice, "operation not permitted when stream is capturing"),
        (CountsSteps, "its head.steps changes with each step"),
        (DrawsOnHost, "it draws random numbers on the host"),
        (DrawsWithNumpy, "it draws random numbers on the host"),
    ],
)
@pytest.mark.parametrize("compared", [True, False])
def test_what_a_replay_would_leave_out_is_trained_eagerly(network, reason, compared):
    """And is trained as if nobody had tried: counts and generators are put back, too.

    Where kernels are not deterministic replays are not compared.
    """
    said, features = [], [{"network": network}, "plain"]
    ended, _ = together(features, graph=RecordedOperations, said=said, compared=compared)
    assert len(said) == 1
    assert reason in said[0]
    for seed, (feature, each) in enumerate(zip(features, ended, strict=True)):
        assert_equal(each.result, alone(seed, feature))


def test_what_is_held_beside_parameters_and_buffers_is_put_back():
    """Only the comparison shows that it is another tensor in each step."""
    said = []
    (ended,), _ = together([{"network": Rebinds}], graph=RecordedOperations, said=said)
    assert "a step in a graph computes other numbers than outside" in said[0]
    assert_equal(ended.result, alone(0, {"network": Rebinds}))


@pytest.mark.parametrize("network", [MakesOnce, HoldsOneValue])
def test_what_steps_do_not_change_is_captured(network):
    """What the first step makes for the others, too."""
    said = []
    (ended,), _ = together([{"network": network}], graph=RecordedOperations, said=said)
    assert not said
    assert_equal(ended.result, alone(0, {"network": network}))


def test_stochastic_depth_draws_anew_in_each_replay():
    from timm.layers import DropPath

    class Drops(Network):
        def __init__(self, seed):
            super().__init__(seed)
            self.path = nn.Sequential(DropPath(0.5), nn.Linear(3, 3, bias=False))
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                nn.init.normal_(self.path[1].weight)

        def forward(self, x):
            logits = super().forward(x)
            return logits + self.path(logits)

    said = []
    ended, _ = together([{"network": Drops}] * 2, graph=RecordedOperations, said=said)
    assert not said
    for seed, each in enumerate(ended):
        assert_equal(each.result, alone(seed, {"network": Drops}))
