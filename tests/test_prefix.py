"""A network behind the kept input of a module gives, bit for bit, what the whole network gives."""

from contextlib import contextmanager

import pytest
import torch
from module_subject import NETWORKS, UntrainedTrial, equal, moved
from torch import nn

from transferbench.networks.modules import clone_state, load_state
from transferbench.networks.prefix_cache import Prefix

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
def test_every_module_but_the_first_runs_behind_its_input_with_equal_numbers(network):
    trial = UntrainedTrial(network, n=13)
    net, images = trial.network(), trial.images("test")
    prefix = Prefix(net, images, BATCH)
    for place, names in enumerate(trial.modules.values()):
        with prefix.behind(names) as inputs, other_weights(net, names):
            found = logits(net, inputs)
        with other_weights(net, names):
            assert torch.equal(found, logits(net, images))
        assert (inputs is images) == (place == 0)


class Counting(nn.Linear):
    """A layer that counts the images it has computed."""

    seen = 0

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


class Chain(nn.Module):
    """Four layers and a head; ``shift`` is read by networks that are no chain."""

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


class LooksBack(Chain):
    def forward(self, x):
        kept = self.layers[0](x)
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x + kept)


class LooksBackRarely(Chain):
    """No image of the trial reaches what is looked back at; the last one does."""

    def forward(self, x):
        kept = self.layers[0](x)
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x + torch.relu(kept - 100))


class ReadsEarly(Chain):
    """``shift``, of the last module, is used before the second layer."""

    def forward(self, x):
        x = self.layers[0](x) + self.shift
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x)


class ReadsAnothersWeights(Chain):
    def forward(self, x):
        x = self.layers[0](x) + self.fc.bias.sum()
        for layer in self.layers[1:]:
            x = torch.tanh(layer(x))
        return self.fc(x)


class Tied(Chain):
    def __init__(self):
        super().__init__()
        self.layers[3].weight = self.layers[0].weight


class Overwrites(Chain):
    """The last layer's input is changed in place: kept, it would change each time."""

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
        (LooksBack(), LAST),
        (LooksBackRarely(), LAST),
        (ReadsEarly(), ("shift", "fc.weight")),
        (ReadsAnothersWeights(), ("fc.weight", "fc.bias")),
        (Overwrites(), LAST),
        (UsesImages(), LAST),
        (Chain(), ("shift",)),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else "",
)
def test_what_is_no_chain_runs_whole(net, names):
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    images[-1] *= 1000
    net.eval()
    with Prefix(net, images, BATCH).behind(names) as inputs, other_weights(net, names):
        assert inputs is images
        found = logits(net, inputs)
    with other_weights(net, names):
        assert torch.equal(found, logits(net, images))


def test_a_layer_with_the_weights_of_an_earlier_one_is_cut_before_the_earlier():
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    net = Tied().eval()
    with Prefix(net, images, BATCH).behind(LAST) as inputs, other_weights(net, LAST):
        found = logits(net, inputs)
    with other_weights(net, LAST):
        assert torch.equal(found, logits(net, images))


class Twice(Chain):
    """One activation serves all layers, in two shapes; the last output is transposed in memory."""

    def __init__(self):
        super().__init__()
        self.activation = nn.Tanh()
        self.turn = Turn()

    def forward(self, x):
        x = self.activation(self.layers[0](x)[:, :, None])[:, :, 0]
        for layer in self.layers[1:3]:
            x = self.activation(layer(x))
        x = self.turn(x[:, :, None].expand(-1, -1, 4))
        return self.fc(self.layers[3](x).mean(dim=1))


class Turn(nn.Module):
    def forward(self, x):
        return x.contiguous().transpose(1, 2)


def test_a_layer_that_is_called_again_and_another_memory_order_are_kept_as_they_are():
    images = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    net = Twice().eval()
    prefix = Prefix(net, images, BATCH)
    with prefix.behind(LAST) as inputs, other_weights(net, LAST):
        assert inputs.shape == (7, 4, 6)
        assert inputs.stride() == (24, 1, 4)
        found = logits(net, inputs)
    with other_weights(net, LAST):
        assert torch.equal(found, logits(net, images))


def names_of(place):
    return [f"layers.{place}.weight", f"layers.{place}.bias"]


def test_all_prefixes_together_cost_one_pass_and_nothing_behind_them():
    net, images = Chain().eval(), torch.randn(1000, 6, generator=torch.Generator().manual_seed(1))
    prefix = Prefix(net, images, BATCH)
    for place in range(4):
        with prefix.behind(names_of(place)):
            pass
    trials = 60
    assert all(1000 <= layer.seen <= 1000 + trials for layer in net.layers[:3])
    assert net.layers[3].seen <= trials


def test_modules_may_be_asked_for_in_any_order():
    net, images = Chain().eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    prefix = Prefix(net, images, BATCH)
    for place in (3, 1, 2, 2, 0, 3):
        with prefix.behind(names_of(place)) as inputs, other_weights(net, names_of(place)):
            found = logits(net, inputs)
        with other_weights(net, names_of(place)):
            assert torch.equal(found, logits(net, images))


def test_inputs_that_would_fill_the_memory_are_not_kept():
    images = torch.zeros(1, 6).expand(2**40, 6)
    net = Chain().eval()
    with Prefix(net, images, BATCH).behind(LAST) as inputs:
        assert inputs is images


def test_the_network_and_the_global_generator_are_as_they_were_even_after_an_error():
    trial = UntrainedTrial("batch-norm", n=4)
    net, images = trial.network(), trial.images("test")
    drawn = torch.get_rng_state()
    prefix = Prefix(net, images, BATCH)
    with pytest.raises(KeyError, match="inside"), prefix.behind(trial.modules["layer4.0"]):
        raise KeyError("inside")
    assert equal(clone_state(net), trial.state("final"))
    for module in net.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_forward_that_was_put_on_the_instance_stays():
    net, images = Chain().eval(), torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    own = net.layers[2].forward = net.layers[2].forward
    with Prefix(net, images, BATCH).behind(LAST) as inputs:
        assert inputs is not images
    assert vars(net.layers[2])["forward"] is own


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"Chain is in training mode.*call eval\(\) first"):
        Prefix(Chain(), torch.zeros(4, 6), BATCH)
