"""The executors: every ending is an outcome, a death costs one job, and nobody is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from transferbench.errors import PluginError, TransferbenchError
from transferbench.runner.executors import Assignment, Executor, Outcome
from transferbench.runner.executors.inprocess import InProcessExecutor, attempt
from transferbench.runner.executors.local import GRACE_SECONDS, LocalExecutor, SlotSetup

LONG_SECONDS = 60.0


# --- what the workers do --------------------------------------------------------------------------


def start() -> Callable[[Any], None]:
    """A payload is the name of a function of this module and its argument."""
    return lambda payload: globals()[payload[0]](payload[1])


def note(path: Path) -> None:
    with path.open("a") as stream:
        stream.write(f"{os.getpid()}\n")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def note_and_sleep(path: Path) -> None:
    note(path)
    time.sleep(LONG_SECONDS)


def spin(path: Path) -> None:
    note(path)
    while True:
        pass


def spin_unmoved(path: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spin(path)


def have_child(path: Path) -> None:
    command = [sys.executable, "-c", f"import time; time.sleep({LONG_SECONDS})"]
    child = subprocess.Popen(command)  # our own command
    path.write_text(f"{os.getpid()}\n{child.pid}\n")
    time.sleep(LONG_SECONDS)


def have_child_and_die(path: Path) -> None:
    if os.fork() == 0:
        # keeps every pipe of its parent open, as a data loader's worker does
        path.write_text(f"{os.getpid()}\n")
        time.sleep(LONG_SECONDS)
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error: BaseException) -> None:
    raise error


def leave(code: int) -> None:
    os._exit(code)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def measure(text: str) -> None:
    assert len(text) == 30_000_000


def interrupt_self(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    note(path)


def note_variable(path: Path) -> None:
    path.write_text(os.environ["TRANSFERBENCH_TEST_SLOT"])
    time.sleep(0.3)


def note_cards(path: Path) -> None:
    path.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    time.sleep(0.3)


def note_options(path: Path) -> None:
    path.write_text(f"{sys.flags.optimize} {sys.flags.utf8_mode} {sys.warnoptions}")


class Unreadable:
    """Pickles, but cannot be read back."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fail, (ValueError("cannot be read back"),)


