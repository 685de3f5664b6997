"""The Python calls as a user meets them: signatures, mistakes, scripts, and what a run shows."""

import copy
import inspect
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import SMALL, cli, environment, suite_file
from own_plugin import OWN_JOBS, own_run
from rich.console import Console
from tiny_suite import tiny_suite

import transferbench
from transferbench.cli.options import RUN_OPTIONS
from transferbench.errors import SuiteError
from transferbench.runner import progress
from transferbench.runner.executors import this_machine
from transferbench.runner.options import Options, RunOptions
from transferbench.runner.schedule import SilentWatcher
from transferbench.statistics import replicate_mean
from transferbench.suite.loading import load_suite


def names(options):
    return [field.name for field in fields(options)]


# --- signatures -------------------------------------------------------------------------------


def test_every_option_is_a_keyword_in_the_signature():
    run, plan = inspect.signature(transferbench.run), inspect.signature(transferbench.plan_run)
    assert list(run.parameters) == ["suite", *names(RunOptions)]
    assert list(plan.parameters) == ["suite", *names(Options)]
    defaults = {name: run.parameters[name].default for name in names(RunOptions)}
    assert defaults == {field.name: field.default for field in fields(RunOptions)}
    assert "``changes``: Settings of the suite to change" in inspect.getdoc(transferbench.run)


def test_the_command_line_has_the_same_options():
    assert list(RUN_OPTIONS) == names(Options)


@pytest.mark.parametrize(
    ("call", "keywords", "message"),
    [
        ("run", {"backbone": ["x"]},
         "run() got an unexpected keyword argument 'backbone'; did you mean 'backbones'?"),
        ("plan_run", {"seedcount": 2},
         "plan_run() got an unexpected keyword argument 'seedcount'; did you mean 'seed_count'?"),
        ("compare", {"zzz": 2},
         "compare_runs() got an unexpected keyword argument 'zzz'; there are: first, second"),
        ("export", {"too": "x.csv"},
         "export_run() got an unexpected keyword argument 'too'; did you mean 'to'?"),
        ("pack", {"submiter": "x"},
         "pack_run() got an unexpected keyword argument 'submiter'; did you mean 'submitter'?"),
    ],
)  # fmt: skip
def test_a_misspelt_option_is_a_type_error_that_suggests_the_right_one(call, keywords, message):
    arguments = ["quickstart"] if "run" in call else ["a", "b"]
    with pytest.raises(TypeError) as caught:
        getattr(transferbench, call)(*arguments, **keywords)
    assert str(caught.value) == message


def test_a_call_without_its_suite_says_so():
    with pytest.raises(TypeError, match=r"^run\(\) missing a required argument: 'suite'$"):
        transferbench.run()


@pytest.mark.parametrize("name", ["backbones", "initializations", "changes", "plugins"])
def test_a_text_where_a_list_belongs_is_a_type_error(name):
    with pytest.raises(TypeError, match=rf"^{name} is a list: write {name}=\['x'\]$"):
        transferbench.run("quickstart", **{name: "x"})


def test_short_names_are_the_same_calls():
    assert transferbench.compare is transferbench.compare_runs
    assert transferbench.export is transferbench.export_run
    assert transferbench.pack is transferbench.pack_run
    assert set(transferbench.__all__) <= set(dir(transferbench))


# --- scripts ----------------------------------------------------------------------------------


def test_three_lines_without_a_main_guard_run_on_a_fresh_store(tmp_path):
    suite_file(tmp_path, SMALL)
    script = tmp_path / "script.py"
    script.write_text(
        "import transferbench\n"
        # A limit needs a worker process, of which one is enough.
        "run = transferbench.run('suite.yaml', jobs=1, time_limit_seconds=600, device='cpu')\n"
        "print(run.claims)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("note: the images of ") for line in done.stderr.splitlines())
    assert done.stdout.startswith("{'fixup-resnet8': [<faster: ")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "transferbench", "--version"], env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"transferbench {transferbench.__version__}\n"


# --- what a run shows -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return transferbench.run(tiny_suite(), out=folder, jobs=1, device="cpu")


def test_the_repr_says_suite_entries_jobs_verdicts_and_folder(finished):
    verdict = finished.claims["fixup-resnet8"][0].verdict
    assert repr(finished) == (
        f"<Run tiny@1.0 of fixup-resnet8; jobs: 31 ok; claims: 1 {verdict}; {finished.folder}>"
    )
    assert repr(transferbench.Run(finished.folder)) == repr(finished)


