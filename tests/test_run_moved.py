"""A run's folder that was moved: with its store or without, the commands go on, or say why not."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file

from transferbench.api import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert cli("run", suite_file(folder, SMALL), "--out", folder / "run", "--jobs", 1).code == 0
    return folder


@pytest.fixture
def home(finished, tmp_path):
    """A folder with a suite, its run and its store, as the command left them there."""
    shutil.copytree(finished, tmp_path / "home")
    path = tmp_path / "home" / "run" / "run.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"store_absolute": str(tmp_path / "home" / "store")}))
    return tmp_path / "home"


def assert_works(run: Path, *store, suite: Path):
    said = cli("status", run, *store)
    assert said.code == 0
    assert "missing" not in said.out
    for command in (("report", run, *store), ("compare", run, run),
                    ("submission", "pack", run, "--out", run / "packed", *store)):  # fmt: skip
        said = cli(*command)
        assert (said.code, said.err) == (0, "")
    said = cli("run", suite, "--out", run, "--jobs", 1, *store)
    assert said.code == 0
    assert "5 jobs: 5 already done, 0 to run" in said.err


def test_a_folder_that_moves_with_its_store_works(home, tmp_path):
    away = tmp_path / "with spaces, \u00e9 and [brackets]"
    home.rename(away)
    assert_works(away / "run", suite=away / "suite.yaml")
    assert Run(away / "run").described["store"] == "../store"


def test_a_folder_that_moves_without_its_store_works(home, tmp_path):
    (home / "run").rename(tmp_path / "run")
    assert_works(tmp_path / "run", suite=home / "suite.yaml")
    assert not (tmp_path / "store").exists()


def test_a_folder_beside_another_store_finds_its_own(home, tmp_path):
    (tmp_path / "other" / "store" / "jobs").mkdir(parents=True)
    (home / "run").rename(tmp_path / "other" / "run")
    assert_works(tmp_path / "other" / "run", suite=home / "suite.yaml")


def test_a_store_inside_the_folder_is_seen(home, tmp_path):
    (home / "store").rename(home / "run" / "store")
    (home / "run").rename(tmp_path / "run")
    assert_works(tmp_path / "run", suite=home / "suite.yaml")


def test_a_folder_behind_a_link_works(home, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "run").symlink_to(home / "run")
    assert_works(tmp_path / "links" / "run", suite=home / "suite.yaml")
    assert_works(home / "run", suite=home / "suite.yaml")
    assert not (tmp_path / "links" / "store").exists()


def test_a_run_into_a_link_keeps_the_way_to_its_store(finished, tmp_path):
    real = tmp_path / "deep" / "er"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    shutil.copytree(finished / "store", tmp_path / "store")
    assert cli("run", finished / "suite.yaml", "--out", tmp_path / "link", "--jobs", 1).code == 0
    described = Run(tmp_path / "link").described
    assert described["store"] == os.path.relpath(tmp_path / "store", real)
    assert "missing" not in cli("status", real).out


def test_a_store_that_is_named_is_the_only_one(home, tmp_path):
    (home / "run").rename(tmp_path / "run")
    (home / "store").rename(tmp_path / "elsewhere")
    assert_works(tmp_path / "run", "--store", tmp_path / "elsewhere", suite=home / "suite.yaml")
    message = mistake("status", tmp_path / "run", "--store", tmp_path)
    assert f"the store of the run in {tmp_path / 'run'} is not in {tmp_path};" in message


@pytest.mark.parametrize("leftover", [False, True], ids=["removed", "emptied"])
def test_a_store_that_is_gone_is_an_error_that_says_where_it_was_looked_for(home, leftover):
    run, store = home / "run", home / "store"
    shutil.rmtree(store)
    if leftover:
        (store / "jobs").mkdir(parents=True)
    expected = (
        f"error: the store of the run in {run} is not in {store}, {run / 'store'}; name its "
        f"folder, which contains one called jobs, with --store, or run the suite again with --out "
        f"{run}\n"
    )
    for command in (("status", run), ("report", run), ("submission", "pack", run)):
        assert mistake(*command) == expected
    assert cli("compare", run, run).code == 0
    assert "cannot be read: StoreError: the store of the run" in repr(Run(run))
    said = cli("run", home / "suite.yaml", "--out", run, "--jobs", 1)
    assert said.code == 0
    assert f"note: {expected.strip()[7:]}: now everything is computed again in {store}" in said.err
    assert len(artefacts(store)) == 5


def test_a_run_that_finished_nothing_shows_what_is_missing(home):
    run = home / "run"
    described = json.loads((run / "run.json").read_text())
    for job in described["jobs"]:
        job["status"] = "missing"
    (run / "run.json").write_text(json.dumps(described))
    shutil.rmtree(home / "store" / "jobs")
    (home / "store" / "jobs").mkdir()
    said = cli("status", run)
    assert said.code == 0
    assert "missing" in said.out


def test_a_folder_of_an_earlier_version_works(home):
    described = json.loads((home / "run" / "run.json").read_text())
    del described["store_absolute"]
    (home / "run" / "run.json").write_text(json.dumps(described))
    assert_works(home / "run", suite=home / "suite.yaml")


def test_a_store_whose_path_is_no_text_is_refused(finished, tmp_path):
    store = tmp_path / os.fsdecode(b"caf\xe9")
    message = mistake("plan", finished / "suite.yaml", "--out", tmp_path / "run", "--store", store)
    assert "the path is not UTF-8, and safetensors refuses it; name another folder with" in message
    assert list(tmp_path.iterdir()) == []