class EventLog:
    """A start that notes each call in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Callable[[Any], None]:
        note(self.path)
        return start()


def start_without_plugin() -> Callable[[Any], None]:
    raise PluginError("plugin 'x' of distribution 'y' is broken; reinstall it")


def start_with_bug() -> Callable[[Any], None]:
    return {}["engine"]


def start_and_die() -> Callable[[Any], None]:
    os._exit(7)


# --- the tests' own tools -------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def gather(executor: Executor, count: int) -> dict[str, Outcome]:
    outcomes_by_job: dict[str, Outcome] = {}
    while len(outcomes_by_job) < count:
        outcomes = executor.wait(30)
        assert outcomes, "nothing came in time"
        outcomes_by_job |= {outcome.job: outcome for outcome in outcomes}
    return outcomes_by_job


def run_one(executor: Executor, *payload: Any) -> Outcome:
    executor.submit(Assignment.of("job", payload))
    return gather(executor, 1)["job"]


@contextmanager
def both(kind: type[InProcessExecutor | LocalExecutor]) -> Iterator[Executor]:
    with (
        InProcessExecutor(start)
        if kind is InProcessExecutor
        else LocalExecutor(start, 1) as executor
    ):
        yield executor


@pytest.fixture(params=[InProcessExecutor, LocalExecutor])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with both(request.param) as shared:
        yield shared


# --- what both promise ----------------------------------------------------------------------------


def test_what_stands_behind_a_users_error_is_kept():
    def blamed():
        try:
            int("in the plugin")
        except ValueError as error:
            raise TransferbenchError("plugin 'x' failed") from error

    outcome = attempt("job", blamed)
    assert outcome.message == "plugin 'x' failed"
    assert "in the plugin" in outcome.traceback


def test_every_ending_is_an_outcome(executor: Executor, tmp_path: Path) -> None:
    ok = run_one(executor, "note", tmp_path / "log")
    assert ok._replace(wall_seconds=0.0) == Outcome("job", "ok", "", "", 0.0)
    assert len(pids(tmp_path / "log")) == 1

    bug = run_one(executor, "fail", ValueError("wrong shape"))
    assert (bug.status, bug.message) == ("failed", "ValueError: wrong shape")
    assert bug.traceback.startswith("Traceback")
    assert "in fail" in bug.traceback

    mistake = run_one(executor, "fail", PluginError("plugin 'x' is broken"))
    assert mistake[1:4] == ("failed", "plugin 'x' is broken", "")

    left = run_one(executor, "fail", SystemExit(3))
    assert (left.status, left.message) == ("failed", "SystemExit: 3")

    memory = run_one(executor, "fail", MemoryError("no room"))
    assert (memory.status, memory.message) == ("oom", "MemoryError: no room")


def test_wall_seconds_are_those_of_the_job(executor: Executor) -> None:
    assert 0.2 <= run_one(executor, "sleep", 0.2).wall_seconds < 5


def test_nothing_running_gives_nothing_at_once(executor: Executor) -> None:
    assert executor.wait(None) == []
    assert executor.free() == executor.slots == 1


def test_a_job_without_a_free_slot_is_refused(executor: Executor) -> None:
    executor.submit(Assignment.of("a", ("sleep", 0.01)))
    assert executor.free() == 0
    with pytest.raises(RuntimeError, match="no slot is free: wait for an outcome"):
        executor.submit(Assignment.of("b", ("sleep", 0.01)))
    assert list(gather(executor, 1)) == ["a"]


def test_start_is_called_once_for_many_jobs(tmp_path: Path) -> None:
    for number, executor in enumerate(
        [
            InProcessExecutor(EventLog(tmp_path / "0")),
            LocalExecutor(EventLog(tmp_path / "1"), 2),
        ]
    ):
        with executor:
            for _ in range(3):
                assert run_one(executor, "sleep", 0).status == "ok"
        assert len(pids(tmp_path / str(number))) == 1


def test_torchs_own_memory_errors_are_reported_apart() -> None:
    torch = pytest.importorskip("torch")
    assert attempt("job", lambda: torch.empty(1 << 50)).status == "oom"
    assert (
        attempt("job", lambda: fail(torch.OutOfMemoryError("CUDA out of memory"))).status == "oom"
    )
    assert attempt("job", lambda: torch.empty(2).view(3)).status == "failed"


def test_the_users_interrupt_is_no_outcome_in_process() -> None:
    with InProcessExecutor(start) as executor:
        executor.submit(Assignment.of("job", ("fail", KeyboardInterrupt())))
        with pytest.raises(KeyboardInterrupt):
            executor.wait()


def test_what_keeps_the_engine_from_starting_is_raised_in_process() -> None:
    with InProcessExecutor(start_without_plugin) as executor:
        executor.submit(Assignment.of("job", ()))
        with pytest.raises(PluginError, match="plugin 'x' of distribution 'y' is broken"):
            executor.wait()


# --- worker processes -----------------------------------------------------------------------------


def test_two_slots_work_at_the_same_time(tmp_path: Path) -> None:
    with LocalExecutor(start, 2) as executor:
        executor.submit(Assignment.of("a", ("note_and_sleep", tmp_path / "a")))
        executor.submit(Assignment.of("b", ("note_and_sleep", tmp_path / "b")))
        assert executor.free() == 0
        assert soon(lambda: bool(pids(tmp_path / "a") and pids(tmp_path / "b")))
        assert executor.wait(0.05) == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (("leave", 3), "the worker process ended itself with exit code 3"),
        (("die", signal.SIGSEGV), r"the worker process was killed by signal 11 \(Segm.*\)$"),
        (("die", signal.SIGKILL), r"by signal 9 \(Killed.*\); out of memory\? try fewer jobs"),
    ],
)
def test_a_death_costs_one_job(payload: tuple[str, int], message: str, tmp_path: Path) -> None:
    with LocalExecutor(start, 2) as executor:
        executor.submit(Assignment.of("lives", ("sleep", 0.6)))
        executor.submit(Assignment.of("dies", payload))
        outcomes = gather(executor, 2)
        assert (outcomes["lives"].status, outcomes["dies"].status) == ("ok", "lost")
        assert re.search(message, outcomes["dies"].message)
        executor.submit(Assignment.of("a", ("note", tmp_path / "log")))
        executor.submit(Assignment.of("b", ("note", tmp_path / "log")))
        assert {outcome.status for outcome in gather(executor, 2).values()} == {"ok"}


def test_a_worker_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    with LocalExecutor(start, 1) as executor:
        run_one(executor, "note", tmp_path / "log")
        (pid,) = pids(tmp_path / "log")
        os.kill(pid, signal.SIGKILL)
        assert soon(lambda: not executor._workers[0].is_usable)
        assert run_one(executor, "note", tmp_path / "log").status == "ok"


def test_a_job_over_the_limit_is_ended_alone(tmp_path: Path) -> None:
    with LocalExecutor(start, 2, time_limit_seconds=0.5) as executor:
        executor.submit(Assignment.of("endless", ("spin", tmp_path / "log")))
        executor.submit(Assignment.of("quick", ("sleep", 0)))
        outcomes = gather(executor, 2)
        assert outcomes["quick"].status == "ok"
        assert outcomes["endless"].status == "timeout"
        assert outcomes["endless"].message.startswith("took longer than 0.5 s; raise the limit")
        assert 0.5 < outcomes["endless"].wall_seconds < 5
        assert not any(is_alive(pid) for pid in pids(tmp_path / "log"))
        assert run_one(executor, "sleep", 0).status == "ok"


class SlowStart:
    def __call__(self) -> Callable[[Any], None]:
        time.sleep(0.6)
        return start()


def test_the_limit_does_not_count_a_workers_start() -> None:
    with LocalExecutor(SlowStart(), 1, time_limit_seconds=0.5) as executor:
        assert run_one(executor, "sleep", 0).status == "ok"


def test_a_huge_payload_arrives() -> None:
    with LocalExecutor(start, 1) as executor:
        assert run_one(executor, "measure", "x" * 30_000_000).status == "ok"


def test_a_payload_that_cannot_be_read_back_fails_its_job() -> None:
    with LocalExecutor(start, 1) as executor:
        assert run_one(executor, Unreadable()).message == "ValueError: cannot be read back"
        assert run_one(executor, "sleep", 0).status == "ok"


def test_workers_start_when_needed(tmp_path: Path) -> None:
    with LocalExecutor(EventLog(tmp_path / "log"), 4) as executor:
        run_one(executor, "sleep", 0)
        executor.submit(Assignment.of("a", ("sleep", 0.5)))
        executor.submit(Assignment.of("b", ("sleep", 0)))
        gather(executor, 2)
    assert len(pids(tmp_path / "log")) == 2


def test_each_slot_has_its_environment(tmp_path: Path) -> None:
    setups = [SlotSetup(environment={"TRANSFERBENCH_TEST_SLOT": str(slot)}) for slot in range(2)]
    with LocalExecutor(start, 2, setups=setups) as executor:
        for name in "ab":
            executor.submit(Assignment.of(name, ("note_variable", tmp_path / name)))
        gather(executor, 2)
    assert {(tmp_path / name).read_text() for name in "ab"} == {"0", "1"}
    with pytest.raises(ValueError, match="3 slots need as many setups, not 2"):
        LocalExecutor(start, 3, setups=setups)


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (start_without_plugin, TransferbenchError, "^plugin 'x' of distribution 'y' is broken"),
        (start_with_bug, RuntimeError, "could not start:\nTraceback(?s:.*)KeyError: 'engine'"),
        (
            start_and_die,
            TransferbenchError,
            "it ended itself with exit code 7; see what it wrote above$",
        ),
    ],
)
def test_a_worker_that_cannot_start_is_an_error(
    broken: Callable[[], Callable[[Any], None]], error: type[Exception], message: str
) -> None:
    with LocalExecutor(broken, 2) as executor:
        executor.submit(Assignment.of("a", "x" * 3_000_000))  # more than a pipe holds
        with pytest.raises(error, match=message):
            executor.wait(30)
        with pytest.raises(error, match=message):
            executor.wait(30)


def test_workers_do_not_hear_the_terminals_interrupt(tmp_path: Path) -> None:
    with LocalExecutor(start, 1) as executor:
        assert run_one(executor, "interrupt_self", tmp_path / "log").status == "ok"
        assert os.getpgid(pids(tmp_path / "log")[0]) != os.getpgid(0)


def test_close_leaves_nobody(tmp_path: Path) -> None:
    executor = LocalExecutor(start, 3)
    run_one(executor, "note", tmp_path / "idle")
    executor.submit(Assignment.of("busy", ("spin", tmp_path / "busy")))
    executor.submit(Assignment.of("parent", ("have_child", tmp_path / "parent")))
    names = {"idle": 1, "busy": 1, "parent": 2}
    assert soon(lambda: all(len(pids(tmp_path / name)) == names[name] for name in names))
    everybody = [pid for name in names for pid in pids(tmp_path / name)]
    assert all(is_alive(pid) for pid in everybody[1:])
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < GRACE_SECONDS
    assert soon(lambda: not any(is_alive(pid) for pid in everybody))
    executor.close()


def test_close_kills_who_does_not_go(tmp_path: Path) -> None:
    with LocalExecutor(start, 1) as executor:
        executor.submit(Assignment.of("unmoved", ("spin_unmoved", tmp_path / "log")))
        assert soon(lambda: bool(pids(tmp_path / "log")))
    assert not is_alive(pids(tmp_path / "log")[0])


def test_a_closed_executor_is_let_go() -> None:
    executor = LocalExecutor(start, 1)
    executor.close()
    reference = weakref.ref(executor)
    del executor
    assert reference() is None


def test_a_death_hidden_by_an_open_pipe_is_seen(tmp_path: Path) -> None:
    with LocalExecutor(start, 1) as executor:
        outcome = run_one(executor, "have_child_and_die", tmp_path / "child")
        assert "signal 9" in outcome.message
        (child,) = pids(tmp_path / "child")
        assert soon(lambda: not is_alive(child))


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_executors import LONG_SECONDS, Assignment, start
from transferbench.runner.executors.local import LocalExecutor

if __name__ == "__main__":
    executor = LocalExecutor(start, 2)
    executor.submit(Assignment.of("a", ("have_child", Path({log!r}, "a"))))
    executor.submit(Assignment.of("b", ("spin", Path({log!r}, "b"))))
    {ending}
"""


