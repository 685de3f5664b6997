"""How jobs are spread over nodes that come and go; with a cluster that is made of lists."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest
import test_executors
from test_executors import is_alive, pids, soon

from transferbench.errors import DeviceError, ExecutorError, StoreError, TransferbenchError
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.options import Options
from transferbench.runner.ray import executor as executor_module
from transferbench.runner.ray import spec
from transferbench.runner.ray.actor import SlotActor
from transferbench.runner.ray.cluster import _refuse_unreachable
from transferbench.runner.ray.executor import Gone, RayExecutor, Ready, Refused, Slot
from transferbench.runner.ray.slots import Lane, Node, slots_of_nodes
from transferbench.runner.ray.spec import RayOptions

CPU = Lane("", 1, 0, b"")
LOST = "the worker on a is gone (ActorUnavailableError); what it printed is in a.log"
TRAINS, MEASURES = Lane("training", 1, 1, b""), Lane("diagnosis", 1, 0, b"")


def node(name, cpus=2, gpus=0):
    return Node(name, name, cpus, gpus)


class ListedCluster:
    """Nodes are set by a test, and so are the answers of actors; all begin at once by default."""

    def __init__(self, *nodes):
        self.alive = list(nodes)
        self.answers_of = {}
        self.given, self.killed, self.ended, self.closed = [], [], [], 0
        self.broken = {}

    def nodes(self):
        return list(self.alive)

    def begin(self, node, lane):
        return Slot(
            node, lane.name, actor=None, pending=[self.broken.get(node.id, Ready(f"{node.id}.log"))]
        )

    def give(self, slot, jobs):
        self.given.append((slot.node.id, slot.lane, list(jobs.jobs)))
        slot.pending = [self.answers_of[job] for job in jobs.jobs if job in self.answers_of]

    def answers(self, slots, timeout):  # noqa: ARG002  # what is answered is there at once
        return [(slot, slot.pending.pop(0)) for slot in slots if slot.pending]

    def end(self, slots, timeout):  # noqa: ARG002  # as above
        self.ended += slots

    def kill(self, slot):
        self.killed.append(slot)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def _nodes_are_looked_at_always(monkeypatch):
    monkeypatch.setattr(executor_module, "TICK_SECONDS", 0.0)


def ok(job):
    return [Outcome(job, "ok", "", "", 0.0)]


# --- how many slots a cluster has room for --------------------------------------------------------


def test_each_node_has_as_many_slots_as_cores():
    nodes = [node("head", cpus=0), node("a", cpus=2), node("b", cpus=3.5)]
    assert slots_of_nodes(nodes, [CPU], None) == {("a", ""): 2, ("b", ""): 3}


def test_a_few_slots_are_spread_over_the_nodes():
    nodes = [node("a", cpus=4), node("b", cpus=4)]
    assert slots_of_nodes(nodes, [CPU], 3) == {("a", ""): 2, ("b", ""): 1}


def test_cards_train_and_the_cores_that_are_left_measure():
    nodes = [node("cards", cpus=6, gpus=2), node("cores", cpus=1)]
    slots = slots_of_nodes(nodes, [TRAINS, MEASURES], None)
    assert slots == {
        ("cards", "training"): 2, ("cards", "diagnosis"): 4, ("cores", "diagnosis"): 1,
    }  # fmt: skip


def test_cards_come_first_where_slots_are_few():
    nodes = [node("cards", cpus=6, gpus=2)]
    assert slots_of_nodes(nodes, [TRAINS, MEASURES], 1) == {("cards", "training"): 1}


@pytest.mark.parametrize("share", [1, 2, 3, 7])
def test_a_card_is_shared_by_as_many_slots_as_asked(share):
    lane = Lane("", 0.5, 1 / share, b"")
    assert slots_of_nodes([node("a", cpus=64, gpus=2)], [lane], None).total() == 2 * share


class Context:
    """What a run gives to ``build``, as far as slots depend on it; a start is its arguments."""

    def __init__(self, **options):
        self.options = Options(**options)

    def start(self, *arguments):
        return arguments


def lanes_of(nodes, options=None, **run):
    context = Context(**run)
    device = spec._device(context.options, nodes)
    lanes = spec._lanes(context, RayOptions(**options or {}), device, nodes)
    return [(lane.name, lane.cpus, lane.gpus, *pickle.loads(lane.start)) for lane in lanes]  # noqa: S301  # of this line


def test_what_a_slot_takes_of_its_node():
    cards, cores = node("cards", cpus=16, gpus=2), node("cores", cpus=4)
    assert lanes_of([cores]) == [("", 1, 0, "cpu", 4, None)]
    assert lanes_of([cores], {"cpus_per_slot": 2}) == [("", 2, 0, "cpu", 2, None)]
    assert lanes_of([cards, cores]) == [
        ("training", 1, 1, "cuda", 16, None), ("diagnosis", 1, 0, "cpu", 16, 1),
    ]  # fmt: skip
    assert lanes_of([cards], {"slots_per_gpu": 3})[0][:3] == ("training", 1, 0.3333)
    assert lanes_of([cards], gpus_per_job=2)[0][:3] == ("training", 2, 2)
    assert lanes_of([cards], device="cpu", jobs=3) == [("", 1, 0, "cpu", 3, None)]


def test_what_no_node_has_is_told():
    with pytest.raises(DeviceError, match=r"no node of the Ray cluster has more than 0; use"):
        lanes_of([node("cores")], device="cuda")
    with pytest.raises(DeviceError, match=r"with 4 GPU\(s\) a job .* has more than 2; use"):
        lanes_of([node("a", gpus=2), node("b", gpus=2)], gpus_per_job=4)
    with pytest.raises(ExecutorError, match="leave out slots_per_gpu or --gpus-per-job"):
        lanes_of([node("a", gpus=2)], {"slots_per_gpu": 2}, gpus_per_job=2)


@pytest.mark.parametrize("address", ["nonsense", "head:abc", "head:", ":6379"])
def test_what_is_no_address_is_told_at_once(address):
    with pytest.raises(ValueError, match="write HOST:PORT, or auto"):
        _refuse_unreachable(address)


def test_a_slot_that_this_machine_could_not_have_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = RayOptions(cpus_per_slot=1e6)
    with pytest.raises(ExecutorError, match=r"cpus_per_slot=1e\+06 was requested, and this"):
        spec._refuse_large_slots(options)
    spec._refuse_large_slots(RayOptions(cpus_per_slot=1e6, address="head:6379"))


# --- nodes that come and go -----------------------------------------------------------------------


def test_a_node_that_joins_gets_actors_while_jobs_run():
    cluster = ListedCluster(node("a", cpus=1))
    with RayExecutor(cluster, [CPU]) as executor:
        assert executor.free() == 1
        executor.submit(Assignment.of("long", None))
        assert executor.free() == 0
        cluster.alive.append(node("b", cpus=1))
        assert executor.wait() == []
        assert executor.free() == 1
        executor.submit(Assignment.of("other", None))
    assert [node for node, *_ in cluster.given] == ["a", "b"]


def test_jobs_of_a_node_that_is_removed_are_lost_and_its_slots_are_gone():
    cluster = ListedCluster(node("a"), node("b"))
    cluster.answers_of = {"x": Gone("is gone (ActorUnavailableError)", "all that Ray says")}
    with RayExecutor(cluster, [CPU], limit=2) as executor:
        assert executor.free() == 2
        executor.submit(Assignment({"x": None, "y": None}))
        del cluster.alive[0]
        outcomes = executor.wait()
        assert {(o.job, o.status, o.message, o.traceback) for o in outcomes} == {
            (job, "lost", LOST, "all that Ray says") for job in "xy"
        }
        assert executor.free()
        executor.submit(Assignment.of("x", None))
        assert cluster.given[-1][0] == "b"


def test_an_idle_actor_of_a_node_that_left_gets_no_job():
    cluster = ListedCluster(node("a", cpus=1), node("b", cpus=1))
    with RayExecutor(cluster, [CPU]) as executor:
        assert executor.free() == 2
        executor.submit(Assignment.of("x", None))
        del cluster.alive[1]
        executor.wait(0)
        assert executor.free() == 0
        assert [slot.node.id for slot in cluster.killed] == ["b"]


def test_an_actor_that_died_is_replaced():
    cluster = ListedCluster(node("a", cpus=1))
    cluster.answers_of = {"x": Gone("is gone (ActorDiedError)", "")}
    with RayExecutor(cluster, [CPU]) as executor:
        assert executor.free() == 1
        executor.submit(Assignment.of("x", None))
        (outcome,) = executor.wait()
        assert outcome.status == "lost"
        cluster.answers_of = {"x": ok("x")}
        assert executor.free() == 1
        executor.submit(Assignment.of("x", None))
        assert executor.wait() == ok("x")


def test_jobs_go_to_a_slot_of_their_lane():
    cluster = ListedCluster(node("a", cpus=2, gpus=1))
    with RayExecutor(cluster, [TRAINS, MEASURES]) as executor:
        assert (executor.free("training"), executor.free("diagnosis"), executor.free()) == (1, 1, 2)
        executor.submit(Assignment.of("d", None)._replace(lane="diagnosis"))
        with pytest.raises(RuntimeError, match="no slot is free"):
            executor.submit(Assignment.of("e", None)._replace(lane="diagnosis"))
        executor.submit(Assignment({"t": None, "u": None}, lane="training"))
    assert cluster.given == [("a", "diagnosis", ["d"]), ("a", "training", ["t", "u"])]


def test_trainings_wait_for_a_card_and_diagnoses_go_where_there_is_room(monkeypatch, capsys):
    monkeypatch.setattr(executor_module, "SILENCE_SECONDS", 0.0)
    cluster = ListedCluster(node("cards", cpus=1, gpus=1))
    with RayExecutor(cluster, [TRAINS, MEASURES]) as executor:
        assert (executor.free("training"), executor.free("diagnosis")) == (1, 1)
        executor.submit(Assignment.of("d", None)._replace(lane="diagnosis"))
        assert (executor.free("training"), executor.free("diagnosis")) == (0, 0)
    assert cluster.given == [("cards", "training", ["d"])]
    cluster = ListedCluster(node("cores", cpus=2))
    with RayExecutor(cluster, [TRAINS, MEASURES]) as executor:
        assert (executor.free("diagnosis"), executor.free("training")) == (2, 0)
        assert "no training worker has begun on the Ray cluster yet" in capsys.readouterr().err
        cluster.alive.append(node("cards", cpus=1, gpus=1))
        assert executor.free("training") == 1


def test_what_the_run_waits_for_is_told_once_where_no_node_has_room(monkeypatch, capsys):
    monkeypatch.setattr(executor_module, "SILENCE_SECONDS", 0.0)
    cluster = ListedCluster()
    with RayExecutor(cluster, [CPU]) as executor:
        assert [executor.free() for _ in range(3)] == [0, 0, 0]
        cluster.alive.append(node("a"))
        assert executor.free() == 2
    assert capsys.readouterr().err.count("no worker has begun on the Ray cluster yet") == 1


# --- nodes that cannot work -----------------------------------------------------------------------


def test_a_node_that_cannot_work_is_told_and_not_used(capsys):
    cluster = ListedCluster(node("a"), node("b", cpus=1))
    cluster.broken = {"a": Refused(StoreError("a has no such folder"))}
    with RayExecutor(cluster, [CPU]) as executor:
        while not executor.free():
            pass
        assert executor.free() == 1
        executor.submit(Assignment.of("x", None))
    assert cluster.given[0][0] == "b"
    assert "the node a is not used: a has no such folder" in capsys.readouterr().err


def test_a_worker_that_cannot_start_loses_its_jobs_to_other_nodes():
    cluster = ListedCluster(node("a", cpus=1), node("b", cpus=1))
    cluster.answers_of = {"x": Refused(TransferbenchError("no plugin file there"))}
    with RayExecutor(cluster, [CPU]) as executor:
        assert executor.free() == 2
        executor.submit(Assignment.of("x", None))
        (outcome,) = executor.wait()
        assert outcome.status == "lost"
        assert outcome.message == (
            "the worker on a could not start: no plugin file there; what it printed is in a.log"
        )
        assert executor.free() == 1


def test_the_run_ends_where_no_node_can_work():
    cluster = ListedCluster(node("a"), node("b"))
    cluster.broken = dict.fromkeys("ab", Refused(StoreError("not shared")))
    with RayExecutor(cluster, [CPU]) as executor, pytest.raises(StoreError, match="not shared"):
        executor.free()
    assert cluster.closed == 1


def test_a_node_whose_actors_die_at_once_is_not_tried_for_ever():
    cluster = ListedCluster(node("a", cpus=1))
    cluster.broken = {"a": Gone("is gone (ActorDiedError)", "no module named transferbench")}
    with (
        RayExecutor(cluster, [CPU]) as executor,
        pytest.raises(TransferbenchError, match="its workers die: no module named transferbench"),
    ):
        [executor.free() for _ in range(3)]
    assert len(cluster.killed) == 3


# --- the end --------------------------------------------------------------------------------------


def test_jobs_are_ended_and_every_actor_is_killed_at_the_end():
    cluster = ListedCluster(node("a"))
    executor = RayExecutor(cluster, [CPU])
    assert executor.free() == 2
    executor.submit(Assignment.of("x", None))
    executor.close()
    assert [slot.jobs for slot in cluster.ended] == [["x"]]
    assert Counter(slot.node.id for slot in cluster.killed) == {"a": 2}
    assert cluster.closed == 1


def test_every_actor_is_killed_where_the_end_is_interrupted():
    cluster = ListedCluster(node("a"))
    executor = RayExecutor(cluster, [CPU])
    executor.free()
    executor.submit(Assignment.of("x", None))

    def interrupted(_slots, _timeout):
        raise KeyboardInterrupt

    cluster.end = interrupted
    with pytest.raises(KeyboardInterrupt):
        executor.close()
    assert len(cluster.killed) == 2
    assert cluster.closed == 1


# --- what an actor does, in this process ----------------------------------------------------------


@pytest.fixture
def actor(tmp_path):
    start = pickle.dumps(test_executors.start)
    actor = SlotActor(start, 0.5, [str(Path(__file__).parent)], str(tmp_path))
    yield actor
    actor._worker.close()


def test_an_actor_tells_how_each_job_ended(actor):
    jobs = {"a": ("sleep", 0.0), "b": ("fail", ValueError("bad"))}
    answers = [outcome for part in actor.run(jobs) for outcome in part]
    assert [(o.job, o.status, o.message) for o in answers] == [
        ("a", "ok", ""), ("b", "failed", "ValueError: bad"),
    ]  # fmt: skip
    (late,) = (outcome for part in actor.run({"c": ("sleep", 60.0)}) for outcome in part)
    assert late.status == "timeout"
    assert late.message.startswith("took longer than 0.5 s")


def test_an_actor_ends_its_job_as_an_interrupt_does(actor, tmp_path):
    path, actor._worker._limit_seconds = tmp_path / "processes", None
    began = Thread(target=lambda: (soon(lambda: len(pids(path)) == 2), actor.end()))
    began.start()
    assert list(actor.run({"a": ("have_child", path)})) == []
    began.join()
    assert soon(lambda: not any(map(is_alive, pids(path))))


def test_a_node_that_does_not_see_the_folder_of_the_run_says_so(tmp_path):
    missing = tmp_path / "elsewhere"
    actor = SlotActor(b"", None, [], str(missing))
    with pytest.raises(StoreError, match=rf"cannot write to {re.escape(str(missing))}: No such"):
        actor.ready()
