"""What a plan says that a run will cost."""

import pytest
import torch
from tiny_suite import tiny_suite
from torch.nn.modules.module import register_module_forward_hook

from transferbench.runner.cost import estimate
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite

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
