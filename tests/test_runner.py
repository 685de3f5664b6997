"""A whole run: what it leaves, what it does not do twice, and what no accident can take from it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from tiny_suite import TINY, tiny_suite

from transferbench.api import Run, compare_runs, export_run, pack_run, run
from transferbench.errors import DataError, DeviceError, PluginError, StoreError, UnknownNameError
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import JobSchedule, SilentWatcher
from transferbench.store import Store


class Recorder(SilentWatcher):
    """A watcher that keeps what happened."""

    def __init__(self):
        self.ran, self.outcomes = [], []

    def planned(self, jobs, done):
        self.total, self.done = len(jobs), len(done)

    def started(self, job):
        self.ran.append(job)

    def finished(self, job, outcome):
        self.outcomes.append((job, outcome))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    watcher = Recorder()
    return run(tiny_suite(), progress=watcher, out=folder, jobs=1, device="cpu"), watcher


@pytest.fixture
def copied(undisturbed, tmp_path):
    """The folder of a copy, with its store, that may be changed: tests come in any order."""
    finished, _ = undisturbed
    return shutil.copytree(finished.folder.parent, tmp_path / "copy") / finished.folder.name


def test_a_run_leaves_records_verdicts_environment_and_a_report(undisturbed):
    finished, watcher = undisturbed
    assert not finished.failed
    assert watcher.total == len(watcher.ran) == 1 + 8 + 8 + 8 + 4 + 2
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {"run.json", "records.jsonl", "claims.json", "environment.json", "report.html"}
    assert [verdict.claim for verdict in finished.claims["fixup-resnet8"]] == ["faster"]
    table = finished.measurements
    trials = table[(table.diagnostic == "trial") & (table.metric == "test_metric")]
    assert len(trials) == 8
    assert set(table.diagnostic) == {"trial", "curve", "speed", "drop", "mistakes"}


def test_a_second_run_executes_no_job_and_leaves_equal_records(undisturbed):
    finished, _ = undisturbed
    before = (finished.folder / "records.jsonl").read_bytes()
    watcher = Recorder()
    run(tiny_suite(), progress=watcher, out=finished.folder, jobs=1)
    assert watcher.ran == []
    assert watcher.done == watcher.total
    assert (finished.folder / "records.jsonl").read_bytes() == before


def test_the_pretrained_arm_starts_from_the_source_and_the_random_one_does_not(undisturbed):
    finished, _ = undisturbed
    store = Store(finished.folder / finished.described["store"])
    rows = {row["id"]: row for row in finished.described["jobs"]}
    (source,) = [job for job, row in rows.items() if row["kind"] == "pretrain"]
    final = load_file(store.artefact(source).path("final.safetensors"))
    for job, row in rows.items():
        if row["kind"] == "trial":
            init = load_file(store.artefact(job).path("init.safetensors"))
            equal = [bool((init[name] == final[name]).all()) for name in final
                     if init[name].shape == final[name].shape
                     and "conv" in name and final[name].any()]  # fmt: skip
            assert all(equal) == (row["initialization"] == "P-T"), row["label"]


def test_worker_processes_give_the_same_bytes_as_one_process(undisturbed, tmp_path):
    finished, _ = undisturbed
    again = run(tiny_suite(), out=tmp_path / "run", jobs=2, device="cpu")
    first, second = (folder / "records.jsonl" for folder in (finished.folder, again.folder))
    assert first.read_bytes() == second.read_bytes()


KILLED = """
    import json, os, sys
    import matplotlib.figure, pandas, scipy.ndimage, scipy.stats, sklearn.datasets, torch
    import transferbench.engine.jobs, transferbench.report.page
    torch.set_num_threads(1)
    from transferbench.api import run
    from transferbench.suite import Suite
    from pathlib import Path
    suite = Suite.model_validate(json.loads(sys.argv[1]))
    # One import of everything serves all attempts: each runs in a fork of its own.
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(suite, out=Path(sys.argv[2]), jobs=1, device="cpu")
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)
"""


KILLS = 5
"""Many more, of workers too, in test_kills."""


def test_killed_at_random_moments_it_ends_with_equal_records(undisturbed, tmp_path):
    finished, _ = undisturbed
    out = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), json.dumps(TINY), str(out)]
    pipe = subprocess.PIPE
    moments = random.Random(20)
    kills = 0
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:
        for _ in range(200):
            kills += _attempt(parent, moments.uniform(0.01, 0.6))
            if kills == KILLS:
                break
        assert kills == KILLS
        assert not _attempt(parent, None)
        parent.stdin.close()
    expected = (finished.folder / "records.jsonl").read_bytes()
    assert (out / "records.jsonl").read_bytes() == expected
    assert not Run(out).failed
    assert not list((out.parent / "store" / "partial").iterdir())


def _attempt(parent, delay):
    """Start a run and kill it after ``delay`` seconds; whether it was killed before its end."""
    parent.stdin.write("go\n")
    parent.stdin.flush()
    child = int(parent.stdout.readline())
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = int(parent.stdout.readline())
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_damaged_artefact_is_noticed_and_computed_again(copied, harm):
    expected = (copied / "records.jsonl").read_bytes()
    planned = plan_suite(tiny_suite(), Options(out=copied, jobs=1, device="cpu"))
    victim = next(
        path for path in sorted((copied.parent / "store" / "jobs").rglob("measurements.json"))
        if not (path.parent / "trial.json").exists()
    )  # fmt: skip
    _damage(victim, harm)
    watcher = Recorder()
    run_plan(planned, watcher)
    assert len(watcher.ran) == 1
    assert (copied / "records.jsonl").read_bytes() == expected


def _damage(path: Path, harm):
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(data[:-3])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_a_damaged_trial_is_trained_again_for_the_diagnosis_that_needs_it(tmp_path):
    options = Options(out=tmp_path / "run", jobs=1, device="cpu")
    suite = tiny_suite(replicates=1)
    small = {name: TINY["diagnostics"][name] for name in ("curve", "speed")}
    run_plan(plan_suite(tiny_suite(replicates=1, diagnostics=small), options), Recorder())
    for outputs in (tmp_path / "store" / "jobs").rglob("outputs.safetensors"):
        _damage(outputs, "flip")
    watcher = Recorder()
    outcomes = run_plan(plan_suite(suite, options), watcher).outcomes
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert sum(job.kind == "trial" for job in watcher.ran) == 4


PLUGIN = """
from transferbench import hookimpl
from transferbench.records import Measurement
from transferbench.specs import DiagnosticSpec

