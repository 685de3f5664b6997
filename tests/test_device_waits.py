"""How often a diagnosis would wait for a card does not grow with its points, batches or draws.

On the CPU nobody waits; what is counted is what brings values of a card to the host.
"""

from contextlib import contextmanager

import pytest
import torch
from fake_subject import untrained_trial
from torch.utils._python_dispatch import TorchDispatchMode
from training_groups import Network, data_of

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states
from transferbench.registry import load_registry
from transferbench.specs import DiagnosticContext
from transferbench_plugins.diagnostics._images import PROJECTIONS, compute_logits, projections

CPU = torch.device("cpu")
VALUES = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"}


class Reads(TorchDispatchMode):
    """Counts the operations whose result the host reads: ``item``, ``float``, ``bool``, masks."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        del types
        self.count += operation.name().partition(".")[0] in VALUES
        return operation(*args, **kwargs or {})


@contextmanager
def counted(monkeypatch):
    """Counts these, and the copies of tensors to the host."""
    reads = Reads()

    def counting(original):
        def call(tensor, *args, **kwargs):
            reads.count += 1
            return original(tensor, *args, **kwargs)

        return call

    with monkeypatch.context() as patch, reads:
        for name in ("cpu", "tolist"):
            patch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))
        yield reads


@pytest.fixture(scope="module")
def registry():
    return load_registry()


CASES = {
    "barrier": ({"points": 3, "splits": ["test"]}, {"points": 5, "splits": ["test"]}),
    "basin": (
        {"steps": 2, "levels": 2, "draws": 1, "scan": [0, 1], "tolerance": 9.0},
        {"steps": 3, "levels": 3, "draws": 2, "scan": [0, 1], "tolerance": 9.0},
    ),
    "criticality": (
        {"alphas": 2, "sigmas": [0.1], "draws": 1, "paths": ["direct"], "ends": ["final"]},
        {"alphas": 3, "sigmas": [0.01, 0.1], "draws": 2, "paths": ["direct"], "ends": ["final"]},
    ),
    "rewinding": ({"to": ["init"]}, {"to": ["init", 1]}),
    "re-randomisation": ({"draws": 1}, {"draws": 3}),
    "shape-bias": ({"block": 2, "batch": 24}, {"block": 2, "batch": 3}),
}


def subjects_of(spec):
    """Trials whose states lie in files, as those of a run do."""
    trials = [untrained_trial() for _ in range(1 if spec.subjects == "one" else 2)]
    for index, trial in enumerate(trials):
        states = {which: trial.state(which) for which in trial.networks}
        states["final"] = states["best" if index else "final"]
        fresh = trial.fresh(5)
        trial.job, trial.labels = f"job {index}", trial.targets("test").numpy()
        trial.state, trial.fresh = states.__getitem__, lambda _, state=fresh: state
    return trials


@pytest.mark.parametrize("name", CASES)
def test_more_points_wait_no_more_often(name, registry, monkeypatch):
    spec, counts = registry.diagnostic(name), []
    subjects = subjects_of(spec)
    for params in CASES[name]:
        context = DiagnosticContext(CPU, torch.Generator().manual_seed(0), 0)
        with counted(monkeypatch) as reads:
            rows = list(spec.measure(spec.parse(params), subjects, context))
        assert any(row.value is not None for row in rows)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


def test_batch_statistics_of_states_are_recomputed_without_a_wait(monkeypatch):
    """torch would ask the device at each batch which one it is."""
    data, net = data_of(0), Network(0).eval()
    images = data.train.pipeline.batch(torch.arange(24))
    splits = {"train": Examples(images, data.train.labels[:24])}
    states = [{name: value.clone() for name, value in net.state_dict().items()}] * 3
    counts = []
    for points in (1, 3):
        with counted(monkeypatch) as reads:
            evaluate_states(net, states[:points], splits, Criterion("multi-class", "accuracy"),
                            calibration=images, batch_size=8)  # fmt: skip
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


def test_logits_of_more_batches_wait_once(monkeypatch):
    trial = untrained_trial()
    for batch in (24, 3):
        with counted(monkeypatch) as reads:
            compute_logits(trial.net, trial.images("test"), batch)
        assert reads.count == 1


def test_projections_tell_images_apart_and_wait_once(monkeypatch):
    """By which a card tells them: one value of one image differs in its last bit."""
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with counted(monkeypatch) as reads:
        marks = projections(iter(images.split(6)))
    assert reads.count == 1
    assert marks.shape == (20, PROJECTIONS)
    assert torch.equal(marks, projections(iter(images.clone().split(6))))
    other = images.clone()
    other[13, 1, 2, 3] = other[13, 1, 2, 3].nextafter(torch.tensor(9.0))
    differ = (projections(iter(other.split(6))) != marks).any(dim=1)
    assert differ.nonzero().flatten().tolist() == [13]
