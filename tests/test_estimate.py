"""What a plan says that a run will cost."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from tiny_suite import TINY, tiny_suite
from torch.nn.modules.module import register_module_forward_hook

from transferbench.engine.resources import Machine, WorkerResources
from transferbench.errors import PluginError, SuiteError
from transferbench.runner import cost as cost_module
from transferbench.runner.cost import (
    MEASURED_PIXELS,
    SavedBytes,
    _batch_size,
    estimate,
    peak_memory_bytes,
)
from transferbench.runner.messages import said_where_slow
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.training.captured import WARM_UPS, CannotCaptureError

CPU = torch.device("cpu")
REWINDING = {"rewinding": {"name": "rewinding"}}


@pytest.fixture
def planned(tmp_path):
    suite = tiny_suite(backbones=["fixup-resnet8", "timm/test_resnet"], diagnostics=REWINDING,
                       claims={})  # fmt: skip
    options = Options(store=str(tmp_path / "store"), out=str(tmp_path / "run"))
    return plan_suite(suite, options)


@pytest.fixture
def passes():
    """The networks whose outputs were computed, and on how many threads."""
    outputs = []

    def note(module, *_):
        outputs.append((type(module).__name__, torch.get_num_threads()))

    handle = register_module_forward_hook(note)
    yield outputs
    handle.remove()


def cost(planned, done):
    return estimate(planned, done, CPU)


def jobs(planned, kind):
    return {name for name, job in planned.plan.jobs.items() if job.kind == kind}


@pytest.mark.parametrize("fast", [True, False])
def test_networks_are_measured_with_the_kernels_of_a_worker(planned, monkeypatch, fast):
    chosen = []
    monkeypatch.setattr(cost_module, "choose_kernels", lambda *a, **k: chosen.append((a, k)))
    planned = replace(planned, options=replace(planned.options, fast_kernels=fast))
    cost(planned, set(planned.plan.jobs))
    assert chosen == [(("cpu",), {"fast": fast})]


def test_networks_are_measured_on_the_one_thread_that_a_worker_takes(planned, passes):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cost(planned, done=())
        assert {threads for _, threads in passes} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_diagnoses_cost_time_when_all_their_trials_are_done(planned):
    trained = jobs(planned, "pretrain") | jobs(planned, "trial")
    assert 0 < cost(planned, done=trained).seconds < cost(planned, done=()).seconds


def test_a_diagnosis_is_measured_by_the_network_that_it_looks_at(planned, passes):
    small = {cell.job for cell in planned.plan.cells if cell.entry == "fixup-resnet8"}
    assert len(small) == 8
    left = {
        name
        for name, job in planned.plan.jobs.items()
        if job.kind == "diagnosis" and small.issuperset(job.requires)
    }
    assert len(left) == 8
    cost(planned, done=planned.plan.jobs.keys() - left)
    assert {name for name, _ in passes} & {"FixupResNet", "ResNet"} == {"FixupResNet"}


def test_what_is_done_costs_nothing(planned, passes):
    assert cost(planned, done=planned.plan.jobs.keys()).seconds == 0
    assert passes == []


def test_no_network_is_measured_for_diagnoses_that_need_no_pass(tmp_path, passes):
    options = Options(store=str(tmp_path / "store"), out=str(tmp_path / "run"))
    planned = plan_suite(tiny_suite(), options)
    trained = jobs(planned, "pretrain") | jobs(planned, "trial")
    assert jobs(planned, "diagnosis")
    assert cost(planned, done=trained).seconds == 0
    assert passes == []


def small_recipe(tmp_path, backbone, batch_size, **changes):
    recipes = {"short": TINY["recipes"]["short"] | {"batch_size": batch_size}}
    suite = tiny_suite(backbones=[backbone], recipes=recipes, **changes)
    return plan_suite(suite, Options(store=str(tmp_path / "store"), out=str(tmp_path / "run")))


def test_batches_of_one_image_are_told_where_they_are_normalised(tmp_path):
    planned = small_recipe(tmp_path, "timm/test_resnet", 1)
    assert planned.notes[-1] == (
        "a recipe trains timm/test_resnet on batches of one image (batch_size: 1), and it "
        "normalises by statistics of its batch, those of that image alone; give the recipe a "
        "batch_size of at least 2"
    )
    with pytest.raises(SuiteError, match="batches of one image cannot train ResNet"):
        cost(planned, done=())


@pytest.mark.parametrize(
    ("backbone", "batch_size"), [("fixup-resnet8", 1), ("timm/test_resnet", 2)]
)
def test_other_batches_are_not_spoken_of(tmp_path, backbone, batch_size):
    assert not small_recipe(tmp_path, backbone, batch_size).notes


def test_a_frozen_body_is_measured_as_it_is_trained(tmp_path):
    frozen = {"P-T": {"name": "pretrained", "recipe": "short", "frozen": True},
              "RI-T": {"name": "random", "recipe": "short", "frozen": True}}  # fmt: skip
    planned = small_recipe(tmp_path, "timm/test_resnet", 1, initializations=frozen)
    assert cost(planned, done=jobs(planned, "pretrain")).seconds > 0


def altered(planned, monkeypatch, check):
    """Every backbone's networks pass ``check`` before they compute."""
    spec = planned.registry.backbone("fixup-resnet8")

    def build(*arguments):
        net = spec.build(*arguments)
        net.register_forward_pre_hook(check)
        return net

    broken = spec.model_copy(update={"build": build})
    monkeypatch.setattr(type(planned.registry), "backbone", lambda registry, name: broken)