def measure(params, subjects, context):
    {body}

@hookimpl
def transferbench_diagnostics():
    return [DiagnosticSpec(name="mine", version=1, summary="s", source="s", license="l",
                           measure=measure, subjects="one")]
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise RuntimeError('no luck')", "diagnostic 'mine' failed: RuntimeError: no luck"),
        ("return [1.0]", "yielded float; it must yield Measurement"),
        ("return None", "diagnostic 'mine' failed: TypeError"),
        (
            "yield from [Measurement(metric='m', value=v, unit='points', n=1) for v in (1, 2)]",
            "diagnostic 'mine' measured m twice; distinguish the values by a coordinate",
        ),
        (
            (
                "from itertools import count\n    yield from (Measurement(metric='m', value=0, "
                "unit='points', n=1, coordinates={'epoch': i}) for i in count())"
            ),
            "diagnostic 'mine' yielded more than 100000 measurements",
        ),
    ],
)
def test_a_plugin_that_fails_costs_its_own_jobs_and_is_named(tmp_path, body, expected):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(body=body))
    suite = one_trial_an_arm(diagnostics={"mine": {"name": "mine"}, "speed": {"name": "speed"}})
    finished = run(suite, out=tmp_path / "run", jobs=1, device="cpu", plugins=[file])
    assert len(finished.failed) == 2
    assert all(expected in row["message"] for row in finished.failed)
    assert {row["status"] for row in finished.failed} == {"failed"}
    assert set(finished.measurements.diagnostic) == {"trial", "speed"}


def one_trial_an_arm(**changes):
    whole = {"none": {"name": "identity"}}
    fewest = {"perturbations": whole, "diagnostics": {}, "claims": {}, "replicates": 1}
    return tiny_suite(**fewest | changes)


BATCH_NORM = """
from transferbench import hookimpl
from transferbench.specs import BackboneSpec

def build(params, num_classes, in_chans, image_size):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(in_chans * image_size**2),
                         nn.Linear(in_chans * image_size**2, num_classes))

@hookimpl
def transferbench_backbones():
    return [BackboneSpec(name="mine", version=1, summary="s", source="s", license="l",
                         build=build, modules=lambda net: {"norm": ["1"], "head": ["2"]},
                         head=lambda net: net[2])]
"""


