"""What this user may only read is used and never written; what it may not even read is named."""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
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
    assert f"5 of 5 jobs are to be computed and kept: cannot write {shared / 'store'}/" in message
    assert "; choose another folder with --out or let this user write there; " in message
    assert ": Permission denied; " in message or ": Read-only file system; " in message
    assert state(shared / "store") == before


# --- what may not be read -----------------------------------------------------------------------


@contextmanager
def unreadable(path):
    """Calls functions for which ``path`` is there, and may not be read."""
    mode = path.stat().st_mode & 0o777
    path.chmod(0)
    try:
        with confined(as_nobody) as there:
            yield there
    finally:
        path.chmod(mode)


def test_a_file_of_the_store_that_may_not_be_read_is_not_taken_for_damaged(shared):
    document = artefacts(shared / "store")[0] / MANIFEST
    suite, store = shared / "suite.yaml", shared / "store"
    before = state(store)
    with unreadable(document) as there:
        message = there(
            mistake, "run", suite, "--out", shared / "other", "--store", store, "--jobs", 1
        )
    assert f"cannot read {document}: Permission denied; let this user read the whole" in message
    assert state(store) == before


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("suite.yaml", ("validate", "suite.yaml")),
        ("first/run.json", ("status", "first")),
        ("first/run.json", ("run", "suite.yaml", "--out", "first")),
        ("first/records.jsonl", ("export", "first", "table.csv")),
        ("first/claims.json", ("report", "first")),
        ("first/environment.json", ("report", "first")),
        ("store/jobs", ("verify", "store")),
        ("store/datasets", ("verify", "store")),
        ("first/submissions/tiny@1", ("leaderboard", "build", "first/submissions")),
        ("first/submissions/tiny@1/fixup-resnet8", ("leaderboard", "build", "first/submissions")),
    ],
)
def test_what_may_not_be_read_is_named(shared, monkeypatch, name, command):
    monkeypatch.chdir(shared)
    with unreadable(shared / name) as there:
        message = there(mistake, *command)
    assert re.search(rf"cannot (read|use|write) (the suite )?\S*{re.escape(Path(name).name)}\b.*: "
                     "Permission denied", message)  # fmt: skip


def test_weights_that_may_not_be_read_are_not_said_to_be_absent(shared):
    folder = shared / "weights"
    folder.mkdir()
    (folder / "best.pth").write_bytes(b"x")
    for path in (folder, folder / "best.pth"):
        with unreadable(path) as there:
            message = there(mistake, "plan", shared / "suite.yaml", "--out", shared / "other",
                            "--weights", folder / "best.pth")  # fmt: skip
        assert f"cannot read {folder / 'best.pth'}: Permission denied; make it" in message


def test_a_submission_that_cannot_be_read_does_not_vanish_from_a_board(shared):
    (head,) = (shared / "first" / "submissions").glob("*/*/*/submission.json")
    build = ("leaderboard", "build", shared / "first/submissions", "--out", shared / "boards")
    (shared / "boards").mkdir()
    (shared / "boards").chmod(0o777)
    with unreadable(head.parent) as there:
        message = there(mistake, *build)
    assert f"cannot read {head.parent}, which may hold a submission: Permission denied" in message
    for file in (head, head.with_name("predictions.parquet")):
        with unreadable(file) as there:
            assert there(cli, *build).code == 0
        table = next((shared / "boards").glob("tiny@1/*.md")).read_text()
        assert re.search(r"\| refused +\| .*(Permission denied|submission.json)", table)
