"""A training that is killed goes on where it was saved, and ends with the same bits."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import files_no_larger_than
from test_training_groups import assert_equal
from tiny_suite import tiny_suite
from training_groups import CPU, FEATURES, training_of

from transferbench import interrupts
from transferbench.api import run
from transferbench.engine import jobs
from transferbench.engine.jobs import start_engine
from transferbench.engine.resources import Machine
from transferbench.errors import DataError
from transferbench.interrupts import (
    _REQUESTED,
    DEFERRED,
    end_if_requested,
    ending_requested,
    endings_deferred,
)
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.store import Draft
from transferbench.training.graph import RecordedCalls
from transferbench.training.group import Group
from transferbench.training.loop import run_alone
from transferbench.training.resume import Unfinished


class KilledError(Exception):
    """In place of a process that ends."""


class Saves(Unfinished):
    """Saved after each step; the process ends before step ``kill`` of this start."""

    def __init__(self, path, kill=None, key="job"):
        super().__init__(path, key, seconds=0.0)
        self.left = kill
        self.loaded = False

    def visit(self, training, progress):
        super().visit(training, progress)
        if self.left == 0:
            raise KilledError
        if self.left is not None:
            self.left -= 1

    def load(self, training):
        progress = super().load(training)
        self.loaded = progress is not None
        return progress


def work(seed, feature, saves=None, *, captured=False):
    torch.manual_seed(100 + seed)
    random.seed(seed)
    training = training_of(seed, feature, captured=captured)
    result = yield from training.loop(seed, seed + 5, [1], saves)
    return result, torch.rand(3), training.net


def resumed(seed, feature, path, kills):
    """A training that is killed after each number of steps."""
    for kill in kills:
        with pytest.raises(KilledError):
            run_alone(work(seed, feature, Saves(path, kill)))
    saves = Saves(path)
    result = run_alone(work(seed, feature, saves))
    assert saves.loaded
    return result


KINDS = [
    "adamw", "plain", "no-momentum", "mixup", "augmentation", "frozen", "micro-batches",
    "perturbed-per-image-augmented", "perturbed-transform-augmented", "bf16", "sparse",
]  # fmt: skip


@pytest.mark.parametrize("feature", KINDS)
def test_a_training_that_is_killed_ends_with_the_same_bits(feature, tmp_path):
    assert feature in FEATURES
    expected = run_alone(work(0, feature))
    # Before the first step, within an epoch, at its end, and once more soon after.
    assert_equal(resumed(0, feature, tmp_path / "saved", [0, 2, 3, 1]), expected)


def test_a_group_that_is_killed_goes_on_as_one(tmp_path):
    def together(kill=None):
        saves = [Saves(tmp_path / str(seed), kill) for seed in (0, 1)]
        works = [work(seed, "adamw", saves[seed], captured=True) for seed in (0, 1)]
        return Group(CPU, 2, RecordedCalls, print).run(works)

    for kill in (4, 2):
        assert [type(each.error) for each in together(kill)] == [KilledError] * 2
    for seed, each in enumerate(together()):
        assert_equal(each.result, run_alone(work(seed, "adamw")))


def test_one_of_a_group_may_go_on_while_another_begins(tmp_path):
    with pytest.raises(KilledError):
        run_alone(work(0, "adamw", Saves(tmp_path / "0", 5)))
    works = [work(seed, "adamw", Saves(tmp_path / str(seed)), captured=True) for seed in (0, 1)]
    for seed, each in enumerate(Group(CPU, 2, RecordedCalls, print).run(works)):
        assert_equal(each.result, run_alone(work(seed, "adamw")))


def first_weight_of(content):
    saved = torch.load(io.BytesIO(content), weights_only=True)
    return saved["parameters"][0].numpy().tobytes()


@pytest.mark.parametrize("damage", ["other-key", "cut", "bit", "empty", "other-content"])
def test_what_cannot_be_gone_on_with_is_begun_again(damage, tmp_path):
    path = tmp_path / "saved"
    with pytest.raises(KilledError):
        run_alone(work(0, "plain", Saves(path, 5)))
    saves = Saves(path, key="another" if damage == "other-key" else "job")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    if damage == "bit":  # of a weight: nothing else tells
        content = bytearray(path.read_bytes())
        content[content.index(first_weight_of(content))] ^= 1
        path.write_bytes(content)
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "other-content":
        torch.save([1, 2], path)
    result = run_alone(work(0, "plain", saves))
    assert not saves.loaded
    assert_equal(result, run_alone(work(0, "plain")))


def test_it_is_written_after_some_time_and_not_at_each_step(tmp_path):
    now, written = [0.0], []

    class Timed(Unfinished):
        def _write(self, _training, progress):
            written.append((now[0], progress.step))

        def visit(self, training, progress):
            super().visit(training, progress)
            now[0] += 40

    run_alone(work(0, "plain", Timed(tmp_path / "saved", "job", 100.0, lambda: now[0])))
    assert [at for at, _ in written] == [120.0, 240.0]


def test_a_full_disk_neither_ends_a_training_nor_loses_what_was_kept(tmp_path):
    path = tmp_path / "saved"
    with pytest.raises(KilledError):
        run_alone(work(0, "plain", Saves(path, 5)))
    before = path.read_bytes()
    (tmp_path / ".saved.0123.pt").write_text("of a process that was killed as it wrote")
    with files_no_larger_than(len(before) // 2):
        result = run_alone(work(0, "plain", Saves(path)))
    assert_equal(result, run_alone(work(0, "plain")))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_does_not_end_a_training(tmp_path):
    (tmp_path / "file").touch()
    result = run_alone(work(0, "plain", Saves(tmp_path / "file" / "saved")))
    assert_equal(result, run_alone(work(0, "plain")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_keeps_all_of_a_group_and_ends_it(number, tmp_path):
    class Signalled(Saves):
        def visit(self, training, progress):
            if progress.epoch == 1 and progress.step == 1 and self.tells:
                os.kill(os.getpid(), number)
            super().visit(training, progress)

    def together(*, tells):
        saves = [Signalled(tmp_path / str(seed)) for seed in (0, 1)]
        for each in saves:
            each._seconds = 1e9
            each.tells = tells and each is saves[0]
        works = [work(seed, "adamw", saves[seed], captured=True) for seed in (0, 1)]
        with endings_deferred():
            return Group(CPU, 2, RecordedCalls, print).run(works), saves

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        together(tells=True)
    assert signal.getsignal(number) == before
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    ended, saves = together(tells=False)
    assert all(each.loaded for each in saves)
    for seed, each in enumerate(ended):
        assert_equal(each.result, run_alone(work(seed, "adamw")))


def test_a_signal_outside_of_steps_interrupts_at_the_end(monkeypatch):
    with pytest.raises(KeyboardInterrupt), endings_deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    with endings_deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            end_if_requested()
        monkeypatch.setattr(interrupts, "TOGETHER_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):  # a second one does not wait
            os.kill(os.getpid(), signal.SIGTERM)
        _REQUESTED.clear()


@pytest.mark.parametrize("first", DEFERRED)
def test_what_a_scheduler_and_the_main_process_send_is_one_request(first):
    def step():
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending_requested()

    with pytest.raises(KeyboardInterrupt), endings_deferred():
        step()


# --- in a worker ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A worker without a job, a pre-training for it, and where that is kept."""
    folder = tmp_path_factory.mktemp("worker") / "run"
    planned = plan_suite(tiny_suite(), Options(out=folder, device="cpu"))
    store = planned.store
    job = next(job for job in planned.plan.jobs.values() if job.kind == "pretrain")
    engine = start_engine(Machine(store.root, store.datasets, None, "cpu"))
    return engine, job, store.root / "unfinished" / job.id / "training.pt"