def test_batch_statistics_that_are_not_declared_stop_a_micro_batch_in_the_job(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(BATCH_NORM)
    suite = one_trial_an_arm()
    options = {"out": tmp_path / "run", "jobs": 1, "device": "cpu", "plugins": [file]}
    finished = run(suite, backbones=["mine"], micro_batch=4, **options)
    own = [row for row in finished.failed if row["status"] == "failed"]
    assert {row["kind"] for row in own} == {"pretrain", "trial"}
    expected = (
        "--micro-batch 4 would change the numbers of mine: it normalises by statistics of its"
    )
    assert all(expected in row["message"] for row in own)
    assert not run(suite, backbones=["mine"], **options).failed


def test_a_network_without_batch_statistics_accumulates_its_micro_batches(tmp_path):
    suite = one_trial_an_arm()
    scores = [
        run(suite, out=tmp_path / str(size) / "run", jobs=1, device="cpu", micro_batch=size)
        .measurements.query("metric == 'test_loss'")["value"].to_numpy()
        for size in (None, 4)
    ]  # fmt: skip
    assert len(scores[0]) == 2
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)


def test_what_fails_is_tried_again_and_what_succeeded_is_not(tmp_path):
    file = tmp_path / "mine.py"
    suite = one_trial_an_arm(diagnostics={"mine": {"name": "mine"}})
    file.write_text(PLUGIN.format(body="raise RuntimeError('no luck')"))
    run(suite, out=tmp_path / "run", jobs=1, device="cpu", plugins=[file])
    file.write_text(PLUGIN.format(body="return []"))
    watcher = Recorder()
    finished = run(suite, progress=watcher, out=tmp_path / "run", jobs=1, device="cpu",
                   plugins=[file])  # fmt: skip
    assert {job.kind for job in watcher.ran} == {"diagnosis"}
    assert not finished.failed


BACKBONE = """
from transferbench import hookimpl
from transferbench.specs import BackboneSpec

def build(params, num_classes, in_chans, image_size):
    from torch import nn
    {body}

@hookimpl
def transferbench_backbones():
    return [BackboneSpec(name="my-net", version=1, summary="s", source="s", license="l",
                         build=build, modules=lambda net: {{"stem": ["0"], "head": ["2"]}},
                         head=lambda net: net[2])]
"""
FLAT = (
    "return nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.Flatten(), "
    "nn.Linear(4 * (image_size - 2) ** 2, num_classes))"
)


def test_a_failed_pretraining_skips_what_needs_it_and_keeps_the_rest(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        BACKBONE.format(body="if num_classes == 10: raise OSError('broken')\n    " + FLAT)
    )
    finished = run(one_trial_an_arm(), out=tmp_path / "run", jobs=1, device="cpu", plugins=[file],
                   backbones=["my-net"])  # fmt: skip
    by_status = {row["status"] for row in finished.failed}
    assert by_status == {"failed", "skipped"}
    assert any("my-net" in row["message"] and "broken" in row["message"]
               for row in finished.failed)  # fmt: skip
    assert any("which did not finish" in row["message"] for row in finished.failed)


def test_another_backbone_joins_the_entries_that_are_finished(copied, tmp_path):
    file = tmp_path / "net.py"
    file.write_text(BACKBONE.format(body=FLAT))
    more = run(tiny_suite(), out=copied, jobs=1, device="cpu", plugins=[file],
               backbones=["my-net"])  # fmt: skip
    assert more.entries == ["fixup-resnet8", "my-net"]
    assert set(more.measurements.entry) == {"fixup-resnet8", "my-net"}
    with pytest.raises(UnknownNameError, match="no backbone named 'my-net'"):
        run(tiny_suite(), out=copied, backbones=["my-net"])


def test_a_loose_dataset_runs_in_a_suite(tmp_path):
    file = Path(__file__).parent / "loose_plugins" / "my_data.py"
    suite = one_trial_an_arm(
        targets={"mine": {"dataset": {"name": "my-data"}, "validation": 0.0}},
        scoring=TINY["scoring"] | {"chance": {"mine": 0.5}, "reference": {"mine": 1.0}},
    )
    finished = run(suite, out=tmp_path / "run", jobs=1, device="cpu", plugins=[file])
    assert not finished.failed
    with pytest.raises(UnknownNameError, match="no dataset named 'my-data'"):
        plan_suite(suite, Options(out=tmp_path / "run"))


def test_cuda_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(DeviceError, match="finds no CUDA device"):
        run(tiny_suite(), out=tmp_path / "run", device="cuda")


def test_an_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is not a folder, and --out must be one"):
        run(tiny_suite(), out=tmp_path / "file" / "run", jobs=1)


def test_a_missing_dataset_says_how_to_get_it(tmp_path):
    suite = tiny_suite(
        targets={"fashion": {"dataset": {"name": "fashion-mnist"}}},
        scoring=TINY["scoring"] | {"chance": {"fashion": 0.1}, "reference": {"fashion": 1.0}},
    )
    with pytest.raises(DataError, match="target:fashion"):
        run(suite, out=tmp_path / "run", jobs=1)


