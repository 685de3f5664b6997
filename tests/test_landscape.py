"""Evaluation of states and batch statistics against networks that hold each state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn
from torch.optim.swa_utils import update_bn

from transferbench.analysis.landscape import (
    Criterion,
    Examples,
    evaluate_states,
    has_batch_statistics,
    lerp_state,
    recalibrate,
)
from transferbench.errors import DataError

CLASSES, COUNT = 4, 60
ACCURACY = Criterion("multi-class", "accuracy")


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def moved(net, seed, scale=0.1):
    """``net`` with noise on all weights and batch statistics."""
    generator = drawn(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(scale * torch.rand(tensor.shape, generator=generator))
    return net


def network(seed, *, norm=True):
    layers = [nn.Conv2d(1, 6, 3, bias=not norm), nn.BatchNorm2d(6) if norm else nn.Identity()]
    rest = [nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6 * 36, CLASSES)]
    return moved(nn.Sequential(*layers, *rest), seed, 0.5)


def state_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.fixture
def examples():
    generator = drawn(9)
    labels = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    return Examples(torch.randn(COUNT, 1, 8, 8, generator=generator), labels)


def evaluated(net, examples):
    """Loss and accuracy of a network in eval mode, by scikit-learn and numpy."""
    with torch.no_grad():
        logits = net.eval()(examples.images).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = examples.targets.numpy()
    loss = log_loss(labels, probabilities, labels=range(CLASSES))
    return loss, float((logits.argmax(axis=1) == labels).mean())


# --- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.3, 0.5, 1.0, 2.0])
def test_lerp_state_is_the_weighted_sum(weight):
    a, b = state_of(network(0)), state_of(network(1))
    b["1.num_batches_tracked"] += 7
    point = lerp_state(a, b, weight)
    assert point["1.num_batches_tracked"] == a["1.num_batches_tracked"]
    del point["1.num_batches_tracked"]
    for name, tensor in point.items():
        expected = (1 - weight) * a[name].double() + weight * b[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)


def test_lerp_state_is_exact_at_both_ends():
    a, b = state_of(network(0)), state_of(network(1))
    del a["1.num_batches_tracked"]
    assert all(torch.equal(lerp_state(a, b, 0)[name], a[name]) for name in a)
    assert all(torch.equal(lerp_state(a, b, 1)[name], b[name]) for name in a)
    assert all(torch.equal(lerp_state(a, a, 0.3)[name], a[name]) for name in a)


# --- evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("batch_size", [7, 500])
def test_states_are_evaluated_as_networks_that_hold_them(norm, batch_size, examples):
    states = [state_of(network(seed, norm=norm)) for seed in range(3)]
    few = Examples(examples.images[:11], examples.targets[:11])
    evaluations = evaluate_states(
        network(5, norm=norm),
        iter(states),
        {"all": examples, "few": few},
        ACCURACY,
        batch_size=batch_size,
    )
    for state, splits in zip(states, evaluations, strict=True):
        expected = copy.deepcopy(network(5, norm=norm))
        expected.load_state_dict(state)
        for split, data in (("all", examples), ("few", few)):
            loss, accuracy = evaluated(expected, data)
            # In other batches single logits differ by some 1e-6 of their size in float32.
            assert splits[split].loss == pytest.approx(loss, rel=1e-5)
            assert splits[split].metric == accuracy


def test_a_multi_label_task_has_its_own_loss_and_metric(examples):
    targets = (torch.rand(COUNT, CLASSES, generator=drawn(1)) < 0.4).float()
    net = network(0)
    (splits,) = evaluate_states(
        net,
        [state_of(net)],
        {"test": Examples(examples.images, targets)},
        Criterion("multi-label", "auc"),
    )
    loss, metric = splits["test"]
    with torch.no_grad():
        logits = net.eval()(examples.images).double().numpy()
    signs = 2 * targets.numpy() - 1
    assert loss == pytest.approx(np.log1p(np.exp(-signs * logits)).mean(), rel=1e-6)
    assert metric == pytest.approx(roc_auc_score(targets.numpy(), logits, average="macro"))


def test_the_network_is_restored_and_the_states_are_unchanged(examples):
    net, state = network(0).train(), state_of(network(1))
    net[0].eval()
    before, original = state_of(net), {name: t.clone() for name, t in state.items()}
    momentum = net[1].momentum
    evaluate_states(net, [state], {"t": examples}, ACCURACY, calibration=examples.images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(torch.equal(tensor, original[name]) for name, tensor in state.items())
    assert [net.training, net[0].training, net[1].training] == [True, False, True]
    assert net[1].momentum == momentum


def test_a_state_that_does_not_fit_is_an_error_and_the_network_is_restored(examples):
    net, other = network(0), state_of(network(1))
    other["5.weight"] = other["5.weight"][:2]
    before = state_of(net)
    states = [state_of(network(2)), other]
    with pytest.raises(DataError, match=r"of another shape: 5\.weight is \(2, 216\)"):
        evaluate_states(net, states, {"test": examples}, ACCURACY)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_loss_that_is_not_finite_is_none(examples):
    net, state = network(0), state_of(network(0))
    state["5.bias"][0] = torch.nan
    (splits,) = evaluate_states(net, [state], {"test": examples}, ACCURACY)
    assert splits["test"].loss is None


def test_bf16_is_close_to_f32(examples):
    net = network(0)
    splits = {"test": examples}
    (exact,) = evaluate_states(net, [state_of(net)], splits, ACCURACY)
    (low,) = evaluate_states(net, [state_of(net)], splits, ACCURACY, precision="bf16")
    assert low["test"].loss != exact["test"].loss
    assert low["test"].loss == pytest.approx(exact["test"].loss, rel=0.02)


# --- batch statistics -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["network", "timm/test_resnet"])
def test_recalibration_equals_torchs_update_bn(name):
    generator = drawn(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = network(0) if name == "network" else timm.create_model("test_resnet", in_chans=1)
    images = torch.randn(40, 1, 8 if name == "network" else 16, 8, generator=generator)
    if name != "network":
        images = images.repeat(1, 1, 1, 2)
    expected = copy.deepcopy(net)
    for module in expected.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    update_bn(images.split(10), expected)
    net.eval()
    recalibrate(net, images, batch_size=10)
    assert not any(module.training for module in net.modules())
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[key], msg=key)


def test_statistics_of_a_single_batch_are_the_moments_of_the_images(examples):
    net = nn.Sequential(nn.BatchNorm2d(1))
    recalibrate(net, 3 * examples.images + 2)
    values = (3 * examples.images + 2).double().numpy()
    assert float(net[0].running_mean) == pytest.approx(values.mean(), rel=1e-6)
    assert float(net[0].running_var) == pytest.approx(values.var(ddof=1), rel=1e-6)


def test_all_images_have_equal_weight_in_the_statistics(examples):
    # In batches of 59, the remaining image would have the weight of all others together.
    batched, full = nn.Sequential(nn.BatchNorm2d(1)), nn.Sequential(nn.BatchNorm2d(1))
    recalibrate(batched, examples.images, batch_size=COUNT - 1)
    recalibrate(full, examples.images)
    torch.testing.assert_close(batched[0].running_mean, full[0].running_mean)


def test_states_are_evaluated_with_recomputed_statistics(examples):
    net, state = network(0), state_of(network(1))
    (recomputed,) = evaluate_states(
        net, [state], {"test": examples}, ACCURACY, calibration=examples.images[:30]
    )
    expected = network(2)
    expected.load_state_dict(state)
    recalibrate(expected, examples.images[:30])
    (stored,) = evaluate_states(net, [state], {"test": examples}, ACCURACY)
    assert recomputed["test"].loss == pytest.approx(evaluated(expected, examples)[0], rel=1e-5)
    assert recomputed["test"].loss != pytest.approx(stored["test"].loss, rel=1e-3)


def test_a_network_without_batch_statistics_is_unchanged(examples):
    net = network(0, norm=False)
    assert not has_batch_statistics(net)
    assert has_batch_statistics(network(0))
    assert not has_batch_statistics(nn.BatchNorm2d(3, track_running_stats=False))
    before = state_of(net)
    recalibrate(net, examples.images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
