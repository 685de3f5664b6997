"""What befalls a run: an interrupt, a worker that is killed, a disk that is full."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import (
    SMALL,
    artefacts,
    cli,
    command,
    environment,
    files_no_larger_than,
    mistake,
    suite_file,
)

from transferbench.api import Run
from transferbench.interrupts import signals_as_interrupts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


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


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


PATIENT = """
import time
from pathlib import Path

from transferbench import hookimpl
from transferbench.specs import InitializationSpec


def initialize(params, net, context):
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="patient", version=1, summary="s", source="s", license="l",
                             initialize=initialize)
"""


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
def test_an_interrupt_ends_everything_and_loses_nothing_that_was_finished(tmp_path, send, number):
    plugin = tmp_path / "patient.py"
    plugin.write_text(PATIENT)
    arms = SMALL["initializations"] | {"P-T": {"name": "patient", "recipe": "short"}}
    suite = suite_file(tmp_path, SMALL, initializations=arms)
    options = (suite, "--out", tmp_path / "run", "--device", "cpu", "--plugin", plugin)
    with subprocess.Popen(
        command("run", *options, "--jobs", 2), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as run:  # fmt: skip
        assert any(line.startswith("done RI-T") for line in run.stderr)
        workers = children(run.pid)
        assert len(workers) >= 2
        send(run.pid, number)
        out, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == (
        "error: interrupted; what was finished is kept, and the same command goes on from there"
    )
    assert "Traceback" not in err
    until = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    finished = finished_of_an_interrupted_run(tmp_path)
    (tmp_path / "go").touch()
    said = cli("run", *options, "--jobs", 1)
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


DEADLY = """
import os
import signal
from pathlib import Path

from transferbench import hookimpl
from transferbench.specs import InitializationSpec


def initialize(params, net, context):
    mark = Path(__file__).with_name("was-here")
    if not mark.exists():
        mark.touch()
        os.system(f"kill -9 {os.getpid()}")


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="deadly", version=1, summary="s", source="s", license="l",
                             initialize=initialize)
"""


def test_a_worker_that_is_killed_costs_one_job(tmp_path):
    plugin = tmp_path / "deadly.py"
    plugin.write_text(DEADLY)
    arms = SMALL["initializations"] | {"RI-T": {"name": "deadly", "recipe": "short"}}
    suite = suite_file(tmp_path, SMALL, initializations=arms, replicates=2)
    run = ("run", suite, "--out", tmp_path / "run", "--plugin", plugin)
    said = cli(*run, "--jobs", 2)
    assert said.code == 1
    lost = {row["status"]: row["message"] for row in Run(tmp_path / "run").failed}
    assert set(lost) == {"failed", "skipped"}
    assert "the worker process was killed by signal 9 (Killed); out of memory?" in lost["failed"]
    assert len(artefacts(tmp_path / "store")) == 1 + 4 + 4 - 2
    said = cli(*run, "--jobs", 1)
    assert said.code == 0
    assert "9 jobs: 7 already done, 2 to run" in said.err


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
    assert list((tmp_path / "store" / "partial").iterdir()) == []
    assert cli(*run).code == 0


@pytest.fixture
def small_disk(tmp_path):
    """A real disk of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not system("mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder):
        pytest.skip("needs the right to mount")
    yield folder
    assert system("umount", "--lazy", folder)


def system(*words):
    """Whether a command of the system succeeded."""
    return subprocess.run([*map(str, words)], check=False, capture_output=True).returncode == 0


def test_a_disk_that_fills_up_while_training_keeps_what_was_finished(small_disk, tmp_path):
    run = ("run", suite_file(tmp_path, SMALL), "--out", small_disk / "run", "--jobs", 1)
    said = cli(*run)
    assert said.code == 1, said.err
    assert (
        "No space left on device (0 MiB free there); choose another folder with --out" in said.err
    )
    finished = artefacts(small_disk / "store")
    assert system("mount", "-o", "remount,size=60m", small_disk)
    said = cli(*run)
    assert said.code == 0, said.err
    assert f"5 jobs: {len(finished)} already done" in said.err


def test_a_disk_that_is_full_before_anything_is_decoded_is_reported(small_disk, tmp_path):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(500 * 1024))
    run = ("run", suite_file(tmp_path, SMALL), "--out", small_disk / "run", "--jobs", 1)
    message = mistake(*run)
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
