"""A signal at any moment of a command: its exit code and at most a sentence, never a traceback."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from command_line import environment

from transferbench.interrupts import endings_held, signals_as_interrupts, thread_pool
from transferbench.runner.executors.inprocess import attempt

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def interrupted(before="", path=""):
    """How ``transferbench --version`` ends, in a process that runs ``before`` first."""
    restored = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{restored}\n{before}\nfrom transferbench.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "--version"], check=False,
        env=environment(PYTHONPATH=os.pathsep.join([str(path), *sys.path])), text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_imports_ends_the_process_without_a_word(tmp_path, number):
    code = f"import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(20)"
    (tmp_path / "typer.py").write_text(code)
    done = interrupted(path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_interpreter_ends_ends_it_without_a_word(number):
    done = interrupted(
        "import atexit, os, time; atexit.register(time.sleep, 20); "
        f"atexit.register(os.kill, os.getpid(), {int(number)})"
    )
    assert (done.returncode, done.stderr) == (-number, "")
    assert done.stdout.startswith("transferbench ")


def interrupt_here():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_waits_for_the_end_of_what_holds_it():
    said = []

    def held():
        interrupt_here()
        os.kill(os.getpid(), signal.SIGTERM)
        # A process that it starts is not ended by the terminal's Ctrl-C either.
        blocked = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
        child = subprocess.run([sys.executable, "-c", blocked], capture_output=True, check=True)
        said.append(child.stdout)

    with pytest.raises(KeyboardInterrupt), signals_as_interrupts(), endings_held():
        held()
    assert b"SIGINT" in said[0]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def interrupt_turned_into_an_error():
    try:
        interrupt_here()
    except KeyboardInterrupt as error:
        raise ImportError("as compiled modules do") from error


def test_an_interrupt_that_a_library_turns_into_an_error_is_still_one():
    with pytest.raises(KeyboardInterrupt), signals_as_interrupts():
        interrupt_turned_into_an_error()
    with pytest.raises(KeyboardInterrupt), signals_as_interrupts():
        attempt("job", interrupt_turned_into_an_error)
    with pytest.raises(ImportError), signals_as_interrupts():
        raise ImportError


def test_a_command_that_ends_well_in_spite_of_an_interrupt_ends_well():
    def command():
        with pytest.raises(KeyboardInterrupt):
            interrupt_here()
        sys.exit(0)

    with pytest.raises(SystemExit), signals_as_interrupts():
        command()


def test_an_interrupt_that_python_drops_is_repeated(capfd):
    class InterruptedWhenDeleted:
        def __del__(self):
            interrupt_here()

    def collect():
        collected = InterruptedWhenDeleted()
        del collected  # Python ignores what is raised then
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt), signals_as_interrupts():
        collect()
    assert capfd.readouterr().err == ""


def test_an_interrupt_waits_for_no_work_that_threads_have_not_begun():
    go, done = threading.Event(), []

    def work(number):
        go.wait(20)
        time.sleep(0.01)
        done.append(number)

    def interrupted_work():
        with thread_pool() as pool:
            for number in range(2000):
                pool.submit(work, number)
            go.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_work()
    assert len(done) < 1000
