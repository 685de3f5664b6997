"""The executor slurm without Slurm: chunks are threads, and what Slurm would say is scripted."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from command_line import cli, files_no_larger_than

from transferbench.errors import ExecutorError, StoreError
from transferbench.plan import Job, Work
from transferbench.runner.executors import Assignment
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.offers import choose_executor
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.options import Options
from transferbench.runner.schedule import JobSchedule, SilentWatcher
from transferbench.runner.slurm import chunk as chunk_module
from transferbench.runner.slurm import executor as executor_module
from transferbench.runner.slurm.chunk import SharedSchedule
from transferbench.runner.slurm.control import ElementState, SlurmControl, elements_in
from transferbench.runner.slurm.executor import ArrayExecutor, cancel, describe
from transferbench.runner.slurm.ledger import Entry, Ledger
from transferbench.runner.slurm.losses import gone_writers, write_losses
from transferbench.runner.slurm.options import SlurmOptions
from transferbench.runner.slurm.session import Session
from transferbench.store import Store


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(executor_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(executor_module, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(chunk_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(chunk_module, "WATCH_SECONDS", 0.05)


class KilledError(BaseException):
    """Signal 9, which nothing catches."""


def job_of(name, requires="", trained=1.0):
    return Job(name * 64, "trial", {"image": None}, tuple(each * 64 for each in requires), name,
               Work(trained, 0.0))  # fmt: skip


class Cluster:
    """Threads as chunks; ``run``: what a job does; ``fates``: of the chunks, in their order."""

    def __init__(self, run, fates=()):
        self.run, self.fates = run, list(fates)
        self.elements: dict[str, ElementState] = {}
        self.threads: list[threading.Thread] = []
        self.endings: list[int] = []
        self.cancelled: list[str] = []
        self.submissions: list[int] = []
        self.chunks: list[chunk_module.Chunk] = []

    def submit(self, _folder, chunk, n):
        self.submissions.append(n)
        self.chunks.append(chunk)
        names = [f"{len(self.submissions)}_{i}" for i in range(n)]
        for name in names:
            fate = self.fates.pop(0) if self.fates else "runs"
            self.elements[name] = ElementState("RUNNING")
            if fate == "hangs":
                continue
            if fate == "refused":
                Ledger(chunk.session, f"{name}.0").write(Entry("", 0, "failed", "another torch"))
                self.elements[name] = ElementState("FAILED", detail="FAILED, ExitCode=1:0")
                continue
            self.start(chunk.session, name)
        return names

    def start(self, session, name, restarts=0):
        thread = threading.Thread(target=self._chunk, args=(session, name, restarts), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _chunk(self, session, name, restarts):
        context, options = chunk_module.read_context(session)
        executor = InProcessExecutor(lambda: self.run)
        ledger = Ledger(session, f"{name}.{restarts}")
        try:
            SharedSchedule(context, options, ledger, executor, self).run(self.endings)
        except KilledError:
            self.elements[name] = ElementState("FAILED", detail="FAILED, ExitCode=0:9")
        else:
            self.elements[name] = ElementState("COMPLETED")

    def states(self, elements):
        return {name: self.elements[name] for name in elements}

    def cancel(self, elements):
        self.cancelled += elements

    def join(self):
        for thread in self.threads:
            thread.join(30)


class Publishes:
    """Publishes an artefact for each job; ``kills`` and ``fails``: how often each job does so."""

    def __init__(self, store, kills=None, fails=()):
        self.store, self.kills, self.fails = store, dict(kills or {}), fails
        self.ran = []
        self.lock = threading.Lock()

    def __call__(self, job):
        with self.lock:
            self.ran.append(job.title)
            if self.kills.get(job.title, 0) > 0:
                self.kills[job.title] -= 1
                raise KilledError
        if job.title in self.fails:
            raise ValueError(f"{job.title} is broken")
        with self.store.writing(job.id, job.kind) as draft:
            draft.write_json("measurements.json", [])


def context_of(tmp_path, jobs, **options):
    store = Store(tmp_path / "store")
    store.prepare()
    by_id = {job.id: job for job in jobs}
    return ExecutorContext(Options(**options), None, store, tmp_path / "run", by_id)


def schedule_of(context, executor):
    schedule = JobSchedule(
        context.jobs, set(context.done), context.store, executor, SilentWatcher()
    )
    return {context.jobs[job].title: outcome for job, outcome in schedule.run().items()}


GRAPH = [job_of("a", trained=9.0), *(job_of(name, "a") for name in "bcd"), job_of("e", "bcd")]


def test_every_job_is_computed_once_by_chunks_that_choose_them(tmp_path):
    context = context_of(tmp_path, GRAPH)
    work = Publishes(context.store)
    cluster = Cluster(work)
    with ArrayExecutor(context, SlurmOptions(chunks=2, idle_seconds=20), cluster) as executor:
        outcomes = schedule_of(context, executor)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        "abcde", "ok"
    )
    assert sorted(work.ran) == list("abcde")
    cluster.join()


def test_what_a_killed_chunk_held_is_tried_again_and_three_times_at_most(tmp_path, capsys):
    context = context_of(tmp_path, [*GRAPH, job_of("f"), job_of("1", "f")])
    work = Publishes(context.store, kills={"b": 1, "f": 9})
    cluster = Cluster(work)
    with ArrayExecutor(context, SlurmOptions(chunks=2, idle_seconds=1), cluster) as executor:
        outcomes = schedule_of(context, executor)
    statuses = {name: outcome.status for name, outcome in outcomes.items()}
    assert statuses == dict.fromkeys("abcde", "ok") | {"f": "failed", "1": "skipped"}
    assert outcomes["f"].message.endswith("ended (FAILED, ExitCode=0:9); it was tried 3 times")
    assert (work.ran.count("b"), work.ran.count("f")) == (2, 3)
    assert all(work.ran.count(name) == 1 for name in "acde")
    assert "chunk(s) submitted: 1_0" in capsys.readouterr().err


def test_a_failure_costs_its_dependents_alone_and_is_kept(tmp_path):
    context = context_of(tmp_path, GRAPH)
    work = Publishes(context.store, fails="c")
    cluster = Cluster(work)
    with ArrayExecutor(context, SlurmOptions(chunks=2), cluster) as executor:
        outcomes = schedule_of(context, executor)
    statuses = {name: outcome.status for name, outcome in outcomes.items()}
    assert statuses == dict.fromkeys("abd", "ok") | {"c": "failed", "e": "skipped"}
    assert work.ran.count("c") == 1
    assert context.store.failure("c" * 64).message == "ValueError: c is broken"


def test_chunks_go_on_alone_and_a_second_process_takes_them_up(tmp_path, capsys):
    context = context_of(tmp_path, GRAPH)
    work, gate = Publishes(context.store), threading.Event()

    def gated(job):
        if job.title != "a":
            gate.wait(30)
        work(job)

    cluster = Cluster(gated)
    options = SlurmOptions(chunks=1, idle_seconds=20)
    first = ArrayExecutor(context, options, cluster)
    first._begin(1)  # and then this process is killed
    while "a" not in work.ran:
        time.sleep(0.01)
    done = frozenset({"a" * 64})
    again = ExecutorContext(**{**vars(context), "done": done})
    with ArrayExecutor(again, options, cluster) as executor:
        gate.set()
        outcomes = schedule_of(again, executor)
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert (sorted(outcomes), sorted(work.ran)) == (list("bcde"), list("abcde"))
    assert cluster.submissions == [1]
    assert "goes on with 1 chunk(s) of an earlier start: 1_0" in capsys.readouterr().err


def test_chunks_finish_a_run_that_nobody_watches(tmp_path):
    context = context_of(tmp_path, GRAPH)
    work = Publishes(context.store, kills={"c": 1})
    cluster = Cluster(work)
    executor = ArrayExecutor(context, SlurmOptions(chunks=2, idle_seconds=5), cluster)
    executor._begin(2)
    cluster.join()  # one is killed, and the other learns that from Slurm
    assert all(context.store.is_done(job.id) for job in GRAPH)
    assert sorted(work.ran) == sorted("abccde")


def test_a_chunk_that_is_told_to_end_gives_its_jobs_back_and_they_are_not_counted_lost(tmp_path):
    context = context_of(tmp_path, [job_of("a")])
    session = Session.begin(context, SlurmOptions())

    class Held(InProcessExecutor):
        def wait(self, _timeout=None):
            endings.append(12)
            return []

    endings = []
    held = SharedSchedule(
        context, SlurmOptions(), Ledger(session.folder, "1_0.0"), Held(lambda: print), Cluster(None)
    )
    held.run(endings)
    assert [entry.status for entry in Ledger(session.folder, "x").read()] == ["returned"]
    assert held.jobs.losses == {}
    work = Publishes(context.store)
    Cluster(work)._chunk(session.folder, "1_1", 0)
    assert work.ran == ["a"]


def test_a_chunk_that_slurm_begins_again_frees_what_it_held(tmp_path):
    context = context_of(tmp_path, [job_of("a")])
    session = Session.begin(context, SlurmOptions())
    before = Ledger(session.folder, "1_0.0")
    assert before.claim("a" * 64)
    work = Publishes(context.store)
    Cluster(work)._chunk(session.folder, "1_0", 1)
    statuses = [(entry.status, entry.writer) for entry in Ledger(session.folder, "x").read()]
    assert statuses == [("lost", "1_0.1"), ("ok", "1_0.1")]


def test_a_job_that_was_published_before_its_chunk_went_is_not_computed_again(tmp_path):
    context = context_of(tmp_path, [job_of("a")])
    session = Session.begin(context, SlurmOptions())
    assert Ledger(session.folder, "1_0.0").claim("a" * 64)
    Publishes(context.store)(context.jobs["a" * 64])
    work = Publishes(context.store)
    Cluster(work)._chunk(session.folder, "1_0", 1)
    assert (work.ran, [entry.status for entry in Ledger(session.folder, "x").read()]) == (
        [],
        ["ok"],
    )


def test_a_node_that_is_refused_is_told_and_ends_the_run(tmp_path, capsys):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["refused"])
    executor = ArrayExecutor(context, SlurmOptions(chunks=1), cluster)
    with pytest.raises(ExecutorError, match=r"all chunks ended.*another torch \(logs in"), executor:
        schedule_of(context, executor)
    assert "chunk 1_0.0: another torch" in capsys.readouterr().err


def test_chunks_that_end_again_and_again_without_a_job_end_the_run(tmp_path):
    context = context_of(tmp_path, [job_of("a")])
    cluster = Cluster(Publishes(context.store, kills={"a": 9}))
    executor = ArrayExecutor(context, SlurmOptions(chunks=1), cluster)
    cluster.elements["1_0"] = ElementState("TIMEOUT")
    for _ in range(2):
        executor.session.elements = ["1_0"]
        executor._refuse_fruitless()
    with pytest.raises(ExecutorError, match="all chunks ended, and jobs are left: their logs"):
        executor._refuse_fruitless()


@pytest.mark.parametrize(
    ("answer", "cancelled"), [("c", ["1_0"]), ("l", []), (None, [])], ids=["c", "l", "no terminal"]
)
def test_an_interrupt_leaves_the_chunks_unless_the_user_cancels(
    tmp_path, capsys, answer, cancelled
):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"])
    ask = None if answer is None else lambda _: answer
    executor = ArrayExecutor(context, SlurmOptions(chunks=1), cluster, ask)
    executor._begin(1)
    with pytest.raises(KeyboardInterrupt), executor:
        raise KeyboardInterrupt
    assert cluster.cancelled == cancelled
    said = capsys.readouterr().err
    assert ("transferbench cancel" in said) == (not cancelled)
    shown = [line.partition("; log ")[0] for line in describe(context.folder, cluster)]
    assert shown == ([] if cancelled else ["chunk 1_0: RUNNING"])
    assert cancel(context.folder, cluster) == ([] if cancelled else ["1_0"])


def test_what_is_damaged_after_it_was_told_is_computed_again(tmp_path):
    context = context_of(tmp_path, [job_of("a")])
    executor = ArrayExecutor(
        context, SlurmOptions(chunks=1, idle_seconds=20), Cluster(None, ["hangs"])
    )
    job = "a" * 64
    session = executor.session.folder
    Ledger(session, "1_0.0").write(Entry(job, 0, "ok"))
    executor.submit(Assignment({job: None}))
    assert [outcome.status for outcome in executor.wait(1)] == ["ok"]
    executor.submit(Assignment({job: None}))
    endings = [(entry.status, entry.round) for entry in Ledger(session, "x").read()]
    assert endings == [("ok", 0), ("returned", 1)]


def test_new_chunks_have_the_options_of_the_process_that_begins_them(tmp_path, capsys):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"] * 2)
    ArrayExecutor(context, SlurmOptions(cpus=64), cluster)._begin(1)  # and then it is killed
    again = context_of(tmp_path, GRAPH, time_limit_seconds=5.0)
    ArrayExecutor(again, SlurmOptions(cpus=2), cluster)._begin(1)
    both = [chunk_module.read_context(chunk.session, chunk.context) for chunk in cluster.chunks]
    assert [options.cpus for _, options in both] == [64, 2]
    assert [context.options.time_limit_seconds for context, _ in both] == [None, 5.0]
    assert "they keep its options, and new chunks have those of this one" in capsys.readouterr().err


def test_chunks_of_two_processes_at_once_are_all_kept_track_of(tmp_path):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"] * 3)
    first = ArrayExecutor(context, SlurmOptions(), cluster)
    first._begin(1)
    second = ArrayExecutor(context, SlurmOptions(), cluster)
    second._begin(1)
    first._begin(1)
    assert Session.read(first.session.folder).elements == ["1_0", "2_0", "3_0"]


def test_what_an_earlier_process_was_told_of_and_the_store_lost_is_computed_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("transferbench.store.store.SETTLE_SECONDS", (0.0,))
    context = context_of(tmp_path, [job_of("a"), job_of("b")])
    cluster = Cluster(None, ["hangs"])
    first = ArrayExecutor(context, SlurmOptions(), cluster)
    first._begin(1)
    Publishes(context.store)(context.jobs["b" * 64])
    for job in context.jobs:
        Ledger(first.session.folder, "1_0.0").write(Entry(job, 0, "ok"))
    again = ArrayExecutor(context, SlurmOptions(), cluster)
    for job in context.jobs:
        again.submit(Assignment({job: None}))
    assert [(ended.job[0], ended.status) for ended in again.wait(0.1)] == [("b", "ok")]
    returned = [e for e in Ledger(first.session.folder, "x").read() if e.status == "returned"]
    assert [(entry.job[0], entry.round) for entry in returned] == [("a", 1)]


def test_a_job_of_slurm_that_has_the_id_of_a_chunk_is_left_alone(tmp_path):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"])
    executor = ArrayExecutor(context, SlurmOptions(), cluster)
    executor._begin(1)
    own = f"{executor.session.logs}/1_0_0_log.err"
    cluster.elements["1_0"] = ElementState("RUNNING", log=own)
    assert len(describe(context.folder, cluster)) == 1
    cluster.elements["1_0"] = ElementState("RUNNING", log="/elsewhere/logs/1_0_0_log.err")
    assert (describe(context.folder, cluster), cancel(context.folder, cluster)) == ([], [])
    assert cluster.cancelled == []
    assert executor.ledger.claim("a" * 64)
    executor.ledger.writer = "1_0.0"
    gone = gone_writers(cluster, executor.session.folder, ["1_0.0"])
    assert gone == {"1_0.0": "its chunk 1_0 ended (Slurm has another job of its id)"}


def test_cancel_ends_the_run_that_waits_and_is_not_asked_twice(tmp_path):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"] * 2)
    executor = ArrayExecutor(context, SlurmOptions(chunks=1), cluster)
    executor._begin(1)
    executor.submit(Assignment({"a" * 64: None}))
    assert cancel(context.folder, cluster) == ["1_0"]
    with pytest.raises(ExecutorError, match="cancel has ended the chunks of this run"), executor:
        executor.wait(5)
    assert (cluster.submissions, executor.ledger.rounds.total()) == ([1], 0)
    # Slurm ends its chunk meanwhile; another run does not take that up.
    assert (describe(context.folder, cluster), cancel(context.folder, cluster)) == ([], [])
    again = ArrayExecutor(context, SlurmOptions(chunks=1), cluster)
    assert again.session.folder != executor.session.folder


def test_a_session_that_is_over_is_not_asked_after(tmp_path):
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(Publishes(context.store))
    with ArrayExecutor(context, SlurmOptions(chunks=1), cluster) as executor:
        schedule_of(context, executor)
    cluster.elements.clear()  # asking would fail
    assert describe(context.folder, cluster) == []


def test_why_no_chunk_has_begun_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(executor_module, "SILENCE_SECONDS", 0.05)
    context = context_of(tmp_path, GRAPH)
    cluster = Cluster(None, ["hangs"])
    executor = ArrayExecutor(context, SlurmOptions(chunks=1), cluster)
    executor._begin(1)
    cluster.elements["1_0"] = ElementState("PENDING", detail="PENDING, Reason=PartitionConfig")
    executor.submit(Assignment({"a" * 64: None}))
    assert executor.wait(0.3) == []
    text = "none of 1 chunk(s) has begun yet (1_0): PENDING, Reason=PartitionConfig; transferbench"
    assert capsys.readouterr().err.count(text) == 1


def test_a_folder_that_is_moved_while_chunks_compute_is_told(tmp_path):
    context = context_of(tmp_path, GRAPH)
    executor = ArrayExecutor(context, SlurmOptions(), Cluster(None))
    executor.submit(Assignment({"a" * 64: None}))
    context.folder.rename(tmp_path / "moved")
    moved = pytest.raises(StoreError, match="was moved or removed meanwhile, run the command again")
    with moved, executor:
        executor.wait(1)
    assert not context.folder.exists()


# --- the ledger -------------------------------------------------------------------------------


def test_of_many_that_claim_a_job_one_has_it(tmp_path):
    jobs = [f"{i:064x}" for i in range(50)]
    ledgers = [Ledger(tmp_path, f"1_{i}.0") for i in range(8)]
    won = [[] for _ in ledgers]

    def claim_all(own):
        won[own] += [job for job in jobs if ledgers[own].claim(job)]

    threads = [threading.Thread(target=claim_all, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job for own in won for job in own) == jobs
    assert all(ledgers[0].holder(job) == ledgers[own].writer
               for own in range(8) for job in won[own])  # fmt: skip


def test_claims_without_links_and_more_than_one_file_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("transferbench.runner.slurm.ledger.LINK_LIMIT", 2)
    first, second = Ledger(tmp_path, "1_0.0"), Ledger(tmp_path, "1_1.0")
    assert all(first.claim(f"{i:064x}") for i in range(5))

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", refused)
    assert second.claim("f" * 64)
    assert not first.claim("f" * 64)
    assert first.holder("f" * 64) == "1_1.0"


def test_entries_are_read_in_the_order_of_rounds_and_unfinished_lines_later(tmp_path):
    a, z, reader = (Ledger(tmp_path, name) for name in ("a.0", "z.0", "reader"))
    z.write(Entry("j", 0, "lost"))
    z.read()
    list(a.read())
    a.write(Entry("j", 1, "ok"))  # read before what z wrote, for its name comes first
    z.write(Entry("j", 0, "ok"))  # of a round that has ended
    path = tmp_path / "entries" / "z.0.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert [entry.status for entry in reader.read()] == ["lost", "ok"]
    path.write_bytes(content + b"not an entry\n")
    assert list(reader.read()) == []
    assert reader.rounds["j"] == 2


def test_a_full_disk_is_told_and_spoils_no_line_that_is_written_later(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, "1_0.0")
    opened = Path.open

    def full(path, mode="r", **options):
        if mode == "a":
            with opened(path, "a") as stream:
                stream.write('["torn')
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="Disk quota exceeded; nothing finished is lost"):
        ledger.write(Entry("j", 0, "ok"))
    monkeypatch.undo()
    ledger.write(Entry("j", 0, "ok"))
    assert [entry.status for entry in Ledger(tmp_path, "x").read()] == ["ok"]


def test_a_disk_that_is_full_at_a_claim_leaves_none(tmp_path):
    ledger = Ledger(tmp_path, "1_0.0")
    with files_no_larger_than(0), pytest.raises(StoreError, match="File too large"):
        ledger.claim("f" * 64)
    assert ledger.holder("f" * 64) is None
    assert Ledger(tmp_path, "1_1.0").claim("f" * 64)


@pytest.mark.parametrize("content", ["", "\0\0\0"])
def test_a_claim_that_never_got_its_writer_is_lost(tmp_path, content):
    ledger, store = Ledger(tmp_path / "session", "1_0.0"), Store(tmp_path)
    assert ledger.claim("f" * 64)
    path = next(path for path in ledger.folder.rglob("*.0") if path.parent.name == "ff")
    path.write_text(content)
    names = ["f" * 64, "e" * 64]  # nobody claimed the other one
    assert write_losses(ledger, store, names, {}.get) == 0  # its writer may be about to
    os.utime(path, (0, 0))
    assert write_losses(ledger, store, names, {}.get) == 1
    (entry,) = ledger.read()
    assert (entry.status, entry.message) == ("lost", "its claim has no writer")
    assert ledger.claim("f" * 64)


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), ValueError()])
def test_an_error_loses_no_training_that_was_kept(tmp_path, error):
    kept_at = tmp_path / "unfinished" / ("a" * 64)
    Store(tmp_path).prepare()
    kept_at.mkdir()
    (kept_at / "training.pt").write_text("kept")
    with pytest.raises((StoreError, ValueError)), Store(tmp_path).writing("a" * 64, "trial"):
        raise error
    assert kept_at.exists()


# --- Slurm's words ----------------------------------------------------------------------------

SCONTROL = """\
JobId=25 ArrayJobId=23 ArrayTaskId=1 JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=0:9
JobId=24 ArrayJobId=23 ArrayTaskId=0 JobState=RUNNING Reason=None Restarts=2 ExitCode=0:0
JobId=23 ArrayJobId=23 ArrayTaskId=2-3,6%4 JobState=PENDING Reason=Resources Restarts=0 ExitCode=0:0
JobId=30 JobName=transferbench JobState=COMPLETED Reason=None Restarts=0 ExitCode=0:0
JobId=31 JobName=transferbench JobState=RUNNING Reason=None StdErr=/run/slurm/now/logs/31_0_log.err
"""


def test_what_scontrol_tells_of_arrays_is_read():
    states = elements_in(SCONTROL)
    assert sorted(states) == ["23_0", "23_1", "23_2", "23_3", "23_6", "30", "31"]
    assert states["23_1"][:3] == ("FAILED", 0, "FAILED, ExitCode=0:9, Reason=NonZeroExitCode")
    assert not states["23_1"].is_alive
    assert (states["23_0"].restarts, states["23_0"].is_running) == (2, True)
    assert states["23_6"].is_alive
    assert not states["23_6"].is_running
    assert states["31"].log == "/run/slurm/now/logs/31_0_log.err"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("4:00:00", 240), ("1-0", 1440), ("1-2:30", 1590), ("30:01", 31), ("0:0:1", 1)],
)
def test_times_are_those_of_sbatch(text, minutes):
    assert choose_executor("slurm", [f"time={text}"]).options.time == minutes


def test_options_become_those_of_sbatch():
    options = choose_executor("slurm", [
        "partition=gpu", "account=lab", "gpus=2", "mem-gb=8", "setup=module load cuda",
        "sbatch=reservation=x,mail-type=END",
    ]).options  # fmt: skip
    parameters = options.parameters()
    assert parameters["additional_parameters"] == {
        "requeue": True, "reservation": "x", "mail_type": "END",
    }  # fmt: skip
    shown = ("partition", "account", "gpus_per_node", "mem", "setup", "time", "signal_delay_s")
    assert [parameters[name] for name in shown] == [
        "gpu", "lab", 2, "8192MB", ["module load cuda"], 60, 90,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "options", "slots"),
    [({"gpus": 4}, {}, 4), ({"gpus": 4, "cpus": 16}, {}, 16),
     ({"gpus": 4, "slots_per_gpu": 2}, {}, 8), ({"gpus": 4}, {"gpus_per_job": 2}, 2),
     ({"cpus": 5}, {"gpus_per_job": 2}, 2),
     ({"cpus": 5}, {"jobs": 3}, 3)],
)  # fmt: skip
def test_a_chunk_has_as_many_slots_as_sets_of_cards(own, options, slots):
    assert SlurmOptions(**own).slots(Options(**options)) == slots


@pytest.mark.parametrize(
    ("own", "message"),
    [({"gpus": 3}, "gpus=3 of a chunk are no whole number of sets of 2, .* use gpus=4"),
     ({"cpus": 1}, "cpus=1 of a chunk are too few for the 2 processes .* use cpus=2 or gpus=2"),
     ({"gpus": 2, "slots_per_gpu": 2}, "leave out slots_per_gpu or --gpus-per-job")],
)  # fmt: skip
def test_a_chunk_that_cannot_give_a_training_its_cards_is_refused(tmp_path, own, message):
    context = context_of(tmp_path, GRAPH, gpus_per_job=2)
    with pytest.raises(ExecutorError, match=message):
        ArrayExecutor(context, SlurmOptions(**own), Cluster(None))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("time=soon", "write minutes"),
        ("chunks=0", "greater than or equal to 1"),
        ("mem_gb=inf", "a finite number"),
        ("sbatch=x", "write KEY=VALUE,KEY=VALUE"),
        ("sbatch=array=1-5", "array is set by the executor"),
        ("sbatch=mail-type=END,cpus-per-task=8", "for cpus-per-task there is the option cpus"),
        ("partitions=gpu", "did you mean 'partition'"),
    ],
)
def test_mistakes_in_options_are_told(option, message):
    with pytest.raises(ExecutorError, match=f"executor 'slurm': .*{message}"):
        choose_executor("slurm", [option])


def test_flags_of_sbatch_have_no_value():
    own = {"exclusive": True, "overcommit": False, "nice": 100}
    more = choose_executor("slurm", {"sbatch": own}).options.parameters()["additional_parameters"]
    assert more == {"requeue": True, "exclusive": True, "nice": 100}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("scancel: error: Kill job error on job id 1_0: Invalid job id specified", ""),
        ("scancel: error: Kill job error on job id 1_0: Job/step already completing", ""),
        ("scancel: error: Kill job error on job id 1_0: Access/permission denied",
         "the chunks 1_0 could not be cancelled: .* Access/permission denied; cancel them as"),
        (None, "the chunks 1_0 could not be cancelled: .*No such file"),
    ],
)  # fmt: skip
def test_chunks_that_slurm_does_not_cancel_are_told(tmp_path, monkeypatch, line, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    if line:
        (tmp_path / "scancel").write_text(f"#!/bin/sh\necho '{line}' >&2; exit 1\n")
        (tmp_path / "scancel").chmod(0o755)
    expected = pytest.raises(ExecutorError, match=message) if message else nullcontext()
    with expected:
        SlurmControl(SlurmOptions()).cancel(["1_0"])


def test_cancel_of_a_folder_without_a_run_is_refused(tmp_path):
    said = cli("cancel", tmp_path)
    assert said.code == 2
    assert "is not a run's folder" in said.err