def test_a_backbone_that_does_not_fit_is_refused_with_a_size_that_does(tmp_path, monkeypatch):
    def refuse(_, inputs):
        if inputs[0].shape[-1] < 11:
            raise ValueError("too small")

    planned = small_recipe(tmp_path, "fixup-resnet8", 4)
    altered(planned, monkeypatch, refuse)
    with pytest.raises(PluginError, match="; the next larger image size that fits is 11 px"):
        cost(planned, done=())


def test_a_backbone_that_fails_in_training_alone_is_named(tmp_path, monkeypatch):
    def refuse(net, _):
        assert not net.training, "no training mode"

    planned = small_recipe(tmp_path, "fixup-resnet8", 4)
    altered(planned, monkeypatch, refuse)
    expected = r"backbone 'fixup-resnet8' failed: AssertionError: no training mode"
    with pytest.raises(PluginError, match=expected):
        cost(planned, done=())


@pytest.mark.parametrize("head", ["fc", torch.nn.ModuleList()])
def test_a_head_that_is_no_layer_is_refused(tmp_path, head):
    planned = small_recipe(tmp_path, "fixup-resnet8", 4)
    machine = Machine(planned.store.root, planned.store.root, None, "cpu")
    resources = WorkerResources(planned.registry, planned.store, machine)
    spec = planned.registry.backbone("fixup-resnet8").model_copy(update={"head": lambda net: head})
    expected = (
        rf"'fixup-resnet8': head\(net\) gave {type(head).__name__}; it must give the layer of net "
        r"that makes the logits, or several in an nn.ModuleList"
    )
    with pytest.raises(PluginError, match=expected):
        resources.head(spec, torch.nn.Linear(2, 2))


TRIED = {(False, 2)}
"""The pass by which it is found out whether a network takes the images."""


@pytest.fixture
def batches():
    """The number of images in each forward pass of a network, and whether it was in training."""
    sizes = []

    def note(module, inputs, _):
        if type(module).__name__ == "FixupResNet":
            sizes.append((module.training, len(inputs[0])))

    handle = register_module_forward_hook(note)
    yield sizes
    handle.remove()


def test_large_steps_are_measured_on_few_images(tmp_path, batches, monkeypatch):
    """The time of a job is that of the images that were measured, times their number."""
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)
    (name,) = jobs(planned, "pretrain")
    work, done = planned.plan.jobs[name].work, planned.plan.jobs.keys() - {name}
    monkeypatch.setattr("transferbench.runner.cost._shortest", _in_30_seconds)
    for pixels, trained, evaluated in ((5 * 8**2, 5, 5), (2**20, 20, 256)):
        monkeypatch.setitem(MEASURED_PIXELS, "cpu", pixels)
        batches.clear()
        expected = 30 * (work.trained / trained + work.evaluated / evaluated)
        assert cost(planned, done).seconds == pytest.approx(expected)
        assert set(batches) - TRIED == {(True, trained), (False, evaluated)}


def _in_30_seconds(step, _):
    step()
    return 30.0


