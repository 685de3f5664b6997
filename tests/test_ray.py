"""A suite on a Ray cluster of three nodes on this machine, which lose an actor and a node."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import test_executors
from command_line import SMALL, artefacts, cli, command, environment, suite_file
from test_executors import is_alive, pids, soon
from tiny_suite import tiny_suite

import transferbench
from transferbench.runner.executors import Assignment
from transferbench.runner.ray.cluster import RayCluster
from transferbench.runner.ray.executor import RayExecutor
from transferbench.runner.ray.slots import Lane
from transferbench.runner.schedule import SilentWatcher

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'transferbench[ray]'")
pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and files to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PATIENCE_SECONDS = 120.0
LOCALHOST = {"num_cpus": 1, "include_dashboard": False}


class Nodes:
    """Three nodes of one core each."""

    def __init__(self, cluster):
        self.cluster, self.address = cluster, cluster.address
        self.ends = [cluster.add_node(**LOCALHOST) for _ in range(2)]

    def may_leave(self, node_id):
        """Whether it is neither the head nor the node to which this process is connected."""
        mine = ray.get_runtime_context().get_node_id()
        return node_id != mine and node_id in {node.node_id for node in self.ends}

    def remove(self, node_id):
        (node,) = (node for node in self.ends if node.node_id == node_id)
        self.ends.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def refill(self):
        while len(self.ends) < 2:
            self.ends.append(self.cluster.add_node(**LOCALHOST))


@pytest.fixture(scope="module")
def three_nodes():
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108  # where Ray writes the address of the head
        head = LOCALHOST | {"temp_dir": name}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield Nodes(cluster)
        finally:
            cluster.shutdown()


@pytest.fixture
def nodes(three_nodes):
    three_nodes.refill()
    return three_nodes


@pytest.fixture
def given(monkeypatch):
    """The slots that got jobs, each with the ids of these."""
    slots, give = [], RayCluster.give

    def noted(cluster, slot, jobs):
        slots.append((slot, list(jobs.jobs)))
        give(cluster, slot, jobs)

    monkeypatch.setattr(RayCluster, "give", noted)
    return slots


def process(slot):
    """The process id of an actor, which its log is named for."""
    return int(Path(slot.log).stem.split("-")[-1])


class Accidents(SilentWatcher):
    """Kills the actor that has the first pre-training; removes the node of a later training."""

    def __init__(self, nodes, given):
        self.nodes, self.given = nodes, given
        self.killed, self.removed, self.ends = None, None, Counter()

    def started(self, job):
        slot, jobs = self.given[-1]
        if self.killed is None:
            os.kill(process(slot), signal.SIGKILL)
            self.killed = jobs[0]
        elif job.kind == "trial" and not self.removed and self.nodes.may_leave(slot.node.id):
            self.nodes.remove(slot.node.id)
            self.removed = jobs[0]

    def finished(self, job, outcome):
        self.ends[job.id, outcome.status] += 1


def test_a_suite_loses_an_actor_and_a_node_and_has_the_records_of_one_machine(
    nodes, given, tmp_path
):
    accidents = Accidents(nodes, given)
    there = transferbench.run(
        tiny_suite(), out=tmp_path / "ray" / "run", device="cpu", progress=accidents,
        executor="ray", executor_options={"address": nodes.address},
    )  # fmt: skip
    here = transferbench.run(
        tiny_suite(), out=tmp_path / "local" / "run", device="cpu", jobs=1, progress=False
    )
    assert not there.failed
    assert accidents.removed
    times = Counter(job for _, jobs in given for job in jobs)
    lost = {accidents.killed, accidents.removed}
    assert times == {job: 2 if job in lost else 1 for job in times}
    assert set(accidents.ends) == {(job, "ok") for job in times}
    assert set(accidents.ends.values()) == {1}
    assert len(artefacts(tmp_path / "ray" / "store")) == len(times)
    records = [run.folder / "records.jsonl" for run in (there, here)]
    assert records[0].read_bytes() == records[1].read_bytes()
    assert cli("verify", tmp_path / "ray" / "store").code == 0


def next_outcome(executor):
    """That of the one job that ends; meanwhile slots become free."""
    while not (outcomes := executor.wait()):
        pass
    (outcome,) = outcomes
    return outcome


def test_nodes_come_and_go_and_nothing_stays_behind(nodes, given, tmp_path):
    cluster = RayCluster(nodes.address, tmp_path / "logs", None, 1)
    (tmp_path / "logs").mkdir()
    start = pickle.dumps(test_executors.start)
    with RayExecutor(cluster, [Lane("", 1, 0, start)]) as executor:
        assert soon(lambda: executor.free() == 3, PATIENCE_SECONDS)
        for job in "abc":
            executor.submit(Assignment.of(job, ("have_child", tmp_path / job)))
        processes = [tmp_path / job for job in "abc"]
        assert soon(lambda: all(len(pids(path)) == 2 for path in processes), PATIENCE_SECONDS)
        slot, (job,) = next(each for each in given if nodes.may_leave(each[0].node.id))
        nodes.remove(slot.node.id)
        lost = next_outcome(executor)
        assert (lost.job, lost.status) == (job, "lost")
        assert "is gone" in lost.message
        assert soon(lambda: not any(map(is_alive, pids(tmp_path / job))))
        nodes.refill()
        # The new node has an actor, which takes the next job.
        assert soon(lambda: executor.wait(0) == [] and executor.free() == 1, PATIENCE_SECONDS)
        executor.submit(Assignment.of("next", ("fail", ValueError("its own fault"))))
        failed = next_outcome(executor)
        assert (failed.status, failed.message) == ("failed", "ValueError: its own fault")
    assert not ray.is_initialized()
    assert soon(lambda: not any(map(is_alive, [pid for path in processes for pid in pids(path)])))


def test_a_slot_has_the_cards_that_ray_gave_it(nodes, tmp_path):
    """Of four cards that a node only says it has, two slots have two each."""
    node = nodes.cluster.add_node(**LOCALHOST | {"num_cpus": 2, "num_gpus": 4})
    cluster = RayCluster(nodes.address, tmp_path / "logs", None, 1)
    (tmp_path / "logs").mkdir()
    lane = Lane("training", 1, 2, pickle.dumps(test_executors.start))
    try:
        with RayExecutor(cluster, [lane]) as executor:
            assert soon(lambda: executor.free("training") == 2, PATIENCE_SECONDS)
            for job in "ab":
                executor.submit(Assignment({job: ("note_cards", tmp_path / job)}, lane="training"))
            assert {next_outcome(executor).status for _ in "ab"} == {"ok"}
    finally:
        nodes.cluster.remove_node(node)
    assert {(tmp_path / job).read_text() for job in "ab"} == {"0,1", "2,3"}


def test_nodes_with_other_versions_are_refused(nodes, monkeypatch, tmp_path):
    from transferbench.engine import versions

    real = versions.package_versions
    monkeypatch.setattr(versions, "package_versions", lambda: real() | {"torch": "0.1"})
    said = cli(
        "run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--executor", "ray",
        "--executor-option", f"address={nodes.address}", "--device", "cpu",
    )  # fmt: skip
    assert said.code == 2, said
    assert "instead of 0.1, and might compute other numbers" in said.err


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        *(
            pytest.param(number, marks=pytest.mark.slow)
            for number in (signal.SIGTERM, signal.SIGKILL)
        ),
    ],
)
def test_a_run_that_is_ended_leaves_nothing_behind_and_the_next_goes_on(number, nodes, tmp_path):
    suite, run = suite_file(tmp_path, SMALL), tmp_path / "run"
    arguments = (
        "run", suite, "--out", run, "--device", "cpu", "--executor", "ray", "--executor-option",
        f"address={nodes.address}",
    )  # fmt: skip
    with subprocess.Popen(
        command(*arguments), env=environment(), process_group=0, stderr=subprocess.PIPE, text=True
    ) as front:
        assert soon(lambda: bool(artefacts(tmp_path / "store")), PATIENCE_SECONDS), (
            front.stderr.read()
        )
        actors = [int(path.stem.split("-")[-1]) for path in run.glob("ray/*/*.log")]
        assert any(map(is_alive, actors))
        os.killpg(front.pid, number)
        said = front.stderr.read()
    assert "Traceback" not in said
    assert front.returncode == (-number if number == signal.SIGKILL else 130)
    assert soon(lambda: not any(map(is_alive, actors)))
    finished = artefacts(tmp_path / "store")
    before = [(path / "manifest.json").stat().st_mtime_ns for path in finished]
    again = cli(*arguments)
    assert again.code == 0, again
    assert f"5 jobs: {len(finished)} already done, {5 - len(finished)} to run" in again.err
    assert [(path / "manifest.json").stat().st_mtime_ns for path in finished] == before
    assert len(artefacts(tmp_path / "store")) == 5


@pytest.mark.slow
def test_a_ray_that_is_begun_for_a_run_ends_with_it(tmp_path):
    suite, run = suite_file(tmp_path, SMALL), tmp_path / "run"
    arguments = ("run", suite, "--out", run, "--executor", "ray", "--device", "cpu", "--jobs", 2)
    with subprocess.Popen(
        command(*arguments), env=environment(), process_group=0, stderr=subprocess.PIPE, text=True
    ) as front:
        assert soon(lambda: bool(artefacts(tmp_path / "store")), PATIENCE_SECONDS), (
            front.stderr.read()
        )
        (session,) = Path("/tmp").glob(f"ray-{front.pid}-*")  # noqa: S108  # short names of sockets
        os.killpg(front.pid, signal.SIGINT)
    assert not session.exists()
    assert not running(str(session))


def running(text):
    """The command lines of processes that have ``text`` in them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue
    return [line for line in lines if text in line]


def test_a_cluster_that_does_not_answer_is_told(tmp_path):
    said = cli(
        "run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--executor", "ray",
        "--executor-option", "address=127.0.0.1:1", "--device", "cpu",
    )  # fmt: skip
    assert said.code == 2, said
    assert "cannot reach the Ray cluster at 127.0.0.1:1" in said.err