def test_what_was_just_computed_is_what_the_folder_holds(finished):
    again = transferbench.Run(finished.folder)
    assert finished.measurements.equals(again.measurements)
    assert finished.claims == again.claims
    assert finished.job_rows == again.job_rows


def test_the_table_holds_the_mean_of_each_arm_with_its_interval(finished):
    table = finished.table()
    assert list(table.columns) == [
        "entry", "target", "perturbation", "arm", "mean", "low", "high", "n",
    ]  # fmt: skip
    assert list(table["arm"]) == ["P-T", "RI-T"] * 2
    assert list(table["perturbation"]) == ["none"] * 2 + ["block-2"] * 2
    rows = finished.measurements.query(
        "diagnostic == 'trial' and metric == 'test_metric' and perturbation == 'none' "
        "and initialization == 'P-T'"
    )
    expected = replicate_mean(dict(enumerate(rows["value"])), ends=(0.0, 1.0))
    assert tuple(table.loc[0, ["mean", "low", "high", "n"]]) == (*expected[:3], 2)
    assert finished.table("train_loss")["mean"].notna().all()


def test_a_notebook_shows_verdicts_and_a_picture(finished):
    page = finished._repr_html_()
    assert "&lt;Run tiny@1.0" in page
    assert "P-T trains faster" in page
    assert page.count("<svg ") == 1
    assert "fixup-resnet8 on handwriting" in page


def test_one_replicate_has_no_interval_and_is_still_drawn(tmp_path):
    alone = transferbench.run(tiny_suite(replicates=1, diagnostics={}, claims={}),
                              out=tmp_path / "run", jobs=1, device="cpu")  # fmt: skip
    table = alone.table()
    assert table["low"].isna().all()
    assert (table["n"] == 1).all()
    assert "<svg " in alone._repr_html_()


def test_a_plan_says_what_is_left(finished, tmp_path):
    planned = transferbench.plan_run(tiny_suite(), out=finished.folder)
    assert repr(planned) == (
        f"<Planned tiny@1.0 of fixup-resnet8; 31 jobs, 31 already done; {finished.folder}>"
    )
    fresh = transferbench.plan_run(tiny_suite(), out=tmp_path / "run")
    assert "31 jobs, 0 already done" in repr(fresh)


def test_an_unfinished_run_shows_its_jobs(tmp_path):
    assert cli("run", *own_run(tmp_path, "network")).code == 1
    (tmp_path / "run" / "claims.json").unlink()
    unfinished = transferbench.Run(tmp_path / "run")
    assert f"jobs: 5 failed, {OWN_JOBS - 5} skipped" in repr(unfinished)
    assert "claims" not in repr(unfinished)
    assert "5 failed" in unfinished._repr_html_()


# --- progress ---------------------------------------------------------------------------------


def test_nothing_is_printed_where_nobody_watches(tmp_path, capfd):
    transferbench.run(tiny_suite(replicates=1, diagnostics={}, claims={}), out=tmp_path / "run",
                      jobs=1, device="cpu")  # fmt: skip
    assert capfd.readouterr() == ("", "")


