"""On a card: the same bits twice, alone, in a graph and in a group; and a step waits for nothing.

Without a card the same code runs through a fake of the graph: see ``test_training_groups``.
"""

from functools import partial

import pytest
import torch
from test_resuming import KilledError, Saves
from test_training_groups import assert_equal
from training_groups import FEATURES, Network, training_of

from transferbench.engine.kernels import choose_kernels, machine_facts
from transferbench.training.captured import CapturedSteps, GroupMember
from transferbench.training.generators import OwnGenerators
from transferbench.training.graph import CudaGraph, graphs_of
from transferbench.training.group import Group
from transferbench.training.loop import run_alone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # Of operations without a deterministic kernel.
    pytest.mark.filterwarnings("ignore"),
]

CUDA = torch.device("cuda")
SEEDS = (0, 1, 2)
CAPTURED = [name for name in FEATURES if name != "fp16"]


@pytest.fixture(scope="module", autouse=True)
def _deterministic_kernels():
    choose_kernels("cuda", fast=False)
    yield
    torch.use_deterministic_algorithms(mode=False)


def work(seed, feature, saves=None, device=CUDA):
    torch.manual_seed(100 + seed)
    training = training_of(seed, feature, device=device)
    result = yield from training.loop(seed, seed + 5, [1], saves)
    return result, torch.rand(3), training.net


def together(feature, seeds=SEEDS, saves=None):
    said = []
    graph = partial(CudaGraph, CUDA, torch.cuda.graph_pool_handle())
    group = Group(CUDA, len(seeds), graph, said.append)
    works = [work(seed, feature, saves and saves[seed]) for seed in seeds]
    ended = group.run(works)
    return ended, said


@pytest.mark.parametrize("feature", CAPTURED)
def test_twice_alone_in_a_graph_and_in_a_group_give_the_same_bits(feature):
    expected = [run_alone(work(seed, feature)) for seed in SEEDS]
    assert_equal(run_alone(work(0, feature)), expected[0])
    ended, said = together(feature)
    assert not said
    (single,), _ = together(feature, seeds=(0,))
    for each, alone in zip([*ended, single], [*expected, expected[0]], strict=True):
        if each.error:
            raise each.error
        assert_equal(each.result, alone)


@pytest.mark.parametrize("feature", CAPTURED)
def test_a_step_waits_for_nothing(feature):
    training = training_of(0, feature, device=CUDA)
    generator = torch.Generator().manual_seed(0)
    draws = [training.stepping.draw(torch.arange(8), generator, step) for step in range(3)]
    training.stepping.compute(draws[0])  # prepares kernels and the optimizer's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        for draw in draws[1:]:
            training.stepping.compute(draw)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("feature", ["plain", "mixup", "perturbed-per-image-augmented"])
def test_the_steps_of_a_group_wait_for_nothing(feature):
    trainings = [training_of(seed, feature, captured=True, device=CUDA) for seed in SEEDS]
    draw = torch.Generator().manual_seed(0)
    draws = [
        [training.stepping.draw(torch.arange(8), draw, step) for training in trainings]
        for step in range(4)
    ]
    members = [GroupMember(training, OwnGenerators(CUDA)) for training in trainings]
    steps = CapturedSteps(members, draws[0], graphs_of(CUDA), compared=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for each in draws[1:]:
            assert steps.take(each) == {}
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Waits(Network):
    """Draws from the card's generator after it has waited: also where a capture has failed."""

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


class BreaksCapture(Network):
    def forward(self, x):
        if torch.cuda.is_current_stream_capturing():
            x.sum().item()
        return super().forward(x)


@pytest.mark.parametrize("network", [Waits, BreaksCapture])
def test_a_network_that_waits_for_the_device_is_trained_eagerly(network):
    ended, said = together({"network": network})
    assert len(said) == 1
    assert "its steps are not captured" in said[0]
    for seed, each in enumerate(ended):
        if each.error:
            raise each.error
        assert_equal(each.result, run_alone(work(seed, {"network": network})))
    # Allocator and generator of the card have left the capture.
    torch.cuda.empty_cache()
    torch.rand(3, device=CUDA)


class NoMemory(Network):
    """Runs out of memory in a capture of more than one, as no warm-up shows."""

    most = 1
    captures = 0

    def forward(self, x):
        if torch.cuda.is_current_stream_capturing() and self.training:
            NoMemory.captures += 1
            if NoMemory.captures > self.most:
                NoMemory.captures = 0
                NoMemory.most = 9
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)


def test_a_group_without_memory_for_its_capture_is_halved():
    ended, said = together({"network": NoMemory})
    assert said == ["memory runs out: 1 trainings at a time from here on"]
    for seed, each in enumerate(ended):
        assert_equal(each.result, run_alone(work(seed, {"network": Network})))


def test_a_group_that_is_killed_goes_on_with_the_same_bits(tmp_path):
    def saves(kill=None):
        return [Saves(tmp_path / str(seed), kill) for seed in SEEDS]

    ended, _ = together("adamw", saves=saves(kill=4))
    assert {type(each.error) for each in ended} == {KilledError}
    ended, _ = together("adamw", saves=saves())
    for seed, each in enumerate(ended):
        assert_equal(each.result, run_alone(work(seed, "adamw")))


def test_a_training_that_is_killed_at_ten_moments_ends_with_the_same_bits(tmp_path):
    feature = {"recipe": {"optimizer": "adamw", "learning_rate": 0.01, "epochs": 20}}
    for moment in torch.randint(1, 8, (10,), generator=torch.Generator().manual_seed(0)).tolist():
        (ended,), _ = together(feature, seeds=(0,), saves=[Saves(tmp_path / "kept", moment)])
        assert type(ended.error) is KilledError
    saves = Saves(tmp_path / "kept")
    (ended,), _ = together(feature, seeds=(0,), saves=[saves])
    assert saves.loaded
    assert_equal(ended.result, run_alone(work(0, feature)))


@pytest.mark.parametrize("feature", ["plain", "augmentation", "mixup"])
def test_cpu_and_cuda_train_alike(feature):
    """Sums in another order: within 1e-4 after nine steps of f32, without dropout."""
    states = []
    for device in (torch.device("cpu"), CUDA):
        training = training_of(0, feature, device=device)
        training.net.dropout.p = 0.0
        states.append(run_alone(training.loop(0, 5)).states["final"])
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_the_facts_name_the_card_and_its_kernels():
    facts = machine_facts(CUDA, 0)
    assert facts["kernels"] == "deterministic"
    assert facts["device_name"] == torch.cuda.get_device_name()
    assert {"driver", "cuda", "cudnn", "compute_capability"} <= facts.keys()
