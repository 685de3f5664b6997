"""What befalls a run: an interrupt, a worker that is killed, a disk that is full."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import (
    SMALL,
    artefacts,
    cli,
    environment,
    files_no_larger_than,
    mistake,
    suite_file,
)
from confined import confined, system, with_small_disk
from test_executors import is_alive, pids, soon

from transferbench.api import Run
from transferbench.interrupts import ENDING, signals_as_interrupts
from transferbench.plan import Job, Work
from transferbench.runner.executors.local import LocalExecutor
from transferbench.runner.schedule import JobSchedule, SilentWatcher
from transferbench.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

INTERRUPTED = (
    "error: interrupted; what was finished is kept, and the same command goes on from there"
)


def children(parent):
    """The ids of the living processes whose parent is ``parent``."""
    ids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent and state != "Z":
            ids.append(int(stat.parent.name))
    return ids


BUSY = """
import sys
from pathlib import Path
from transferbench.cli import app, main
from transferbench.runner.executors.local import LocalExecutor
sys.path.insert(0, {tests!r})
from test_executors import Assignment, start

@app.command()
def busy(folder: Path):
    with LocalExecutor(start, 2) as executor:
        executor.submit(Assignment.of("a", ("have_child", folder / "a")))
        executor.submit(Assignment.of("b", ("spin", folder / "b")))
        executor.wait()

main()
"""
"""A command with two workers, without the seconds for which they import torch."""


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (os.kill, signal.SIGINT),
        (os.killpg, signal.SIGINT),
        (os.kill, signal.SIGTERM),
        (os.killpg, signal.SIGHUP),
    ],
    ids=["parent alone", "process group", "terminated", "closed terminal"],
)
def test_an_interrupt_ends_a_command_and_its_workers(tmp_path, send, number):
    script = tmp_path / "busy.py"
    script.write_text(BUSY.format(tests=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, script, "busy", tmp_path], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as run:  # fmt: skip
        assert soon(lambda: len(pids(tmp_path / "a") + pids(tmp_path / "b")) == 3, 30)
        workers = pids(tmp_path / "a") + pids(tmp_path / "b")
        send(run.pid, number)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", f"{INTERRUPTED}\n")
    assert soon(lambda: not any(map(is_alive, workers)))


INTERRUPTING = """
import os
import time
from pathlib import Path

from transferbench import hookimpl
from transferbench.specs import InitializationSpec


def initialize(params, net, context):
    if not Path(__file__).with_name("go").exists():
        os.system(f"kill -TERM {os.getpid()}")
        time.sleep(20)


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="interrupting", version=1, summary="s", source="s", license="l",
                             initialize=initialize)
"""


def interrupted_run(folder):
    """The words of a run that is interrupted in a trial after another one has finished."""
    plugin = folder / "interrupting.py"
    plugin.write_text(INTERRUPTING)
    arms = SMALL["initializations"] | {"P-T": {"name": "interrupting", "recipe": "short"}}
    suite = suite_file(folder, SMALL, initializations=dict(reversed(arms.items())))
    return "run", suite, "--out", folder / "run", "--device", "cpu", "--plugin", plugin


@pytest.fixture
def handlers_restored():
    """A command that was interrupted ignores further signals to the end of its process."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers_restored")
def test_an_interrupt_loses_nothing_that_was_finished(tmp_path):
    run = (*interrupted_run(tmp_path), "--jobs", 1)
    said = cli(*run)
    assert (said.code, said.out) == (130, "")
    assert said.err.splitlines()[-1] == INTERRUPTED
    finished = finished_of_an_interrupted_run(tmp_path)
    (tmp_path / "go").touch()
    said = cli(*run)
    assert said.code == 0, said.err
    assert f"4 jobs: {len(finished)} already done" in said.err
    assert set(finished) < set(artefacts(tmp_path / "store"))


def test_the_signal_of_a_closed_terminal_stays_ignored_where_it_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def finished_of_an_interrupted_run(folder):
    """The store has what was finished; ``status`` and ``report`` know what was not."""
    finished = artefacts(folder / "store")
    assert 1 <= len(finished) <= 2
    statuses = Run(folder / "run").statuses["status"]
    assert dict(statuses.value_counts()) == {"ok": len(finished), "missing": 4 - len(finished)}
    said = cli("status", folder / "run")
    assert said.code == 0
    assert "missing" in said.out
    message = mistake("report", folder / "run")
    assert "the run did not come to its end; run the suite again with this folder as" in message
    return finished