def test_what_an_attempt_went_on_from_goes_where_it_failed_and_got_no_further(worker, monkeypatch):
    engine, job, saved = worker

    def is_kept_after(error, *, saves=False):
        def visit(self, training, progress):
            if saves:
                self._write(training, progress)
            raise error

        monkeypatch.setattr(Unfinished, "visit", visit)
        with pytest.raises(type(error)):
            engine(job)
        return saved.exists()

    assert is_kept_after(ValueError(), saves=True)
    assert is_kept_after(MemoryError())
    assert is_kept_after(DataError("not mounted"))
    assert is_kept_after(OSError(errno.ESTALE, "Stale file handle"))
    assert is_kept_after(ValueError(), saves=True)
    assert not is_kept_after(ValueError())


def test_a_training_is_not_begun_again_where_memory_runs_out_for_it(tmp_path, monkeypatch):
    path = tmp_path / "saved"
    with pytest.raises(KilledError):
        run_alone(work(0, "plain", Saves(path, 5)))

    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        run_alone(work(0, "plain", Saves(path)))


def test_a_training_does_not_go_on_under_other_code_of_a_plugin(worker, monkeypatch):
    engine, job, saved = worker
    draft = Draft(saved.parents[2] / "partial" / job.id, saved.parent, already_done=False)

    def key():
        return engine._unfinished(job, draft, compiled=False, sharded=False)._key

    before, codes_of = key(), jobs.codes_of

    def edited(uses, registry):
        codes = codes_of(uses, registry)
        title = f"backbone {job.payload['backbone']['name']!r}"
        return codes | {title: codes[title].model_copy(update={"sha256": "0" * 64})}

    assert key() == before
    monkeypatch.setattr(jobs, "codes_of", edited)
    assert key() != before


