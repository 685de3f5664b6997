"""A store that this user may only read: all of it is used, and nothing in it is written."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file
from confined import as_nobody, confined, with_read_only

from transferbench.store.documents import MANIFEST


@pytest.fixture(scope="module")
def shared():
    """A folder that everybody may reach, with a store and a suite that has run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        umask = os.umask(0o022)
        run = ("run", suite_file(folder, SMALL), "--out", folder / "first", "--jobs", 1)
        assert cli(*run).code == 0
        os.umask(umask)
        yield folder


@pytest.fixture(params=["another user", "read-only file system"])
def reader(request, shared):
    """Calls functions that may read the store and write beside it, into a folder of their own."""
    nobody = request.param == "another user"
    confine = (as_nobody,) if nobody else (with_read_only, shared / "store")
    if nobody and os.geteuid() != 0:
        pytest.skip("every file is this user's")
    with confined(*confine) as there:
        yield there
    shutil.rmtree(shared / "own", ignore_errors=True)


def state(folder):
    """Every file below ``folder`` with what a write changes."""
    paths = sorted(folder.rglob("*"))
    return [(path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths]


def test_others_may_read_what_is_in_a_store(shared):
    (files,) = {path.stat().st_mode & 0o777 for job in artefacts(shared / "store")
                for path in job.iterdir()}  # fmt: skip
    assert files == 0o644


def test_a_finished_store_serves_those_who_may_only_read_it(shared, reader):
    suite, store, out = shared / "suite.yaml", shared / "store", shared / "own"
    before = state(store)
    said = reader(cli, "run", suite, "--out", out, "--store", store, "--jobs", 1)
    assert said.code == 0, said.err
    assert "5 jobs: 5 already done, 0 to run" in said.err
    assert (out / "records.jsonl").read_bytes() == (shared / "first/records.jsonl").read_bytes()
    for command in (
        ("plan", suite, "--out", out, "--store", store), ("status", out), ("report", out),
        ("verify", store, "--run", out), ("submission", "pack", out, "--out", out / "packed"),
        ("leaderboard", "build", out / "packed", "--out", out / "boards"),
    ):  # fmt: skip
        said = reader(cli, *command)
        assert said.code == 0, (command, said)
    assert state(store) == before


def test_what_would_have_to_be_written_is_told_before_the_work(shared, reader):
    longer = SMALL["recipes"]["short"] | {"epochs": 3}
    suite = suite_file(shared / "longer", SMALL, recipes={"short": longer})
    before = state(shared / "store")
    message = reader(
        mistake, "run", suite, "--out", shared / "own", "--store", shared / "store", "--jobs", 1
    )
    assert f"5 of 5 jobs are to be computed and kept: cannot write {shared / 'store'}: " in message
    assert "; choose another folder with --out or let this user write there; " in message
    assert ": Permission denied; " in message or ": Read-only file system; " in message
    assert state(shared / "store") == before


def test_a_file_that_may_not_be_read_is_named_and_not_taken_for_damaged(shared):
    document = artefacts(shared / "store")[0] / MANIFEST
    document.chmod(0)
    before = state(shared / "store")
    try:
        with confined(as_nobody) as there:
            message = there(mistake, "run", shared / "suite.yaml", "--out", shared / "other",
                            "--store", shared / "store", "--jobs", 1)  # fmt: skip
    finally:
        document.chmod(0o644)
    assert f"cannot read {document}: Permission denied; let this user read the whole" in message
    assert state(shared / "store") == before