@contextmanager
def script(folder: Path, ending: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A running script with two busy workers, and the ids of its workers and their children."""
    path = folder / "script.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent), log=str(folder), ending=ending))
    with subprocess.Popen(  # our own script
        [sys.executable, str(path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert soon(lambda: len(pids(folder / "a")) == 2 and len(pids(folder / "b")) == 1, 30)
            yield process, pids(folder / "a") + pids(folder / "b")
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_run_leaves_nobody(number: int, tmp_path: Path) -> None:
    with script(tmp_path, "with executor: executor.wait()") as (process, workers):
        assert all(is_alive(pid) for pid in workers)
        # as a terminal does: to the whole group of the parent
        os.killpg(process.pid, number)
        stderr = process.communicate(timeout=20)[1]
        assert soon(lambda: not any(is_alive(pid) for pid in workers))
        assert stderr.count("Traceback") == (1 if number == signal.SIGINT else 0)


def test_a_run_that_ends_without_closing_leaves_nobody(tmp_path: Path) -> None:
    with script(tmp_path, "sys.stdin.read()") as (process, workers):
        assert process.communicate(timeout=20) == (None, "")
        assert process.returncode == 0
        assert soon(lambda: not any(is_alive(pid) for pid in workers))


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    lines = [
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from test_executors import Assignment, start, LocalExecutor",
        "executor = LocalExecutor(start, 2)",
        "executor.submit(Assignment.of('a', ('sleep', 0)))",
        "executor.submit(Assignment.of('b', ('sleep', 0)))",
        "print([executor.wait(30)[0].status, executor.wait(30)[0].status]); executor.close()",
    ]
    path.write_text("\n".join(lines))
    done = subprocess.run(  # our own script
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['ok', 'ok']\n"


def test_a_worker_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "multiprocessing.py").write_text("raise AssertionError('imported')")
    code = "import os, test_executors; os.chdir({!r}); test_executors.run_a_job()"
    assert run_code(code.format(str(tmp_path))) == "ok\n"


def run_a_job() -> None:
    with LocalExecutor(start, 1) as executor:
        print(run_one(executor, "sleep", 0).status)  # noqa: T201  # read by the test


def interrupt_while_a_worker_starts() -> None:
    with LocalExecutor(start, 1) as executor:
        executor.submit(Assignment.of("job", ("sleep", 0)))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.killpg(0, signal.SIGINT)
        print(executor.wait(30)[0].status)  # noqa: T201  # read by the test


def run_code(code: str) -> str:
    path = str(Path(__file__).parent)
    done = subprocess.run(  # our own code
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_worker_takes_over_the_options_of_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "options"
    lines = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from pathlib import Path",
        "from test_executors import LocalExecutor, run_one, start",
        "with LocalExecutor(start, 1) as executor:",
        f"    print(run_one(executor, 'note_options', Path({str(path)!r})).status)",
    )
    options = ["-O", "-W", "ignore::UserWarning", "-X", "utf8"]
    subprocess.run(  # our own code
        [sys.executable, *options, "-c", "\n".join(lines)], check=True, timeout=60
    )
    assert path.read_text() == "1 1 ['ignore::UserWarning']"


def test_a_worker_that_starts_does_not_hear_the_interrupt() -> None:
    code = "import test_executors; test_executors.interrupt_while_a_worker_starts()"
    assert run_code(code) == "ok\n"


def test_a_worker_does_not_import_torch() -> None:
    code = "import transferbench.runner.executors.local; print('torch' in sys.modules)"
    assert run_code(code) == "False\n"