def start_engine(root):
    """An engine without torch: a job writes its title, and "deadly" is killed three times."""

    def run(job):
        with Store(root).writing(job.id, job.kind) as draft:
            marks = list(root.glob("was-here-*"))
            if job.title == "deadly" and len(marks) < 3:
                (root / f"was-here-{len(marks)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            draft.write_json("title.json", job.title)

    return run


def test_a_worker_that_is_killed_costs_one_job(tmp_path):
    store = Store(tmp_path)
    a, b, c, d, e = (digit * 64 for digit in "abcde")
    jobs = {
        name: Job(name, "trial", {}, requires, title, Work(0, 0))
        for name, requires, title in [
            (a, (), "first"), (b, (a,), "deadly"), (c, (a,), "beside"), (d, (b, c), "needs both"),
            (e, (c,), "needs one"),
        ]
    }  # fmt: skip

    def outcomes(done=()):
        with LocalExecutor(partial(start_engine, tmp_path), 2) as executor:
            return JobSchedule(jobs, set(done), store, executor, SilentWatcher()).run()

    lost = {name: outcome for name, outcome in outcomes().items() if outcome.status != "ok"}
    assert {name: outcome.status for name, outcome in lost.items()} == {b: "failed", d: "skipped"}
    message = "the worker process was killed by signal 9 (Killed); out of memory?"
    assert message in lost[b].message
    assert lost[b].message.endswith("; it was tried 3 times")
    assert message in store.failure(b).message
    assert {outcome.status for outcome in outcomes({a, c, e}).values()} == {"ok"}
    assert {name for name in jobs if store.is_done(name)} == set(jobs)
    store.prepare()
    assert list((tmp_path / "partial").iterdir()) == []


# --- full disks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "code", "expected"),
    [
        (2_000, 2, "cannot write decoded images to"),
        (150_000, 1, "File too large"),
    ],
    ids=["decoding", "training"],
)
def test_a_refused_write_is_reported_and_room_lets_the_run_go_on(
    tmp_path, size_bytes, code, expected
):
    run = ("run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--jobs", 1)
    with files_no_larger_than(size_bytes):
        said = cli(*run)
    assert said.code == code, said.err
    assert expected in said.err
    assert "make room there" in said.err
    assert "Traceback" not in said.err
    assert list((tmp_path / "store").glob("partial/*")) == []
    assert cli(*run).code == 0


@pytest.fixture
def on_small_disk(tmp_path):
    """Calls functions where ``tmp_path / "disk"`` is a disk of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with confined(with_small_disk, folder) as there:
        yield there
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_while_training_keeps_what_was_finished(on_small_disk, tmp_path):
    disk = tmp_path / "disk"
    run = ("run", suite_file(tmp_path, SMALL), "--out", disk / "run", "--jobs", 1)
    said = on_small_disk(cli, *run)
    assert said.code == 1, said.err
    assert (
        "No space left on device (0 MiB free there); choose another folder with --out" in said.err
    )
    finished = on_small_disk(artefacts, disk / "store")
    assert on_small_disk(system, "mount", "-o", "remount,size=60m", disk)
    said = on_small_disk(cli, *run)
    assert said.code == 0, said.err
    assert f"5 jobs: {len(finished)} already done" in said.err


def test_a_disk_that_is_full_before_anything_is_decoded_is_reported(on_small_disk, tmp_path):
    disk = tmp_path / "disk"
    on_small_disk((disk / "filler").write_bytes, bytes(500 * 1024))
    run = ("run", suite_file(tmp_path, SMALL), "--out", disk / "run", "--jobs", 1)
    message = on_small_disk(mistake, *run)
    assert "cannot write decoded images to" in message
    assert "No space left on device; make room there, or choose another folder" in message


@pytest.mark.parametrize("verb", ["report", "export", "pack", "build"])
def test_a_refused_write_after_the_run_is_reported(tmp_path, verb):
    folder = tmp_path / "run"
    run = ("run", suite_file(tmp_path, SMALL), "--out", folder, "--jobs", 1)
    assert cli(*run).code == 0
    commands = {
        "report": ("report", folder),
        "export": ("export", folder, tmp_path / "table.csv"),
        "pack": ("submission", "pack", folder, "--out", tmp_path / "packed"),
        "build": ("leaderboard", "build", folder / "submissions", "--out", tmp_path / "boards"),
    }
    with files_no_larger_than(500):
        message = mistake(*commands[verb])
    assert "cannot write" in message
    assert "File too large; nothing finished is lost: make room or choose another folder" in message
