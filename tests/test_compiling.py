"""Which trainings are compiled, and that what is compiled is kept, used and gone on with."""

import os
import signal

import pytest
import torch
from tiny_suite import tiny_suite
from training_groups import CPU, Layers, Network, data_of, recipe_of, training_of

from transferbench.engine import jobs
from transferbench.engine.jobs import start_engine
from transferbench.engine.resources import Machine
from transferbench.interrupts import _request
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.training import Execution, Training
from transferbench.training.compiling import keep_compiled_in, pays
from transferbench.training.graph import RecordedCalls
from transferbench.training.group import Group


@pytest.mark.parametrize(
    ("device", "batch", "steps", "side", "expected"),
    [
        ("cuda", 256, 5_000, 224, True),
        ("cuda", 256, 3_000, 224, False),  # it is over too soon
        ("cuda", 64, 1_000_000, 224, False),  # in a group its steps are as fast
        ("cuda", 64, 20_000, 384, True),
        ("cuda", 20, 10**9, 32, False),
        ("cpu", 256, 10**9, 224, False),
    ],
)
def test_long_trainings_of_large_images_are_compiled(device, batch, steps, side, expected):
    assert pays(device, recipe_of(batch_size=batch), steps, side) is expected


@pytest.fixture
def shapes(monkeypatch):
    """What a compiler is called with: the images of each pass, and whether in training."""
    passes = []

    class Compiled:
        def __init__(self, net, **_):
            self.net = net

        def __call__(self, images):
            passes.append((self.net.training, len(images)))
            return self.net(images)

        def __len__(self):
            raise TypeError("as of torch's, for most networks")

    monkeypatch.setattr(torch, "compile", Compiled)
    return passes


def compiled_training(seed, network=Network):
    execution = Execution(CPU, evaluation_batch=6, compile=True, captured=True)
    return Training(network(seed), data_of(seed), recipe_of(), execution)


def test_steps_and_whole_batches_of_evaluations_are_compiled(shapes):
    compiled_training(0).train(data_seed=1, augmentation_seed=2)
    # Of 27 + 21 + 13 images after 4 epochs each, in batches of 6.
    assert shapes.count((True, 8)) == 3 * 3
    assert shapes.count((False, 6)) == 4 * (4 + 3 + 2)
    assert set(shapes) == {(True, 8), (False, 6)}


def test_compiled_trainings_go_on_one_at_a_time_without_a_word(shapes):
    said = []
    group = Group(CPU, 3, RecordedCalls, said.append)
    trainings = [compiled_training(seed) for seed in range(3)]
    ended = group.run([training.loop(1, 2) for training in trainings])
    assert [each.error for each in ended] == [None] * 3
    assert (group.size, said) == (1, [])
    assert shapes.count((True, 8)) == 3 * 9
    assert shapes.count((False, 6)) == 3 * 36
    alone = training_of(0, "plain").train(data_seed=1, augmentation_seed=2)
    assert len(ended[0].result.history) == len(alone.history)


# --- in a worker ----------------------------------------------------------------------------------


@pytest.fixture
def pretraining(tmp_path, monkeypatch):
    """Runs a pre-training with these settings of its worker; returns its facts."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is as before at the end
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    planned = plan_suite(tiny_suite(), Options(out=tmp_path / "run", device="cpu"))
    store = planned.store
    job = next(job for job in planned.plan.jobs.values() if job.kind == "pretrain")

    def run(**settings):
        start_engine(Machine(store.root, store.datasets, None, "cpu", **settings))(job)
        facts = store.artefact(job.id).facts
        store.remove(job.id)
        return facts

    run.folder = store.root / "unfinished" / job.id
    run.store = store.root
    return run


def test_a_job_says_that_it_was_compiled(pretraining, shapes, monkeypatch):
    assert pretraining(compile=True)["compiled"] is True
    assert shapes
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(pretraining.store / "compiled")
    with monkeypatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
        keep_compiled_in(pretraining.store)
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    shapes.clear()
    assert "compiled" not in pretraining()
    assert "compiled" not in pretraining(compile=False)
    assert not shapes


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize("begun", [True, False])
def test_a_training_goes_on_as_it_was_begun(pretraining, monkeypatch, begun):
    """Whatever the rule says by then; the first worker is told to end after some steps."""
    visits = []

    def visit(self, training, progress):
        visits.append(progress.step)
        if len(visits) == 3:
            _request(signal.SIGTERM, None)
        original(self, training, progress)

    original = jobs.Unfinished.visit
    monkeypatch.setattr(jobs.Unfinished, "visit", visit)
    monkeypatch.setattr(jobs, "pays", lambda *_: begun)
    with pytest.raises(KeyboardInterrupt):
        pretraining()
    assert (pretraining.folder / "training.pt").exists()
    monkeypatch.setattr(jobs, "pays", lambda *_: not begun)
    facts = pretraining()
    assert facts.get("compiled", False) is begun
    assert len(visits) == 8 + 1  # four steps of two epochs, one of them visited again
    assert not pretraining.folder.exists()


@pytest.mark.slow
def test_networks_of_one_shape_are_compiled_once(tmp_path, monkeypatch):
    """By torch's own compiler: the numbers of eager steps but for rounding."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is as before at the end
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_compiled_in(tmp_path / "compiled")
    for seed in range(3):
        compiled = compiled_training(seed, Layers)
        state = compiled.train(data_seed=1, augmentation_seed=2).states["final"]
        eager = Training(Layers(seed), data_of(seed), recipe_of(), Execution(CPU))
        expected = eager.train(data_seed=1, augmentation_seed=2).states["final"]
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
        graphs = counters["stats"]["unique_graphs"]
        assert graphs == 2  # of a step and of an evaluation
    assert list((tmp_path / "compiled").iterdir())
