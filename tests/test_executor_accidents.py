"""What befalls worker processes: none of it hangs the executor, and none costs more than a job."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import test_executors
from test_executors import gather, is_alive, pids, run_code, run_one, soon, spin

from transferbench.errors import TransferbenchError
from transferbench.runner.executors import Assignment
from transferbench.runner.executors.local import GRACE_SECONDS, LocalExecutor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# --- what the workers do --------------------------------------------------------------------------


def start() -> Callable[[Any], None]:
    """A payload is the name of a function, here or in the other tests, and its arguments."""
    functions = vars(test_executors) | globals()
    return lambda payload: functions[payload[0]](*payload[1:])


def write_to_parent(content: bytes, seconds: float = 0.0) -> None:
    descriptor = int(sys.argv[1])
    while content:
        content = content[os.write(descriptor, content) :]
    time.sleep(seconds)


def start_and_write() -> Callable[[Any], None]:
    write_to_parent(b"hello\n")
    return start()


def close_descriptors() -> None:
    os.closerange(3, 100)


def fork_and_return() -> None:
    os.fork()


def leave_group(path: Path) -> None:
    os.setpgid(0, os.getpgid(os.getppid()))
    spin(path)


def complain(length: int) -> None:
    raise ValueError("x" * length + " the end")


def flood(length: int) -> None:
    sys.stderr.write("x" * length)


def ignore_termination(path: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spin(path)


# --- processes that do not end ----------------------------------------------------------------


class Endless(subprocess.Popen[bytes]):
    """The handle of a process in uninterruptible sleep: it never ends, whatever is done to it."""

    def poll(self) -> None:
        return None

    def wait(self, timeout: float | None = None) -> int:
        time.sleep(1e9 if timeout is None else timeout)
        raise subprocess.TimeoutExpired("worker", timeout or 0)


def test_processes_that_never_end_are_left_behind_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Endless)
    executor = LocalExecutor(start, 3)
    for name in "abc":
        executor.submit(Assignment.of(name, ("sleep", 0)))
    gather(executor, 3)
    executor.submit(Assignment.of("busy", ("spin", tmp_path / "log")))
    assert soon(lambda: bool(pids(tmp_path / "log")))
    processes = [worker.process for worker in executor._workers if worker]
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 2 * GRACE_SECONDS + 1
    assert capsys.readouterr().err.splitlines() == [
        f"note: the worker process {process.pid} does not end although it was killed (it may be "
        "stuck in a driver or a file system); it is left behind"
        for process in processes
    ]
    for process in processes:
        super(Endless, process).wait(10)


def test_a_job_over_the_limit_whose_process_never_ends_is_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    popen = subprocess.Popen
    with LocalExecutor(start, 1, time_limit_seconds=0.2) as executor:
        monkeypatch.setattr(subprocess, "Popen", Endless)
        assert run_one(executor, "spin", tmp_path / "log").status == "timeout"
        (worker,) = executor._workers
        monkeypatch.setattr(subprocess, "Popen", popen)
        assert run_one(executor, "sleep", 0).status == "ok"
    assert capsys.readouterr().err.count(f"process {pids(tmp_path / 'log')[0]} does not end") == 1
    super(Endless, worker.process).wait(10)


def test_an_interrupt_while_closing_kills_at_once(tmp_path: Path) -> None:
    executor = LocalExecutor(start, 1)
    executor.submit(Assignment.of("unmoved", ("ignore_termination", tmp_path / "log")))
    assert soon(lambda: bool(pids(tmp_path / "log")))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            executor.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < GRACE_SECONDS
    assert not is_alive(pids(tmp_path / "log")[0])


def test_a_stopped_worker_is_said_to_be_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalExecutor(start, 1) as executor:
        run_one(executor, "note", tmp_path / "log")
        (pid,) = pids(tmp_path / "log")
        executor.submit(Assignment.of("job", ("sleep", 0.5)))
        os.kill(pid, signal.SIGSTOP)
        assert executor.wait(1.5) == []
        os.kill(pid, signal.SIGCONT)
        assert gather(executor, 1)["job"].status == "ok"
    assert capsys.readouterr().err == (
        f"note: the worker process {pid} was stopped, and its job waits: kill -CONT {pid} lets it "
        "go on\n"
    )


def test_a_stopped_worker_is_ended_at_the_limit(tmp_path: Path) -> None:
    with LocalExecutor(start, 1, time_limit_seconds=1.0) as executor:
        executor.submit(Assignment.of("job", ("note_and_sleep", tmp_path / "log")))
        assert soon(lambda: bool(pids(tmp_path / "log")))
        (pid,) = pids(tmp_path / "log")
        os.kill(pid, signal.SIGSTOP)
        assert gather(executor, 1)["job"].status == "timeout"
        assert not is_alive(pid)


def test_a_worker_that_left_its_group_is_ended_at_the_limit(tmp_path: Path) -> None:
    with LocalExecutor(start, 1, time_limit_seconds=0.5) as executor:
        assert run_one(executor, "leave_group", tmp_path / "log").status == "timeout"
        assert not is_alive(pids(tmp_path / "log")[0])


# --- what comes through the pipe --------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"half a line",
        b"\x80\x05\x95 a pickle\n",
        b"x" * 20_000_000,
        b'["another", "ok", "", "", 0.1]\n',
        b'["job", "splendid", "", "", 0.1]\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=["line", "no end", "pickle", "flood", "other job", "no status", "nested"],
)
def test_what_is_no_outcome_fails_the_job_that_wrote_it(content: bytes) -> None:
    with LocalExecutor(start, 1) as executor:
        outcome = run_one(executor, "write_to_parent", content)
        assert outcome.status == "failed"
        assert outcome.message == (
            "the worker process sent data that is not a job's result; a plugin probably writes to "
            "a file descriptor that it did not open"
        )
        assert run_one(executor, "sleep", 0).status == "ok"


def test_half_a_line_does_not_keep_the_limit_from_being_seen() -> None:
    with LocalExecutor(start, 1, time_limit_seconds=0.3) as executor:
        assert run_one(executor, "write_to_parent", b"half", 60.0).status == "timeout"


def test_a_start_that_writes_what_is_no_outcome_is_an_error() -> None:
    with LocalExecutor(start_and_write, 1) as executor:
        executor.submit(Assignment.of("job", ()))
        with pytest.raises(TransferbenchError, match="could not start: it sent data that is not a"):
            executor.wait(30)


def test_a_worker_that_closes_the_pipe_fails_its_job() -> None:
    with LocalExecutor(start, 1) as executor:
        outcome = run_one(executor, "close_descriptors")
        assert outcome.message == "the worker process ended itself with exit code 1"
        assert run_one(executor, "sleep", 0).status == "ok"


def test_a_forked_child_that_returns_ends(tmp_path: Path) -> None:
    with LocalExecutor(start, 1) as executor:
        assert run_one(executor, "fork_and_return").status == "ok"
        for _ in range(3):
            assert run_one(executor, "note", tmp_path / "log").status == "ok"
        assert len(pids(tmp_path / "log")) == 3


def test_an_absurdly_long_message_loses_its_middle() -> None:
    with LocalExecutor(start, 1) as executor:
        message = run_one(executor, "complain", 50_000_000).message
    assert message.startswith("ValueError: xxx")
    assert message.endswith("xxx the end")
    assert len(message) < 110_000


def test_a_worker_may_flood_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with LocalExecutor(start, 1) as executor:
        assert run_one(executor, "flood", 3_000_000).status == "ok"
    assert len(capfd.readouterr().err) == 3_000_000


# --- what the system refuses ------------------------------------------------------------------


@contextmanager
def no_more_open_files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield free
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_an_error_with_advice(tmp_path: Path) -> None:
    with LocalExecutor(start, 2) as executor:
        executor.submit(Assignment.of("a", ("note", tmp_path / "log")))
        with no_more_open_files() as free, pytest.raises(TransferbenchError) as raised:
            executor.submit(Assignment.of("b", ("sleep", 60)))
        assert str(raised.value) == (
            "cannot start a worker process: Too many open files; run fewer jobs at once (--jobs), "
            f"or a program may have {free} files open here; allow more (ulimit -n 1024)"
        )
        assert gather(executor, 1)["a"].status == "ok"


def test_a_working_directory_that_was_removed_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    code = (
        f"import os, sys; os.chdir({str(folder)!r}); os.rmdir({str(folder)!r}); "
        "import test_executors; sys.path.append(''); test_executors.run_a_job()"
    )
    assert run_code(code) == "ok\n"


def test_closed_standard_streams_are_no_obstacle(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_executors import LocalExecutor, run_one, start\n"
        "with LocalExecutor(start, 1) as executor:\n"
        f"    run_one(executor, 'note', Path({str(log)!r}))\n"
    )
    subprocess.run(  # our own script
        ["/bin/sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, timeout=60
    )
    assert len(pids(log)) == 1