# --- whole runs -----------------------------------------------------------------------------------

DRAW = random.Random(13)
MOMENTS = [DRAW.uniform(0, 0.3) for _ in range(10)]
LONG = {
    "replicates": 1, "diagnostics": {}, "claims": {},
    "perturbations": {"none": {"name": "identity"}},
}  # fmt: skip
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_resuming import long_run
from transferbench.runner import execute
machine = execute.machine_of
execute.machine_of = lambda *arguments: machine(*arguments)._replace(save_seconds=0.0)
long_run({folder!r}, {epochs})
"""


def long_run(folder, epochs):
    recipe = {
        "optimizer": "adamw", "learning_rate": 0.003, "epochs": epochs, "batch_size": 10,
        "augmentation": {"shift": 1}, "mixup": 0.2,
    }  # fmt: skip
    suite = tiny_suite(**LONG, recipes={"short": recipe})
    return run(suite, out=Path(folder) / "run", jobs=1, device="cpu", progress=False)


def weights_of(folder):
    return {
        path.parent.name: path.read_bytes()
        for path in (Path(folder) / "store" / "jobs").rglob("*.safetensors")
        if path.name in {"final.safetensors", "best.safetensors"}
    }


@pytest.mark.parametrize("number", DEFERRED)
def test_a_training_is_kept_where_all_processes_of_a_run_get_the_signal(number, tmp_path):
    """As Slurm sends it to a job before its time is over; nothing is kept otherwise here."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path), epochs=300)
    script = script.replace("save_seconds=0.0", "save_seconds=1e9").replace("jobs=1", "jobs=2")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob("store/leases/*")):
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, number)
    assert process.wait(60) != -number
    assert list((tmp_path / "store" / "unfinished").iterdir())


def killed_run(folder, epochs, moments):
    """A run that is killed after each number of seconds since a training was kept.

    Returns how many of the kills left a training that is to go on.
    """
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), epochs=epochs)
    unfinished = folder / "store" / "unfinished"
    kills = 0
    for seconds in moments:
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        before = {path: path.stat().st_mtime_ns for path in unfinished.glob("*")}
        while process.poll() is None and before == {
            path: path.stat().st_mtime_ns for path in unfinished.glob("*")
        }:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        kills += process.wait() == -signal.SIGKILL and any(unfinished.iterdir())
    return kills


@pytest.mark.parametrize(
    ("epochs", "moments", "fewest"),
    [(3, [0.02], 1), pytest.param(20, MOMENTS, 5, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_a_run_that_is_killed_ends_with_the_same_bits(epochs, moments, fewest, tmp_path):
    assert killed_run(tmp_path / "killed", epochs, moments) >= fewest
    finished = long_run(tmp_path / "killed", epochs)
    assert not finished.failed
    assert not list((tmp_path / "killed" / "store" / "unfinished").iterdir())
    long_run(tmp_path / "undisturbed", epochs)
    expected = weights_of(tmp_path / "undisturbed")
    assert len(expected) >= 3
    assert weights_of(tmp_path / "killed") == expected
