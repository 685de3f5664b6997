"""Which executor a run uses: found by entry point, its options checked, its mistakes told early."""

from __future__ import annotations

import os
import pickle
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from command_line import cli
from pydantic import Field
from tiny_suite import tiny_suite

import transferbench
from transferbench.engine.versions import differing_versions, package_versions
from transferbench.errors import ExecutorError, PluginError, UnknownNameError
from transferbench.runner.executors import offers
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.offers import choose_executor, executor_names
from transferbench.runner.executors.spec import ExecutorOptions, ExecutorSpec
from transferbench.runner.executors.this_machine import LOCAL

SMALL = {
    "replicates": 1,
    "diagnostics": {},
    "claims": {},
    "perturbations": {"none": {"name": "identity"}},
}


class QueueOptions(ExecutorOptions):
    partition: str = ""
    gpus: int = Field(0, ge=0)
    hours: float = 1.0


def build(context, options):
    pickle.dumps(context)  # it may travel to other machines
    BUILT.append((context, options))
    return InProcessExecutor(context.start("cpu"))


BUILT: list = []
QUEUE = ExecutorSpec(name="queue", summary="A queue.", options=QueueOptions, build=build)
LACKING = ExecutorSpec(
    name="lacking", summary="A queue.", build=build, modules=("no_such_module",),
    install="pip install 'transferbench[queue]'",
)  # fmt: skip


class Point(SimpleNamespace):
    def load(self):
        if isinstance(self.spec, Exception):
            raise self.spec
        return self.spec


@pytest.fixture
def offered(monkeypatch):
    """Entry points in the group, besides those that are installed."""
    real, points = metadata.entry_points, []

    def entry_points(**wanted_of):
        if wanted_of.get("group") != offers.GROUP:
            return real(**wanted_of)
        return [*real(**wanted_of),
                *(p for p in points if wanted_of.get("name") in {None, p.name})]  # fmt: skip

    monkeypatch.setattr(metadata, "entry_points", entry_points)

    def offer(name, spec, distribution="queues"):
        dist = SimpleNamespace(name=distribution, version="1.0")
        points.append(Point(name=name, value=f"{distribution}:SPEC", spec=spec, dist=dist))

    BUILT.clear()
    return offer


def test_a_third_party_offers_an_executor_by_entry_point(offered, tmp_path):
    offered("queue", QUEUE)
    assert {"local", "queue"} <= set(executor_names())
    finished = transferbench.run(
        tiny_suite(**SMALL), out=tmp_path / "run", device="cpu", progress=False, executor="queue",
        executor_options={"partition": "long", "gpus": 1},
    )  # fmt: skip
    assert not finished.failed
    ((context, options),) = BUILT
    assert options == QueueOptions(partition="long", gpus=1)
    assert context.folder == tmp_path / "run"
    assert context.done == set()
    # An executor is no part of an id: another one has nothing to do.
    again = transferbench.run(
        tiny_suite(**SMALL), out=tmp_path / "run", device="cpu", progress=False, jobs=1
    )
    assert list(again.measurements["job"]) == list(finished.measurements["job"])
    assert len(BUILT) == 1


def test_an_executor_that_cannot_describe_its_workers_costs_no_status(offered, tmp_path):
    def broken(_folder):
        raise ValueError("no queue")

    offered("queue", QUEUE.model_copy(update={"describe": broken}))
    assert offers.workers_elsewhere(tmp_path) == [
        "executor queue: cannot say what computes (ValueError('no queue'))"
    ]


def test_options_are_those_of_a_file_and_then_those_given(offered, tmp_path):
    offered("queue", QUEUE)
    path = tmp_path / "cluster.yaml"
    path.write_text("executor: queue\noptions:\n  partition: long\n  gpus: 2\n", "utf-8")
    chosen = choose_executor(path, ["gpus=4"])
    assert (chosen.spec, chosen.options) == (QUEUE, QueueOptions(partition="long", gpus=4))
    assert choose_executor(str(path), {}).options == QueueOptions(partition="long", gpus=2)