def test_a_dataset_that_changed_since_it_was_planned_is_refused(tmp_path):
    planned = plan_suite(tiny_suite(), Options(out=tmp_path / "run", jobs=1, device="cpu"))
    jobs = {
        name: job._replace(payload=job.payload | {
            "dataset": job.payload["dataset"] | {"fingerprint": "0" * 64}})
        for name, job in planned.plan.jobs.items() if job.kind == "pretrain"
    }  # fmt: skip
    from functools import partial

    from transferbench.engine.jobs import start_engine
    from transferbench.engine.resources import Machine
    from transferbench.runner.executors.inprocess import InProcessExecutor

    root = planned.store.root
    machine = Machine(root, root / "datasets", None, "cpu")
    with InProcessExecutor(partial(start_engine, machine)) as executor:
        schedule = JobSchedule(jobs, set(), planned.store, executor, Recorder())
        (outcome,) = schedule.run().values()
    assert "other pixels or labels than when the run was planned" in outcome.message


def test_a_process_that_ran_jobs_has_its_threads_again(tmp_path):
    import scipy.linalg  # noqa: F401  # which has threads of its own
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    from transferbench.runner.executors import Assignment
    from transferbench.runner.executors.this_machine import LocalOptions, on_this_machine

    def threads():
        of_libraries = {library["num_threads"] for library in threadpool_info()}
        return {torch.get_num_threads()} | of_libraries

    def start():
        return lambda _: inside.append(threads())

    options = Options(out=tmp_path, jobs=1, device="cpu")
    context = SimpleNamespace(options=options, start=lambda *_: start)
    inside, before = [], torch.get_num_threads()
    with threadpool_limits(2):
        torch.set_num_threads(2)
        with on_this_machine(context, LocalOptions()) as executor:
            for job in ("first", "second"):
                executor.submit(Assignment.of(job, None))
                assert [outcome.status for outcome in executor.wait()] == ["ok"]
        assert inside == [{1}, {1}]
        assert threads() == {2}
    torch.set_num_threads(before)


def test_a_worker_computes_in_one_thread_whichever_library_computes(tmp_path):
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    from transferbench.engine.jobs import start_engine
    from transferbench.engine.resources import Machine

    before = torch.get_num_threads()
    with threadpool_limits(2):
        torch.set_num_threads(2)
        start_engine(Machine(tmp_path, tmp_path / "datasets", None, "cpu"))
        assert {library["num_threads"] for library in threadpool_info()} == {1}
        assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_a_plugin_of_another_version_than_planned_is_refused():
    from transferbench.engine.resources import same_version
    from transferbench.registry import load_registry

    spec = load_registry().dataset("digits")
    with pytest.raises(PluginError, match="is version 1 here, but the job was planned with"):
        same_version(spec, {"version": 9})


def test_runs_are_compared_in_pairs_and_exported(undisturbed, tmp_path):
    finished, _ = undisturbed
    rows = compare_runs(finished.folder, finished.folder)
    assert rows
    assert all(row["a - b"] == 0 and row["n"] == 2 for row in rows)
    for ending in ("csv", "parquet", "json"):
        count = export_run(finished.folder, tmp_path / f"table.{ending}")
        assert count == len(Run(finished.folder).measurements)
    with pytest.raises(DataError, match="must be one of"):
        export_run(finished.folder, tmp_path / "table.xls")


def test_folders_and_files_may_be_given_as_text(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(body="return []"))
    out, store, root = (str(tmp_path / name) for name in ("runs/x", "shared", "data"))
    suite = one_trial_an_arm()
    finished = run(suite, out=out, store=store, data_root=root, plugins=[str(plugin)],
                   jobs=1, device="cpu")  # fmt: skip
    assert finished.folder == Path(out)
    assert finished.store.root.resolve() == Path(store)
    assert finished.registry is not None
    assert "mine" in finished.registry.names("diagnostic")
    assert Run(out).entries == Run(Path(out)).entries == ["fixup-resnet8"]
    assert export_run(out, str(tmp_path / "table.csv")) == len(Run(out).measurements)
    assert len(compare_runs(out, out)) > 0
    (packed,) = pack_run(out, str(tmp_path / "s"), registry=finished.registry)
    assert packed.is_relative_to(tmp_path / "s")


def test_a_folder_without_a_run_is_reported(tmp_path):
    with pytest.raises(StoreError, match="is not a run's folder"):
        Run(tmp_path)