def watcher_of(option, monkeypatch, *, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with progress.progress_watcher(option) as watcher:
        return watcher


def test_a_terminal_has_a_bar_unless_it_is_silenced(monkeypatch):
    assert isinstance(watcher_of(True, monkeypatch, terminal=True), progress.Display)
    for option, terminal in ((False, True), (True, False)):
        assert isinstance(watcher_of(option, monkeypatch, terminal=terminal), SilentWatcher)
    own = SilentWatcher()
    assert watcher_of(own, monkeypatch, terminal=True) is own


# --- the machine ------------------------------------------------------------------------------


def test_cpus_are_counted_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    if hasattr(os, "sched_getaffinity"):
        assert this_machine.available_cpus() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert this_machine.available_cpus() == 7
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert this_machine.available_cpus() == 3


# --- mistakes in arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"jobs": "2"}, TypeError, "jobs must be an integer, not '2'"),
        ({"jobs": 0}, ValueError, "jobs must be at least 1, not 0"),
        ({"seed_count": 2.5}, TypeError, "seed_count must be an integer, not 2.5"),
        ({"micro_batch": True}, TypeError, "micro_batch must be an integer, not True"),
        ({"time_limit_seconds": "x"}, TypeError, "time_limit_seconds must be a number, not 'x'"),
        ({"time_limit_seconds": float("nan")}, ValueError, "must be at least 0.001, not nan"),
        ({"time_limit_seconds": float("inf")}, ValueError, "must be at most 1000000000.0"),
        ({"image_memory": float("inf")}, ValueError, "image_memory must be at most 1000000"),
        ({"jobs": 10**400}, ValueError, "jobs must be at most 1000000"),
        ({"backbones": [3]}, TypeError, "backbones is a list of texts, and 3 is none"),
        ({"changes": {"replicates": 3}}, TypeError, "changes is a list: write"),
        ({"plugins": iter(())}, TypeError, "plugins is a list: write"),
        ({"compile": "yes"}, TypeError, "compile must be True or False, not 'yes'"),
        ({"fast_kernels": 1}, TypeError, "fast_kernels must be True or False, not 1"),
        ({"out": 3}, TypeError, "out must be a text or a path, not 3"),
        ({"device": 0}, TypeError, "device must be a text or a path, not 0"),
    ],
)
def test_an_option_of_another_type_is_an_error_before_anything_runs(keywords, error, message):
    with pytest.raises(error, match=re.escape(message)):
        transferbench.plan_run("quickstart", **keywords)


def test_options_take_what_stands_for_their_type():
    Options(jobs=np.int64(2), time_limit_seconds=3, backbones=pd.Index(["x"]), out=Path())
    Options(backbones=None, device=None, plugins=[Path("a.py")], weights=Path("w.pt"))


def test_the_folder_of_data_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("TRANSFERBENCH_DATA", "here")
    assert Options().data_root == "here"
    assert Options(data_root="there").data_root == "there"
    monkeypatch.setenv("TRANSFERBENCH_DATA", "")
    assert Options().data_root is None


def test_progress_is_a_switch_or_a_watcher():
    with pytest.raises(TypeError, match="progress must be True, False or a Watcher, not 'yes'"):
        progress.progress_watcher("yes")


def test_a_suite_is_a_name_a_path_or_an_object_by_position_or_keyword(finished, tmp_path):
    file = suite_file(tmp_path)
    folders = {"out": tmp_path / "run", "store": finished.store.root}
    by_path = transferbench.plan_run(file, **folders)
    assert transferbench.plan_run(suite=str(file), **folders).plan.jobs == by_path.plan.jobs
    with pytest.raises(SuiteError, match="a suite given as an object is changed in Python, not by"):
        transferbench.plan_run(load_suite("quickstart"), changes=["replicates=3"])
    with pytest.raises(TypeError, match=r"suite must be the name of a suite, the path of .* not 3"):
        transferbench.plan_run(3)


@pytest.mark.parametrize("name", ["entries", "overlap"])
def test_a_text_where_packing_takes_a_list_is_a_type_error(name, tmp_path):
    with pytest.raises(TypeError, match=f"{name} is a list: write {name}=\\['a=b'\\]"):
        transferbench.pack(tmp_path, tmp_path, **{name: "a=b"})


# --- a run as an object -------------------------------------------------------------------------


def pickled(run):
    return pickle.loads(pickle.dumps(run))  # noqa: S301  # made here


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_run_is_copied_with_its_plugins(finished, copied):
    run = copied(finished)
    assert repr(run) == repr(finished)
    assert run.registry.diagnostics.keys() == finished.registry.diagnostics.keys()
    pd.testing.assert_frame_equal(run.table(), finished.table())


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("run.json", "[]", "/run.json is damaged: Input should be an object"),
        ("run.json", "{}", "/run.json is damaged: schema_version: Field required"),
        ("run.json", '{"jobs": [{"id": "zz"}]}', "/run.json is damaged: schema_version: Field req"),
        ("claims.json", "", "/claims.json is damaged: Invalid JSON: EOF while parsing a value"),
        ("claims.json", '{"a": 3}', "/claims.json is damaged: a: Input should be a valid array"),
        ("records.jsonl", "no record\n", "/records.jsonl:1 is not a record: Invalid JSON"),
        ("records.jsonl", None, " has no records.jsonl: the run did not come to its end"),
    ],
)
def test_a_notebook_shows_that_a_folder_is_broken(finished, tmp_path, name, content, expected):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    run = transferbench.Run(folder)
    text = repr(run) + run._repr_html_()
    assert str(folder) in text
    assert f"StoreError: {folder}{expected}" in text