@pytest.mark.parametrize(
    ("executor", "options", "message"),
    [
        ("queue", ["partitoin=x"], "no option 'partitoin'; did you mean 'partition'?"),
        ("queue", ["gpus=-1"], "option gpus is '-1': Input should be greater than or equal to 0"),
        ("queue", {"gpus": "two"}, "option gpus is 'two': Input should be a valid integer"),
        ("queue", ["gpus"], "--executor-option gpus: write it as KEY=VALUE"),
        ("queue", ["hours=inf"], "option hours is 'inf': Input should be a finite number"),
        ("local", {"slots_gpu": 1}, "no option 'slots_gpu'; did you mean 'slots_per_gpu'?"),
        ("none.yaml", (), "the settings none.yaml of an executor cannot be read: No such file"),
        (
            "lacking",
            (),
            "executor 'lacking' needs no_such_module, not installed here: pip install 'transf",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_options_says_what_there_is(offered, executor, options, message):
    offered("queue", QUEUE)
    offered("lacking", LACKING)
    with pytest.raises(ExecutorError) as raised:
        choose_executor(executor, options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "content", ["- a", "executor: 1", "executor: queue\noptoins: {}", "executor: [", "options: {}"]
)
def test_a_file_of_settings_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "cluster.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ExecutorError, match=r"the settings .*cluster\.yaml of an executor"):
        choose_executor(path, ())


def test_an_unknown_executor_is_told_before_anything_else(tmp_path):
    result = cli("run", "quickstart", "--executor", "lcal", "--out", str(tmp_path / "run"))
    assert result.code == 2
    assert "no executor named 'lcal'; did you mean 'local'?" in result.err
    assert not (tmp_path / "run").exists()


def test_an_executor_that_is_broken_or_offered_twice_is_told(offered):
    offered("broken", ImportError("no moon"))
    offered("wrong", LOCAL)
    offered("queue", QUEUE)
    offered("queue", QUEUE, "other-queues")
    with pytest.raises(PluginError, match=r"'broken' of queues 1\.0 cannot be imported.*no moon"):
        choose_executor("broken", ())
    with pytest.raises(PluginError, match="no ExecutorSpec of that name"):
        choose_executor("wrong", ())
    with pytest.raises(PluginError, match=r"offered by other-queues 1\.0 and queues 1\.0"):
        choose_executor("queue", ())
    with pytest.raises(UnknownNameError, match="no executor named 'queues'; did you mean 'queue'"):
        choose_executor("queues", ())


def test_local_is_there_without_an_entry_point(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [])
    assert choose_executor("local", ()).spec is LOCAL


# --- versions of packages ---------------------------------------------------------------------


def test_a_node_with_other_versions_is_refused_or_recorded():
    planned = package_versions()
    assert planned["python"] == ".".join(map(str, sys.version_info[:3]))
    assert differing_versions(planned, accept=False) == ""
    assert differing_versions({}, accept=False) == ""
    other = planned | {"torch": "1.0"}
    text = f"torch {planned['torch']} instead of 1.0"
    with pytest.raises(ExecutorError, match=f"the node {os.uname().nodename} has {text}"):
        differing_versions(other, accept=False)
    assert differing_versions(other, accept=True) == text


def test_accepted_versions_are_a_fact_of_the_jobs(offered, tmp_path, monkeypatch):
    other = package_versions() | {"timm": "0.1"}
    monkeypatch.setattr("transferbench.engine.versions.package_versions", lambda: other)
    options = {"out": tmp_path / "run", "device": "cpu", "progress": False, "executor": "queue"}

    def built_elsewhere(context, options):
        monkeypatch.undo()
        return build(context, options)

    offered("far", ExecutorSpec(name="far", summary="Far.", build=built_elsewhere, remote=True))
    options["executor"] = "far"
    finished = transferbench.run(tiny_suite(**SMALL), accept_versions=True, **options)
    job = finished.measurements["job"][0]
    fact = finished.store.artefact(job).facts["other_versions"]
    assert fact == f"timm {metadata.version('timm')} instead of 0.1"
