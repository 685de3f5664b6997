"""quickstart through a real Slurm, and what happens to it there; run by ``slurm.sh``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from transferbench.runner.slurm.ledger import Ledger

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        "SLURM_CONF" not in os.environ or shutil.which("sbatch") is None,
        reason="needs a Slurm: tests/clusters/slurm.sh sets one up and runs these tests",
    ),
]

SUITE = [
    "quickstart", "--seed-count", "2",
    "--set", "sources.source.networks=1",
    "--set", "targets.handwriting.labels_per_class=4",
    "--set", "targets.handwriting.test_limit=200",
    "--set", "recipes.pretrain.epochs=1",
    "--set", "recipes.P-T.epochs=8", "--set", "recipes.P-T.tune.replicates=1",
    "--set", "recipes.RI-T.epochs=8", "--set", "recipes.RI-T.tune.replicates=1",
]  # fmt: skip
SLURM = ["--executor", "slurm", "--executor-option", "chunks=2", "--executor-option", "time=60"]
PATIENCE_SECONDS = 900


def started(folder, *arguments):
    command = [sys.executable, "-m", "transferbench", "run", *SUITE, "--out", folder / "run"]
    return subprocess.Popen(
        [*map(str, command), *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip


def ended(process):
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    return said


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, slurm("squeue")
        time.sleep(0.5)
    return value


def sessions(folder):
    return sorted((folder / "run" / "slurm").glob("*/"))


def told(folder):
    """What chunks told of jobs, of all sessions of a run."""
    return [entry for session in sessions(folder) for entry in Ledger(session, "test").read()]


def begun(folder):
    """How often each job was begun, by the logs of the chunks."""
    lines = [line for session in sessions(folder) for log in session.glob("logs/*_log.err")
             for line in log.read_text().splitlines()]  # fmt: skip
    return Counter(line.partition(" begins ")[2] for line in lines if " begins " in line)


def chunk_process(task):
    """The process of an element, its workers and scripts aside."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        of_chunk = b"submitit.core._submit" in command and b"srun" not in command[0]
        if of_chunk and f"SLURM_ARRAY_TASK_ID={task}".encode() in environment:
            return int(path.name)
    return None


def is_training(folder, task):
    """Whether the last that an element wrote is that it begins a training."""
    logs = [log for session in sessions(folder) for log in session.glob(f"logs/*_{task}_0_log.err")]
    lines = logs[0].read_text().splitlines() if logs else []
    return bool(lines) and " begins " in lines[-1] and " tuning replicate " in lines[-1]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    ended(started(folder, "--jobs", "2"))
    return (folder / "run" / "records.jsonl").read_bytes()


def assert_complete(folder, local):
    assert (folder / "run" / "records.jsonl").read_bytes() == local
    jobs = json.loads((folder / "run" / "run.json").read_text())["jobs"]
    assert {job["status"] for job in jobs} == {"ok"}
    oks = Counter(entry.job for entry in told(folder) if entry.status == "ok")
    assert set(oks) == {job["id"] for job in jobs}
    assert set(oks.values()) == {1}
    until(lambda: not slurm("squeue", "-h"))


def test_a_run_through_slurm_has_the_records_of_a_local_one(local, tmp_path):
    said = ended(started(tmp_path, *SLURM))
    assert "chunk(s) submitted" in said
    assert_complete(tmp_path, local)
    assert set(begun(tmp_path).values()) == {1}
    status = [sys.executable, "-m", "transferbench", "status", str(tmp_path / "run")]
    assert "chunk " not in slurm(*status)


def test_a_killed_chunk_a_drained_node_and_a_killed_run_lose_nothing(local, tmp_path):
    first = started(tmp_path, *SLURM)
    until(lambda: is_training(tmp_path, 0))
    os.kill(chunk_process(0), signal.SIGKILL)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    slurm("scontrol", "update", "NodeName=one", "State=DRAIN", "Reason=test")
    other = chunk_process(1)
    os.kill(other, signal.SIGSTOP)  # so that it is there when the second process starts
    try:
        second = started(tmp_path, *SLURM)
        said = next(line for line in second.stderr if "of an earlier start" in line)
    finally:
        os.kill(other, signal.SIGCONT)
    try:
        ended(second)
    finally:
        slurm("scontrol", "update", "NodeName=one", "State=RESUME")
    assert "goes on with" in said
    assert len(sessions(tmp_path)) == 1
    assert_complete(tmp_path, local)
    lost = [entry.job for entry in told(tmp_path) if entry.status == "lost"]
    assert len(lost) == 1
    assert sum(begun(tmp_path).values()) == len(begun(tmp_path)) + 1


def test_a_chunk_whose_time_is_over_gives_its_jobs_back_and_is_queued_again(local, tmp_path):
    process = started(tmp_path, *SLURM, "--executor-option", "chunks=1")
    until(lambda: len(told(tmp_path)) >= 2)
    assert len(sessions(tmp_path)) == 1
    (element,) = json.loads((sessions(tmp_path)[0] / "session.json").read_text())["elements"]
    slurm("scancel", "--signal=USR2", element)
    ended(process)
    assert_complete(tmp_path, local)
    assert "lost" not in {entry.status for entry in told(tmp_path)}
    assert {entry.writer.rpartition(".")[2] for entry in told(tmp_path)} == {"0", "1"}


def test_a_training_on_two_cards_has_those_that_slurm_gave_to_its_chunk(tmp_path):
    cards = ["--executor-option", "gpus=2", "--gpus-per-job", "2", "--backbone", "fixup-resnet8"]
    process = started(tmp_path, *SLURM, *cards, "--device", "cpu")
    until(lambda: process.poll() is not None or (chunk_process(0) and begun(tmp_path)))
    assert process.poll() is None, process.stderr.read()
    environment = Path(f"/proc/{chunk_process(0)}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=0,1" in environment
    assert "gpu:2" in slurm("scontrol", "show", "job")
    until(lambda: told(tmp_path))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_SECONDS)
    slurm(sys.executable, "-m", "transferbench", "cancel", str(tmp_path / "run"))
    first = told(tmp_path)[0]
    manifest = next((tmp_path / "store" / "jobs").glob(f"*/{first.job}/manifest.json"))
    assert json.loads(manifest.read_text())["facts"]["processes"] == 2
    until(lambda: not slurm("squeue", "-h"))


def test_cancel_ends_the_chunks_and_the_run_goes_on_later(local, tmp_path):
    process = started(tmp_path, *SLURM)
    until(lambda: len(told(tmp_path)) >= 2)
    for task in (0, 1):
        os.kill(chunk_process(task), signal.SIGSTOP)  # so that they are there to be cancelled
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "go on without this process" in said
    verb = [sys.executable, "-m", "transferbench"]
    assert "chunk " in slurm(*verb, "status", str(tmp_path / "run"))
    assert "cancelled: " in slurm(*verb, "cancel", str(tmp_path / "run"))
    until(lambda: not slurm("squeue", "-h"))
    ended(started(tmp_path, *SLURM))
    assert_complete(tmp_path, local)
