"""Runs in groups leave what runs of single trainings leave; who runs what, and what is lost."""

import json
import shutil
import signal
from functools import partial
from types import SimpleNamespace

import pytest
from test_executors import start
from tiny_suite import tiny_suite

from transferbench.api import compare_runs, run
from transferbench.plan import Job, Work
from transferbench.runner.execute import grouping_of
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.executors.inprocess import attempt_all
from transferbench.runner.executors.local import LocalExecutor, SlotSetup
from transferbench.runner.executors.this_machine import MEASURES, TRAINS, gpu_setups
from transferbench.runner.schedule import Grouping, JobSchedule, SilentWatcher, shape_of
from transferbench.store import Store

SMALL = {"replicates": 2, "diagnostics": {"curve": {"name": "learning-curve"}}, "claims": {}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    return run(tiny_suite(**SMALL), out=folder, jobs=1, device="cpu", progress=False)


def files_of(finished, name):
    return {
        path.parent.name: path.read_bytes()
        for path in (finished.folder.parent / "store" / "jobs").rglob(name)
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_in_groups_leaves_the_same_files(alone, jobs, tmp_path):
    options = {"jobs": jobs, "group": 3, "device": "cpu", "progress": False}
    grouped = run(tiny_suite(**SMALL), out=tmp_path / "run", **options)
    assert not grouped.failed
    records = [(each.folder / "records.jsonl").read_bytes() for each in (alone, grouped)]
    assert records[0] == records[1]
    for name in ("final.safetensors", "best.safetensors", "history.json", "outputs.safetensors"):
        expected = files_of(alone, name)
        assert len(expected) >= 8
        assert files_of(grouped, name) == expected
    facts = [Store(grouped.folder.parent / "store").manifest(job).facts
             for job in files_of(grouped, "history.json")]  # fmt: skip
    assert max(fact.get("trained_together", 1) for fact in facts) == 3


# --- what fails, and what is lost -----------------------------------------------------------------


class Together:
    """Runs payloads together; a payload that is an error is raised."""

    def __init__(self):
        self.calls = []

    def __call__(self, payload):
        self.calls.append(payload)
        if isinstance(payload, Exception):
            raise payload

    def together(self, payloads):
        self.calls.append(tuple(payloads))
        if "all" in payloads:
            raise ValueError("nothing went together")
        return [each if isinstance(each, Exception) else None for each in payloads]


def test_what_fails_together_is_run_again_alone():
    runner, error = Together(), ValueError("its own")
    outcomes = attempt_all({"a": 1, "b": error, "c": 3}, runner)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert outcomes[1].message == "ValueError: its own"
    assert runner.calls == [(1, error, 3), error]


def test_where_nothing_goes_together_each_runs_alone():
    runner = Together()
    outcomes = attempt_all({"a": 1, "b": "all"}, runner)
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert runner.calls == [(1, "all"), 1, "all"]


def test_a_worker_that_dies_loses_all_that_it_had():
    with LocalExecutor(start, 1) as executor:
        executor.submit(Assignment({"a": ("sleep", 0), "b": ("die", signal.SIGKILL)}))
        outcomes = []
        while len(outcomes) < 2:
            outcomes += executor.wait(30)
    assert {outcome.job: outcome.status for outcome in outcomes} == {"a": "lost", "b": "lost"}


def test_jobs_that_run_together_have_the_time_of_all():
    with LocalExecutor(start, 1, time_limit_seconds=0.5) as executor:
        executor.submit(Assignment({"a": ("sleep", 0.4), "b": ("sleep", 0.4)}))
        outcomes = []
        while len(outcomes) < 2:
            outcomes += executor.wait(30)
    assert {outcome.status for outcome in outcomes} == {"ok"}


class Sees:
    """An executor that notes what it gets; ``loses``: how often each job is lost."""

    def __init__(self, lanes=("",), loses=None):
        self.lanes, self.loses, self.assignments = lanes, dict(loses or {}), []
        self.slots = len(lanes)
        self.busy = []

    def free(self, lane=""):
        idle = list(self.lanes)
        for work in self.busy:
            idle.remove(work.lane if work.lane in idle else "")
        return len([each for each in idle if lane in {"", each}])

    def submit(self, work):
        assert self.free(work.lane)
        self.assignments.append(work)
        self.busy.append(work)

    def wait(self, _timeout=None):
        done, self.busy = self.busy, []
        outcomes = []
        for job in (job for work in done for job in work.jobs):
            lost = self.loses.get(job, 0) > 0
            self.loses[job] = self.loses.get(job, 0) - 1
            outcomes.append(Outcome(job, "lost" if lost else "ok", "gone" if lost else "", "", 0.0))
        return outcomes

    @property
    def groups(self):
        return [sorted(job[0] for job in work.jobs) for work in self.assignments]


def job_of(name, kind="trial", trained=80.0, requires=(), rate=0.1, **payload):
    recipe = {"batch_size": 8, "epochs": 2, "learning_rate": rate}
    payload = {"backbone": "a", "image": {"size": 8}, "recipe": recipe} | payload
    payload["dataset"] = {"classes": 3, "task": "multi-class"}
    if kind == "diagnosis":
        payload = {}
    return Job(name * 64, kind, payload, tuple(need * 64 for need in requires), name,
               Work(trained, 10.0))  # fmt: skip


def schedule_of(jobs, tmp_path, executor, grouping=None):
    by_name = {job.id: job for job in jobs}
    schedule = JobSchedule(by_name, set(), Store(tmp_path), executor, SilentWatcher(),
                           grouping=grouping or Grouping())  # fmt: skip
    return schedule.run()


def test_trainings_of_one_shape_go_to_one_worker(tmp_path):
    jobs = [
        job_of("a"), job_of("b", rate=0.2), job_of("c", trained=160.0), job_of("d"),
        job_of("e", backbone="b"), job_of("f", "diagnosis", 0.0, requires="a"),
        job_of("1", kind="pretrain"),
    ]  # fmt: skip
    executor = Sees()
    outcomes = schedule_of(jobs, tmp_path, executor, Grouping(2))
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert ["a", "b"] in executor.groups
    assert executor.groups[0] == ["c"]  # the longest
    assert sorted(job for group in executor.groups for job in group) == sorted("abcdef1")
    assert max(map(len, executor.groups)) == 2


def test_two_workers_share_what_is_ready(tmp_path):
    executor = Sees(lanes=("", ""))
    schedule_of([job_of(name) for name in "abcdef"], tmp_path, executor, Grouping(8))
    assert executor.groups == [["a", "b", "c"], ["d", "e", "f"]]


def test_a_lost_job_is_tried_again_alone_and_three_times_at_most(tmp_path):
    executor = Sees(loses={"a" * 64: 2, "b" * 64: 9})
    jobs = [job_of(name) for name in "abc"] + [job_of("d", "diagnosis", 0.0, requires="b")]
    outcomes = schedule_of(jobs, tmp_path, executor, Grouping(3))
    assert executor.groups == [["a", "b", "c"], ["a"], ["b"], ["a"], ["b"]]
    assert outcomes["a" * 64].status == outcomes["c" * 64].status == "ok"
    assert outcomes["b" * 64][1:3] == ("failed", "gone; it was tried 3 times")
    assert outcomes["d" * 64].status == "skipped"
    assert Store(tmp_path).failure("b" * 64).status == "failed"


def test_each_job_goes_to_a_worker_of_its_lane(tmp_path):
    executor = Sees(lanes=(TRAINS, MEASURES))
    jobs = [job_of("a"), job_of("b"), *(job_of(name, "diagnosis", 0.0) for name in "cde")]
    lanes = Grouping(8, lambda job: MEASURES if job.kind == "diagnosis" else TRAINS)
    schedule_of(jobs, tmp_path, executor, lanes)
    by_lane = {(work.lane, *sorted(job[0] for job in work.jobs)) for work in executor.assignments}
    assert by_lane == {(TRAINS, "a", "b"), *((MEASURES, name) for name in "cde")}
    assert all(work.cost > 0 for work in executor.assignments)


def test_with_a_card_trainings_go_to_it_whatever_is_free_at_the_start():
    executor = Sees(lanes=())
    context = SimpleNamespace(jobs={}, group_size=lambda _: 8)
    for executor.device, lanes in (("cuda", [TRAINS, MEASURES]), ("cpu", ["", ""])):
        size, lane_of = grouping_of(context, executor)
        assert size == 8
        assert [lane_of(job) for job in (job_of("a"), job_of("b", "diagnosis", 0.0))] == lanes


def test_a_card_has_one_worker_that_trains_and_others_beside_it():
    setups = gpu_setups(["0", "3"], None, 5, start)
    assert [setup.lane for setup in setups] == [TRAINS] * 2 + [MEASURES] * 3
    assert [setup.environment for setup in setups[:2]] == [
        {"CUDA_VISIBLE_DEVICES": card} for card in ("0", "3")
    ]
    assert setups[-1] == SlotSetup(MEASURES, {}, start)
    assert [setup.lane for setup in gpu_setups(["0", "1"], 1, 8, start)] == [TRAINS]
    assert [setup.lane for setup in gpu_setups(["0"], None, 1, start)] == [TRAINS, MEASURES]


def test_workers_of_a_lane_start_with_their_own_start(tmp_path):
    setups = [SlotSetup("x", {}, start), SlotSetup("y", {}, partial(int))]
    with LocalExecutor(partial(int), 2, setups=setups) as executor:
        assert (executor.free("x"), executor.free("z"), executor.free()) == (1, 2, 2)
        executor.submit(Assignment({"a": ("note", tmp_path / "log")}, lane="x"))
        (outcome,) = executor.wait(30)
    assert outcome.status == "ok"


def test_a_shape_does_not_depend_on_rates_and_data():
    first, second = (
        job_of("a"),
        job_of("b", rate=0.5, perturbation={"name": "x"}, seeds={"data": 2}),
    )
    assert shape_of(first) == shape_of(second) != ""
    assert shape_of(first) != shape_of(job_of("a", frozen=True))
    assert shape_of(job_of("c", "diagnosis", 0.0)) == ""


# --- machines -------------------------------------------------------------------------------------


def test_runs_on_other_cards_are_told_where_they_are_compared(alone, tmp_path, capsys):
    copied = shutil.copytree(alone.folder, tmp_path / "copy" / "run")
    environment = json.loads((copied / "environment.json").read_text())
    environment["jobs"] |= {"device_name": ["NVIDIA H200"], "kernels": ["deterministic"]}
    (copied / "environment.json").write_text(json.dumps(environment))
    compare_runs(alone.folder, alone.folder)
    assert "differ" not in capsys.readouterr().err
    compare_runs(alone.folder, copied)
    said = capsys.readouterr().err
    assert "the runs differ in the processors of their jobs: " in said
    assert "and NVIDIA H200" in said
    assert "the runs differ in the kernels of their jobs: none and deterministic" in said
