"""A run computes again, in the same run, whatever is damaged in its store, and says so."""

from __future__ import annotations

import re
import shutil

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file
from damage import HARMS, flip, make_folder, rewrite, truncate

from transferbench.api import Run
from transferbench.errors import StoreError
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import ATTEMPTS, run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.suite import Suite

SUITE = Suite.model_validate(SMALL)
AT_THE_END = {"manifest.json", "measurements.json", "outputs.safetensors", "trial.json"}


class Damager(SilentWatcher):
    """Damages what a job left as soon as it is finished, so often, and counts the jobs."""

    def __init__(self, store=None, harm=flip, name="measurements.json", kind="trial", times=0):
        self.store, self.harm, self.name, self.kind = store, harm, name, kind
        self.left, self.ran = times, []

    def finished(self, job, outcome):  # noqa: ARG002  # as the protocol has it
        self.ran.append(job)
        if job.kind == self.kind and self.left:
            self.left -= 1
            self.harm(self.store / "jobs" / job.id[:2] / job.id / self.name)


def plan(folder):
    return plan_suite(SUITE, Options(out=folder / "run", jobs=1, device="cpu"))


def records(folder):
    return (folder / "run" / "records.jsonl").read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    run_plan(plan(folder), SilentWatcher())
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "copy")


@pytest.mark.parametrize("harm", HARMS)
def test_a_run_heals_its_store(sound, folder, capsys, harm):
    """Each artefact is damaged in one of the files that the end of a run reads."""
    for number, artefact in enumerate(artefacts(folder / "store")):
        names = sorted(AT_THE_END & {path.name for path in artefact.iterdir()})
        harm(artefact / names[number % len(names)])
    watcher = Damager()
    run_plan(plan(folder), watcher)
    said = capsys.readouterr().err
    assert "finished job(s) in the store are damaged; they are set aside in" in said
    assert "and computed again:\n  " in said
    assert len(watcher.ran) == len(artefacts(sound / "store"))
    assert records(folder) == records(sound)
    again = Damager()
    run_plan(plan(folder), again)
    assert again.ran == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("harm", "name"),
    [(flip, "measurements.json"), (truncate, "outputs.safetensors"), (make_folder, "manifest.json"),
     (flip, "trial.json")],
)  # fmt: skip
def test_what_is_damaged_while_a_run_lasts_is_computed_again(sound, tmp_path, capsys, harm, name):
    watcher = Damager(tmp_path / "store", harm, name, times=1)
    run_plan(plan(tmp_path), watcher)
    assert sum(job.kind == "trial" for job in watcher.ran) == 3
    assert "damaged" in capsys.readouterr().err
    assert records(tmp_path) == records(sound)


def test_what_is_damaged_whenever_it_is_computed_ends_the_run(tmp_path):
    watcher = Damager(tmp_path / "store", times=100)
    message = r"2 jobs are damaged whenever they are computed: check the disk of .*store; what is"
    with pytest.raises(StoreError, match=message):
        run_plan(plan(tmp_path), watcher)
    assert sum(job.kind == "trial" for job in watcher.ran) == 2 * ATTEMPTS


THEN_CUDA = r"it was computed with device cuda \(now cpu\), device_name H100 \(now \S+\)"


@pytest.mark.parametrize(
    ("facts", "origin"),
    [
        ({"device": "cuda", "device_name": "H100"}, THEN_CUDA),
        ({}, r"then and now with device cpu, device_name \S+, torch \S+"),
    ],
)
def test_other_bits_than_before_are_told(sound, folder, capsys, facts, origin):
    trial = next(path.parent for path in (folder / "store").rglob("manifest.json")
                 if '"kind":"trial"' in path.read_text())  # fmt: skip
    measured = trial / "measurements.json"
    measured.write_text(measured.read_text().replace("fraction", "percents"))
    rewrite(trial, **facts)
    flip(trial / "outputs.safetensors")
    run_plan(plan(folder), SilentWatcher())
    line = rf"^note: other bits: \S.* replicate \d: measurements\.json; {origin}; measured on the "
    assert re.search(line + "earlier bits: speed of ", capsys.readouterr().err, re.MULTILINE)
    assert records(folder) == records(sound)