def test_trainings_of_one_shape_are_measured_together(tmp_path, batches, monkeypatch):
    """As many in one graph as there are of them, up to the size of a group."""
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)
    planned = replace_options(planned, group=3)
    times = iter([30.0, 7.0, 12.0])  # a step alone, an evaluation, a step of each of a graph

    def timed(work, _):
        work()
        return next(times)

    monkeypatch.setattr("transferbench.runner.cost._shortest", timed)
    trials = sorted(jobs(planned, "trial"))[:2]
    done = planned.plan.jobs.keys() - trials
    works = [planned.plan.jobs[name].work for name in trials]
    (batch,) = {_batch_size(planned.plan.jobs[name]) for name in trials}
    expected = sum(12 / 2 / batch * work.trained + 7 / 256 * work.evaluated for work in works)
    assert cost(planned, done).seconds == pytest.approx(expected)
    # Two steps alone, and of two trainings: warm-ups, and a replay.
    assert batches.count((True, batch)) == 2 + 2 * (WARM_UPS + 1)


def test_what_cannot_be_captured_is_measured_eagerly(tmp_path, monkeypatch):
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)

    def refused(*_, **__):
        raise CannotCaptureError("it branches")

    expected = _estimated(planned, monkeypatch)
    monkeypatch.setattr("transferbench.runner.cost.CapturedSteps", refused)
    assert _estimated(replace_options(planned, group=4), monkeypatch) == expected


def _estimated(planned, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("transferbench.runner.cost._shortest", _in_30_seconds)
        return cost(planned, planned.plan.jobs.keys() - jobs(planned, "trial")).seconds


def replace_options(planned, **changes):
    return replace(planned, options=replace(planned.options, **changes))


def test_a_batch_of_two_is_measured_however_large_the_images_are(tmp_path, batches, monkeypatch):
    monkeypatch.setitem(MEASURED_PIXELS, "cpu", 1)
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)
    cost(planned, done=planned.plan.jobs.keys() - jobs(planned, "pretrain"))
    assert set(batches) == {(True, 2), (False, 2)}


def test_memory_is_that_of_all_images_of_a_step(tmp_path, monkeypatch):
    """The largest tensors of this network at 8 px: 16 channels of float32."""
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)
    monkeypatch.setattr("transferbench.runner.cost._memory", lambda _: 0)
    monkeypatch.setitem(MEASURED_PIXELS, "cpu", 5 * 8**2)
    largest_bytes = 16 * 8**2 * 4
    done = planned.plan.jobs.keys() - jobs(planned, "pretrain")
    (work,) = (planned.plan.jobs[job].work for job in jobs(planned, "pretrain"))
    expected = 3 * largest_bytes * (min(500, work.evaluated) - 5)
    assert cost(planned, done).memory_bytes == expected > 0


def test_a_step_that_takes_long_is_not_repeated(tmp_path, batches, monkeypatch):
    monkeypatch.setattr("transferbench.runner.cost.MEASURED_SECONDS", 0.0001)
    planned = small_recipe(tmp_path, "fixup-resnet8", 20)
    cost(planned, done=planned.plan.jobs.keys() - jobs(planned, "pretrain"))
    assert batches[-3:] == [(True, 20), (True, 20), (False, 256)]


def test_what_a_step_keeps_is_counted():
    """A sigmoid keeps its result, a linear layer what it takes; weights are not counted."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 2))
    torch.nn.utils.parametrizations.weight_norm(net[2])
    saved = SavedBytes(net, 7)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        net(torch.ones(7, 3)).sum().backward()
    assert (saved.total, saved.largest) == (4 * 7 * (3 + 5), 4 * 7 * 5)


def test_a_long_measurement_is_told(capsys, monkeypatch):
    monkeypatch.setattr("transferbench.runner.messages.PATIENCE_SECONDS", 0.01)
    with said_where_slow("it is measured"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "note: it is measured\n"
    with said_where_slow("it is measured"):
        pass
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_the_peak_of_a_process_is_its_own():
    """Not that of the process that started it, which Linux's ru_maxrss would count."""
    code = "from transferbench.runner.cost import peak_memory_bytes; print(peak_memory_bytes())"
    ballast = bytearray(3 * 2**28)
    ballast[::4096] = b"1" * (len(ballast) // 4096)
    peak = int(subprocess.check_output([sys.executable, "-c", code], timeout=60))
    assert 2**26 < peak < len(ballast) < peak_memory_bytes()
