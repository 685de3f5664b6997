"""Trainings that go on together in a graph equal each alone, bit for bit."""

import random
import re

import numpy as np
import pytest
import torch
from training_groups import CPU, FEATURES, Layers, training_of

from transferbench.engine import probe
from transferbench.training import captured as captured_module
from transferbench.training.generators import _NumpyState
from transferbench.training.graph import RecordedCalls
from transferbench.training.group import Group
from transferbench.training.inputs import FixedInputs
from transferbench.training.loop import run_alone

SEEDS = (0, 1)


def work(seed, feature, *, captured):
    """A training as a job runs it: with global generators of its own."""
    torch.manual_seed(100 + seed)
    training = training_of(seed, feature, captured=captured)
    result = yield from training.loop(seed, seed + 5, checkpoints=[1])
    return result, torch.rand(3), training.net


def alone(seed, feature):
    with torch.random.fork_rng():
        return run_alone(work(seed, feature, captured=False))


def together(features, size=8, graph=RecordedCalls, said=None, *, compared=True):
    say = (said if said is not None else []).append
    group = Group(CPU, size, graph, say, compared=compared)
    works = [work(seed, feature, captured=True) for seed, feature in enumerate(features)]
    return group.run(works), group


def assert_equal(first, second):
    (result, drawn, net), (expected, expected_drawn, expected_net) = first, second
    assert result.history == expected.history
    assert result.best_epoch == expected.best_epoch
    assert result.states.keys() == expected.states.keys()
    for name, state in expected.states.items():
        for key, tensor in state.items():
            assert torch.equal(result.states[name][key], tensor), (name, key)
    assert torch.equal(drawn, expected_drawn)
    for a, b in zip(net.state_dict().values(), expected_net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class Counted(RecordedCalls):
    """Notes how many trainings each graph captures."""

    captures = ()

    def capture(self, works, generators):
        Counted.captures += (len(works),)
        super().capture(works, generators)


@pytest.fixture
def counted():
    Counted.captures = ()
    return Counted


@pytest.mark.parametrize("feature", FEATURES)
def test_a_group_equals_each_alone(feature, counted):
    before, said = torch.get_rng_state(), []
    ended, _ = together([feature] * len(SEEDS), graph=counted, said=said)
    assert torch.equal(torch.get_rng_state(), before)
    assert not said
    assert counted.captures
    assert set(counted.captures) == {len(SEEDS)}
    for seed, each in enumerate(ended):
        assert each.error is None
        assert_equal(each.result, alone(seed, feature))


def test_trainings_of_one_group_may_have_other_data_and_perturbations():
    features = ["plain", "perturbed-per-image", "augmentation"]
    ended, _ = together(features)
    for seed, (feature, each) in enumerate(zip(features, ended, strict=True)):
        assert_equal(each.result, alone(seed, feature))


def test_trainings_of_other_lengths_end_when_they_end():
    features = [{"recipe": {"epochs": epochs}} for epochs in (1, 4, 2)]
    ended, _ = together(features)
    for seed, (feature, each) in enumerate(zip(features, ended, strict=True)):
        assert_equal(each.result, alone(seed, feature))


def test_a_group_larger_than_fits_runs_in_parts(counted):
    ended, _ = together(["plain"] * 3, size=2, graph=counted)
    assert set(counted.captures) == {2, 1}
    for seed, each in enumerate(ended):
        assert_equal(each.result, alone(seed, "plain"))


class Fails(Layers):
    """Its ninth step fails."""

    def __init__(self, seed):
        super().__init__(seed)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.steps += self.training
        if self.steps > 8:
            raise ValueError("no more")
        return super().forward(x)


def test_one_that_fails_does_not_touch_the_others():
    features = ["plain", {"network": Fails}, "plain"]
    ended, _ = together(features)
    assert [str(each.error or "") for each in ended] == ["", "no more", ""]
    for seed in (0, 2):
        assert_equal(ended[seed].result, alone(seed, "plain"))


def test_one_that_cannot_begin_does_not_touch_the_others():
    ended, _ = together(["plain", {"network": None}, "plain"])
    assert isinstance(ended[1].error, TypeError)
    assert_equal(ended[2].result, alone(2, "plain"))


def test_one_that_diverges_does_not_touch_the_others():
    features = ["plain", {"recipe": {"learning_rate": 1e38}}, "plain"]
    said = []
    ended, _ = together(features, said=said)
    assert not said
    assert ended[1].result[0].history[-1]["train_loss"] is None
    for seed, (feature, each) in enumerate(zip(features, ended, strict=True)):
        if seed != 1:
            assert_equal(each.result, alone(seed, feature))


class Refused(RecordedCalls):
    """A graph that cannot be captured, as of a network that waits for its device."""

    def capture(self, _works, _generators):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


class Frozen(RecordedCalls):
    """A graph that replays other numbers: as where a network counts its calls in Python."""

    def replay(self):
        raised = super().replay()
        for own, each in zip(self._generators, self._works, strict=True):
            with own.active():
                each()
        return raised


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (Refused, "RuntimeError: operation not permitted when stream is capturing"),
        (Frozen, "a step in a graph computes other numbers than outside"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly_and_is_told_once(graph, reason):
    said = []
    ended, _ = together(["plain"] * 3, graph=graph, said=said)
    assert said == [f"its steps are not captured, which is slower on a GPU ({reason})"]
    for seed, each in enumerate(ended):
        assert_equal(each.result, alone(seed, "plain"))


def test_after_an_evaluation_that_cannot_be_captured_steps_are_captured_anew(counted):
    """Their graph draws from generators that the failed capture has left behind."""

    class RefusesSixth(counted):
        def capture(self, works, generators):
            if len(Counted.captures) == 5:
                Counted.captures += (0,)
                raise RuntimeError("operation not permitted when stream is capturing")
            super().capture(works, generators)

    # Three splits and the steps of both; then of the second alone steps, and the refused split.
    features = [{"recipe": {"epochs": epochs}} for epochs in (1, 4)]
    ended, _ = together(features, graph=RefusesSixth)
    splits, steps = (1, 1), (1,)
    assert Counted.captures == (2, 2, 2, 2, *steps, 0, *splits, *steps)
    for seed, (feature, each) in enumerate(zip(features, ended, strict=True)):
        assert_equal(each.result, alone(seed, feature))


def test_fp16_runs_eagerly(monkeypatch):
    said = []
    monkeypatch.setattr(torch.amp.GradScaler, "is_enabled", lambda _: True)
    monkeypatch.setattr(captured_module, "FixedInputs", None)
    together(["plain"], said=said)
    assert "(fp16 scales its loss on the host)" in said[0]


def graph_for(most):
    """A graph that has memory for ``most`` works."""

    class Limited(RecordedCalls):
        def warm_up(self, works):
            super().warm_up(works[:most])
            if len(works) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return Limited


@pytest.mark.parametrize(("most", "expected"), [(2, 2), (1, 1), (0, 1)])
def test_where_memory_runs_out_the_group_is_halved(most, expected):
    said = []
    ended, group = together(["plain"] * 5, size=4, graph=graph_for(most), said=said)
    assert group.size == expected
    assert said[0] == "memory runs out: 2 trainings at a time from here on"
    for seed, each in enumerate(ended):
        assert_equal(each.result, alone(seed, "plain"))


class Large(Layers):
    """Has memory for three images in training."""

    def forward(self, x):
        if self.training and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)


def test_where_memory_runs_out_for_one_its_batch_is_split():
    feature = {"network": Large}
    said = []
    ended, _ = together([feature] * 2, said=said)
    assert said[0] == "memory runs out: 4 trainings at a time from here on"
    split = {"network": Layers, "micro_batch": 2}
    for seed, each in enumerate(ended):
        assert_equal(each.result, alone(seed, split))


class Dropping(Layers):
    def forward(self, x):
        return torch.dropout(super().forward(x), 0.3, self.training)


class LargeDropping(Dropping):
    """Draws before memory runs out."""

    def forward(self, x):
        logits = super().forward(x)
        if self.training and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return logits


def test_a_batch_that_is_split_draws_as_if_it_had_been_from_the_beginning():
    result = alone(0, {"network": LargeDropping})
    assert_equal(result, alone(0, {"network": Dropping, "micro_batch": 2}))


def test_an_update_for_which_memory_runs_out_is_not_taken_twice(monkeypatch):
    training = training_of(0, {"network": Layers})
    updates = []

    def exhausted(optimizer):
        updates.append(optimizer)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(training.stepping.scaler, "step", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        training.train(data_seed=1, augmentation_seed=2)
    assert len(updates) == 1


def test_an_optimizer_that_memory_ran_out_for_begins_anew():
    steps = []

    class Exhausted(RecordedCalls):
        def warm_up(self, works):
            super().warm_up(works)
            for step in steps:
                for moments in step.optimizer.state.values():
                    del moments["exp_avg"]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def watched():
        torch.manual_seed(100)
        training = training_of(0, "adamw", captured=True)
        steps.append(training.stepping)
        return (yield from training.loop(0, 5, [1]))

    (ended,) = Group(CPU, 1, Exhausted, lambda _: None).run([watched()])
    assert ended.error is None
    assert ended.result.history == alone(0, "adamw")[0].history


def test_a_batch_that_is_normalised_by_itself_is_not_split():
    class Normalised(Large):
        def __init__(self, seed):
            super().__init__(seed)
            self.norm = torch.nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(super().forward(x))

    ended, _ = together([{"network": Normalised}, "plain"])
    assert isinstance(ended[0].error, torch.OutOfMemoryError)
    assert_equal(ended[1].result, alone(1, "plain"))


def test_an_interrupt_ends_all_and_passes():
    ends = []

    class Interrupts(Layers):
        def forward(self, x):
            if self.training:
                raise KeyboardInterrupt
            return super().forward(x)

    def noted(seed, feature):
        try:
            return (yield from work(seed, feature, captured=True))
        finally:
            ends.append(seed)

    group = Group(CPU, 4, RecordedCalls, print)
    features = ["plain", {"network": Interrupts}, "plain"]
    with pytest.raises(KeyboardInterrupt):
        group.run([noted(seed, feature) for seed, feature in enumerate(features)])
    assert sorted(ends) == [0, 1, 2]


def test_the_warm_up_is_undone():
    """Weights, batch statistics, the optimizer's state and generators are those of before."""

    states = []

    class Stops(RecordedCalls):
        def capture(self, works, generators):
            states.append(snapshot())
            super().capture(works, generators)

    torch.manual_seed(3)
    training = training_of(0, "adamw", captured=True)

    def snapshot():
        optimizer = training.stepping.optimizer.state.values()
        moments = [tensor.clone() for state in optimizer for tensor in state.values()]
        state = [tensor.clone() for tensor in training.net.state_dict().values()]
        return state, moments, torch.get_rng_state()

    state, _, generator = snapshot()
    loop = training.loop(0, 0)
    Group(CPU, 1, Stops, print).run([loop])
    captured = next(state for state in states if state[1])
    assert all(torch.equal(a, b) for a, b in zip(state, captured[0], strict=True))
    assert len(captured[1]) == 3 * len(list(training.net.parameters()))
    assert not any(tensor.any() for tensor in captured[1])
    assert torch.equal(generator, captured[2])


def test_inputs_are_filled_into_the_same_memory():
    training = training_of(0, "perturbed-per-image-augmented", captured=True)
    generator = torch.Generator().manual_seed(0)
    draws = [training.stepping.draw(torch.arange(8) + i, generator, i) for i in range(2)]
    inputs = FixedInputs(draws[:1], CPU)
    fixed = inputs.draws[0]
    addresses = [t.data_ptr() for t in (fixed.rates, fixed.batch.indices, fixed.batch.runs)]
    inputs.fill(draws[1:])
    assert torch.equal(fixed.batch.indices, draws[1].batch.indices)
    assert torch.equal(fixed.batch.runs, draws[1].batch.runs)
    assert torch.equal(fixed.rates, draws[1].rates)
    assert torch.equal(fixed.batch.augmentation.warp, draws[1].batch.augmentation.warp)
    assert addresses == [t.data_ptr() for t in (fixed.rates, fixed.batch.indices, fixed.batch.runs)]
    shorter = training.stepping.draw(torch.arange(5), generator, 0)
    assert inputs.fits(draws[1:])
    assert not inputs.fits([shorter])


def test_whatever_comes_from_the_host_is_packed_for_a_card():
    """A copy out of other memory would be part of the graph, and read what is there by then."""
    inputs = FixedInputs([torch.arange(6)], CPU)
    turned = torch.arange(6).view(2, 3).T
    assert not inputs._is_packed(turned)
    inputs._device = torch.device("cuda")
    assert inputs._is_packed(turned)


@pytest.mark.parametrize("draw", [np.random.rand, np.random.randn])
def test_host_generators_are_each_trainings_own(draw):
    """numpy's and Python's too: of a network that draws from them.

    Normal numbers are made in pairs, of which numpy holds the second for the next call.
    """

    class Draws(Layers):
        def forward(self, x):
            return super().forward(x) * (1 + 0.01 * random.random() + 0.01 * draw())

    def seeded(seed, *, captured):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the global one
        return (yield from work(seed, {"network": Draws}, captured=captured))

    ended = Group(CPU, 8, RecordedCalls, print).run([seeded(s, captured=True) for s in SEEDS])
    for seed in SEEDS:
        assert_equal(ended[seed].result, run_alone(seeded(seed, captured=False)))


def test_the_memory_of_numpys_generator_is_its_state():
    np.random.random(3)  # noqa: NPY002  # the global one
    words = np.frombuffer(_NumpyState.now(None).memory, np.uint32)
    _, expected, position, *_ = np.random.get_state()  # noqa: NPY002  # as above
    assert np.array_equal(words, [*expected, position])


def test_steps_that_draw_nothing_copy_no_state_of_numpy(monkeypatch):
    """It would take longer than a captured step."""
    calls, before = [], np.random.get_state()  # noqa: NPY002  # the global one
    np.random.seed(0)  # noqa: NPY002  # as above
    for name in ("get_state", "set_state"):
        original = getattr(np.random, name)
        monkeypatch.setattr(np.random, name, lambda *a, f=original: calls.append(1) or f(*a))
    counts = []
    for epochs in (1, 5):
        calls.clear()
        feature = {"recipe": {"epochs": epochs, "evaluate_test": "last", "evaluate_train": "last"}}
        together([feature] * 2)
        counts.append(len(calls))
    monkeypatch.undo()
    np.random.set_state(before)  # noqa: NPY002  # as above
    assert counts[0] == counts[1]


def test_the_probe_measures_a_step_eagerly_and_captured(monkeypatch):
    monkeypatch.setattr(probe, "STEPS", 3)
    assert re.fullmatch(r"\d+ steps/s, eager \d+ steps/s", probe.probe_graph(CPU, RecordedCalls))
    assert "its steps are not captured" in probe.probe_graph(CPU, Refused)