FAILING = """
from transferbench import hookimpl
from transferbench.specs import DiagnosticSpec

def measure(params, subjects, context):
    raise ValueError("no")

@hookimpl
def transferbench_diagnostics():
    return [DiagnosticSpec(name="mine", version=1, summary="s", source="s", license="l",
                           measure=measure, subjects="one")]
"""


def test_a_job_that_failed_is_not_tried_again_because_another_is_damaged(tmp_path):
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILING)
    suite = SUITE.model_validate(SMALL | {"diagnostics": {"mine": {"name": "mine"}}})
    options = Options(out=tmp_path / "run", jobs=1, device="cpu", plugins=[plugin])
    watcher = Damager(tmp_path / "store", times=1)
    results = run_plan(plan_suite(suite, options), watcher)
    assert sum(job.kind == "trial" for job in watcher.ran) == 3
    assert sum(job.kind == "diagnosis" for job in watcher.ran) == 2
    statuses = [state.status for state in results.collected.states.values()]
    assert sorted(statuses) == ["failed", "failed", "ok", "ok", "ok"]


def test_all_that_a_job_reads_is_computed_again_at_once(folder, capsys):
    """A diagnosis of several trials with a damaged state each."""
    pairs = [{"a": "P-T", "b": "RI-T", "replicates": "same"}]
    mistakes = {"mistakes": {"name": "distance", "pairs": pairs}}
    suite = SUITE.model_validate(SMALL | {"diagnostics": mistakes})
    for state in (folder / "store").rglob("final.safetensors"):
        flip(state)
    watcher = Damager()
    options = Options(out=folder / "run", jobs=1, device="cpu")
    run_plan(plan_suite(suite, options), watcher)
    assert sum(job.kind == "trial" for job in watcher.ran) == 2
    assert "note: damaged, and computed again for mistakes of " in capsys.readouterr().err


def test_the_command_shows_the_board_of_a_healed_store(folder):
    for outputs in (folder / "store").rglob("outputs.safetensors"):
        flip(outputs)
    said = cli("run", suite_file(folder, SMALL), "--out", folder / "run", "--jobs", 1)
    assert said.code == 0
    assert "no board" not in said.out
    assert "outputs.safetensors does not have the sha256 of its manifest" in said.err


def test_the_status_of_a_damaged_job_is_told(folder):
    victim = artefacts(folder / "store")[0]
    make_folder(victim / "manifest.json")
    assert "damaged" in set(Run(folder / "run").statuses["status"])
    said = cli("status", folder / "run")
    assert said.code == 0
    assert ": its manifest.json is missing, damaged or of another job" in said.out


def test_an_earlier_entry_with_a_damaged_job_stays_in_the_run(folder):
    first = records(folder)
    make_folder(artefacts(folder / "store")[0] / "manifest.json")
    options = Options(out=folder / "run", jobs=1, device="cpu", backbones=["fixup-resnet14"])
    planned = plan_suite(SUITE, options)
    assert [entry.name for entry in planned.plan.entries] == ["fixup-resnet8", "fixup-resnet14"]
    run_plan(planned, SilentWatcher())
    assert records(folder).startswith(first.partition(b"\n")[0])
    assert {entry["name"] for entry in Run(folder / "run").described["entries"]} == {
        "fixup-resnet8", "fixup-resnet14",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["datasets", "leases", "jobs"])
def test_a_file_in_the_place_of_a_folder_of_the_store_is_set_aside_with_a_line(tmp_path, name):
    store = tmp_path / "store"
    store.mkdir()
    (store / name).write_text("mine")
    said = cli("run", suite_file(tmp_path, SMALL), "--out", tmp_path / "run", "--jobs", 1)
    assert said.code == 0, said
    (aside,) = store.glob(f"{name}.*")
    assert aside.read_text() == "mine"
    assert f"note: {store / name} is not a folder; it is set aside as {aside}\n" in said.err
    assert (store / name).is_dir()


def test_data_behind_a_link_to_nothing_are_not_decoded_elsewhere(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "datasets").symlink_to(tmp_path / "unmounted")
    message = mistake("plan", suite_file(tmp_path, SMALL), "--out", tmp_path / "run")
    assert (
        f"datasets is a link to {tmp_path / 'unmounted'}, which is not a folder; mount" in message
    )
