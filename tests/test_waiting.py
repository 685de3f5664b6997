"""Who waits for another process says so, and for whom; nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command_line import SMALL, command, environment, suite_file

from transferbench.identity import digest
from transferbench.runner.executors import Assignment
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.local import LocalExecutor
from transferbench.runner.executors.worker import report_waiting
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.store import Store, WaitEvent, lease

JOB = digest("a job")


# --- the store ------------------------------------------------------------------------------------


@contextmanager
def holder(store: Store, seconds: float = 180, child: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the job; ``seconds``: of its lease."""
    holding = Path(__file__).with_name("store_holder.py")
    with subprocess.Popen(
        [sys.executable, holding, store.root, JOB, str(seconds), child], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(process.pid)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def write(store: Store, events: list[WaitEvent]) -> str:
    """Whose artefact there is at last."""
    with store.writing(JOB, "trial", events.append) as draft:
        if not draft.already_done:
            draft.write_json("trial.json", "ours")
    return str(store.artefact(JOB).json("trial.json"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "ANNOUNCED_SECONDS", 0.2)


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.usefixtures("soon")
def test_who_is_waited_for_is_told_once(store: Store) -> None:
    events: list[WaitEvent] = []
    with holder(store) as process:
        waiter = Thread(target=write, args=(store, events))
        waiter.start()
        time.sleep(1)
        let_go(process)
        waiter.join(30)
    assert store.artefact(JOB).json("trial.json") == "theirs"
    assert [event.what for event in events] == ["begin", "announce", "end"]
    text = events[1].text
    host = socket.gethostname()
    assert text.startswith(f"it is being computed by process {process.pid} on {host}")
    assert f", since {time.strftime('%Y-%m-%d')} " in text
    assert text.endswith("and no longer than 180 s without a sign of life")


def test_a_short_wait_is_not_worth_a_word(store: Store) -> None:
    events: list[WaitEvent] = []
    with holder(store) as process:
        waiter = Thread(target=write, args=(store, events))
        waiter.start()
        time.sleep(0.3)
        let_go(process)
        waiter.join(30)
    assert events == [WaitEvent("begin"), WaitEvent("end")]


@pytest.mark.usefixtures("soon")
def test_a_process_that_gives_no_sign_of_life_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    events: list[WaitEvent] = []
    with holder(store, 1.5) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert write(store, events) == "ours"
        assert len(events) == 3
        os.kill(process.pid, signal.SIGCONT)
        let_go(process)
        assert process.wait(30) == 0
    assert store.artefact(JOB).json("trial.json") == "ours"
    assert list((store.root / "partial").iterdir()) == []


@pytest.mark.usefixtures("soon")
def test_a_process_that_lives_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    events: list[WaitEvent] = []
    with holder(store, 1.5) as process:
        waiter = Thread(target=write, args=(store, events))
        waiter.start()
        time.sleep(4)
        assert waiter.is_alive()
        let_go(process)
        waiter.join(30)
    assert store.artefact(JOB).json("trial.json") == "theirs"


def test_a_child_of_a_killed_process_keeps_nobody_waiting(store: Store) -> None:
    with holder(store, child="child") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        assert write(store, []) == "ours"
        assert time.monotonic() - began < 2


@pytest.mark.usefixtures("soon")
def test_two_who_find_a_dead_one_compute_once(store: Store) -> None:
    with holder(store) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    computed = []

    def compute() -> None:
        with Store(store.root).writing(JOB, "trial") as draft:
            if not draft.already_done:
                computed.append(1)
                time.sleep(0.3)
                draft.write_json("trial.json", 1)

    threads = [Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert computed == [1]


# --- the executors --------------------------------------------------------------------------------


def start() -> Callable[[Any], None]:
    return wait_for_another


def wait_for_another(seconds: tuple[float, float]) -> None:
    """As the store does it: waits, then computes."""
    report_waiting(WaitEvent("begin"))
    report_waiting(WaitEvent("announce", "it is being computed by another"))
    time.sleep(seconds[0])
    report_waiting(WaitEvent("end"))
    time.sleep(seconds[1])


@pytest.mark.parametrize(("seconds", "status"), [((2.0, 0.0), "ok"), ((1.0, 60.0), "timeout")])
def test_waiting_is_not_running_time(
    capfd: pytest.CaptureFixture[str], seconds: tuple[float, float], status: str
) -> None:
    with LocalExecutor(start, 1, time_limit_seconds=1.0) as executor:
        executor.submit(Assignment.of(JOB, seconds))
        (outcome,) = executor.wait(60)
    assert outcome.status == status
    assert outcome.wall_seconds < 30
    assert capfd.readouterr().err == "note: it is being computed by another\n"


def test_a_job_of_this_process_says_that_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    executor = InProcessExecutor(start)
    executor.submit(Assignment.of(JOB, (0.0, 0.0)))
    (outcome,) = executor.wait()
    assert outcome.status == "ok"
    assert capsys.readouterr().err == "note: it is being computed by another\n"


# --- a run ----------------------------------------------------------------------------------------

PATIENT = """
import time
from pathlib import Path

from transferbench import hookimpl
from transferbench.specs import InitializationSpec


def initialize(params, net, context):
    Path(__file__).with_name("began").touch()
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="patient", version=1, summary="s", source="s", license="l",
                             initialize=initialize)
"""


def test_a_run_says_that_it_waits_for_a_stopped_one_and_for_which_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "patient.py"
    plugin.write_text(PATIENT)
    arms = SMALL["initializations"] | {"RI-T": {"name": "patient", "recipe": "short"}}
    suite = suite_file(tmp_path, SMALL, initializations=arms)
    first = command("run", suite, "--out", tmp_path / "first", "--plugin", plugin, "--jobs", 1)
    options = Options(out=tmp_path / "second", store=tmp_path / "store", plugins=[plugin], jobs=1,
                      device="cpu")  # fmt: skip
    planned = plan_suite(str(suite), options)
    with subprocess.Popen(first, env=environment()) as stopped:
        while not (tmp_path / "began").exists():
            time.sleep(0.1)
        os.kill(stopped.pid, signal.SIGSTOP)
        capfd.readouterr()
        results = []
        run = Thread(target=lambda: results.append(run_plan(planned, SilentWatcher())))
        run.start()
        said = ""
        while "it is being computed" not in said:
            time.sleep(0.2)
            said += capfd.readouterr().err
        os.kill(stopped.pid, signal.SIGCONT)
        (tmp_path / "go").touch()
        run.join(120)
        assert stopped.wait(120) == 0
    title = "RI-T of fixup-resnet8 on handwriting, none, replicate 0"
    assert f"note: {title}: it is being computed by process {stopped.pid} on " in said
    assert {state.status for state in results[0].collected.states.values()} == {"ok"}
