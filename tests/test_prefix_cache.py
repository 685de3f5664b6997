"""A network run on the cached inputs of a module equals, bit for bit, the complete network."""

from contextlib import contextmanager

import pytest
import torch
from fake_subject import NETWORKS, equal, moved, untrained_trial
from torch import nn

from transferbench.networks.modules import clone_state, load_state
from transferbench.networks.prefix_cache import PrefixCache

BATCH = 5


def logits(net, inputs):
    with torch.no_grad():
        return torch.cat([net(batch) for batch in torch.split(inputs, BATCH)])


@contextmanager
def other_weights(net, names):
    before = clone_state(net)
    load_state(net, moved(before, 0.05, seed=9), names)
    yield
    load_state(net, before)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_modules_but_the_first_run_on_cached_inputs_with_equal_numbers(network):
    trial = untrained_trial(network, n=13)
    net, images = trial.network(), trial.images("test")
    prefix = PrefixCache(net, images, BATCH)
    for number, names in enumerate(trial.modules.values()):
        with prefix.inputs_of(names) as inputs, other_weights(net, names):
            outputs = logits(net, inputs)
        with other_weights(net, names):
            assert torch.equal(outputs, logits(net, images))
        assert (inputs is images) == (number == 0)


class Counting(nn.Linear):
    """A layer that counts the images it has processed."""

    count = 0

    def forward(self, x):
        self.count += len(x)
        return super().forward(x)


class Chain(nn.Module):
    """Four layers and a head; ``shift`` is for the subclasses that are no chain."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.ModuleList(Counting(6, 6) for _ in range(4))
            self.fc = nn.Linear(6, 3)
            self.shift = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.fc(x)


class LongSkip(Chain):
    def forward(self, x):
        skip = self.layers[0](x)
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x + skip)


class RareSkip(Chain):
    """The skip connection is 0 for the probe images, and not for the last image."""

    def forward(self, x):
        skip = self.layers[0](x)
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x + torch.relu(skip - 100))


class EarlyShift(Chain):
    """``shift``, of the last module, is used before the second layer."""

    def forward(self, x):
        x = self.layers[0](x) + self.shift
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x)


class EarlyHeadBias(Chain):
    def forward(self, x):
        x = self.layers[0](x) + self.fc.bias.sum()
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x)


class TiedChain(Chain):
    def __init__(self):
        super().__init__()
        self.layers[3].weight = self.layers[0].weight


class Overwrites(Chain):
    """Changes the last layer's input in place, and with it a cached tensor, in each pass."""

    def forward(self, x):
        for layer in self.layers[:3]:
            x = layer(x)
        x += 1
        return self.fc(self.layers[3](x))


class UsesImages(Chain):
    def forward(self, x):
        images = x
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.fc(x + images)


LAST = ("layers.3.weight", "layers.3.bias")


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (LongSkip(), LAST),
        (RareSkip(), LAST),
        (EarlyShift(), ("shift", "fc.weight")),
        (EarlyHeadBias(), ("fc.weight", "fc.bias")),
        (Overwrites(), LAST),
        (UsesImages(), LAST),
        (Chain(), ("shift",)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_network_that_is_no_chain_runs_completely(net, names):
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    images[-1] *= 1000
    net.eval()
    with PrefixCache(net, images, BATCH).inputs_of(names) as inputs, other_weights(net, names):
        assert inputs is images
        outputs = logits(net, inputs)
    with other_weights(net, names):
        assert torch.equal(outputs, logits(net, images))


def test_a_network_with_tied_weights_is_cut_before_their_first_use():
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    net = TiedChain().eval()
    with PrefixCache(net, images, BATCH).inputs_of(LAST) as inputs, other_weights(net, LAST):
        outputs = logits(net, inputs)
    with other_weights(net, LAST):
        assert torch.equal(outputs, logits(net, images))


class TwiceChain(Chain):
    """Calls one activation with two shapes; the last cached output is transposed in memory."""

    def __init__(self):
        super().__init__()
        self.activation = nn.Tanh()
        self.transpose = Transpose()

    def forward(self, x):
        x = self.activation(self.layers[0](x)[:, :, None])[:, :, 0]
        for layer in self.layers[1:3]:
            x = self.activation(layer(x))
        x = self.transpose(x[:, :, None].expand(-1, -1, 4))
        return self.fc(self.layers[3](x).mean(dim=1))


class Transpose(nn.Module):
    def forward(self, x):
        return x.contiguous().transpose(1, 2)


def test_cached_inputs_keep_their_memory_order_beside_a_module_that_is_called_again():
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    net = TwiceChain().eval()
    prefix = PrefixCache(net, images, BATCH)
    with prefix.inputs_of(LAST) as inputs, other_weights(net, LAST):
        assert inputs.shape == (7, 4, 6)
        assert inputs.stride() == (24, 1, 4)
        outputs = logits(net, inputs)
    with other_weights(net, LAST):
        assert torch.equal(outputs, logits(net, images))


def names_of(layer):
    return [f"layers.{layer}.weight", f"layers.{layer}.bias"]


def test_all_inputs_together_cost_one_pass():
    net, images = Chain().eval(), torch.randn(1000, 6, generator=torch.Generator().manual_seed(1))
    prefix = PrefixCache(net, images, BATCH)
    for layer in range(4):
        with prefix.inputs_of(names_of(layer)):
            pass
    probes = 60
    assert all(1000 <= layer.count <= 1000 + probes for layer in net.layers[:3])
    assert net.layers[3].count <= probes


def test_modules_may_be_requested_in_any_order():
    net, images = Chain().eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    prefix = PrefixCache(net, images, BATCH)
    for layer in (3, 1, 2, 2, 0, 3):
        with prefix.inputs_of(names_of(layer)) as inputs, other_weights(net, names_of(layer)):
            outputs = logits(net, inputs)
        with other_weights(net, names_of(layer)):
            assert torch.equal(outputs, logits(net, images))


def test_inputs_that_need_too_much_memory_are_not_cached():
    images = torch.zeros(1, 6).expand(2**40, 6)
    net = Chain().eval()
    with PrefixCache(net, images, BATCH).inputs_of(LAST) as inputs:
        assert inputs is images


def test_the_network_and_the_global_generator_are_unchanged_even_after_an_error():
    trial = untrained_trial("batch-norm", n=4)
    net, images = trial.network(), trial.images("test")
    random_state = torch.get_rng_state()
    prefix = PrefixCache(net, images, BATCH)
    with pytest.raises(KeyError, match="inside"), prefix.inputs_of(trial.modules["layer4.0"]):
        raise KeyError("inside")
    assert equal(clone_state(net), trial.state("final"))
    for module in net.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_forward_that_was_set_on_the_instance_is_restored():
    net, images = Chain().eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    own = net.layers[2].forward = net.layers[2].forward
    with PrefixCache(net, images, BATCH).inputs_of(LAST) as inputs:
        assert inputs is not images
    assert vars(net.layers[2])["forward"] is own


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"Chain is in training mode.*call eval\(\) first"):
        PrefixCache(Chain(), torch.zeros(4, 6), BATCH)
