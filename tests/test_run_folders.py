"""Run folders: damage is named and healed by a rerun; an edited suite sets the former run aside."""

import ctypes
import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file

import transferbench
from transferbench.engine import jobs
from transferbench.errors import StoreError
from transferbench.runner.earlier import earlier_run, move_to_earlier

ARGUMENTS = ("--jobs", 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a small suite, with its report."""
    folder = tmp_path_factory.mktemp("run")
    path = suite_file(folder, SMALL)
    said = cli("run", path, "--out", folder / "runs" / "run", *ARGUMENTS)
    assert said.code == 0, said
    return folder / "runs" / "run"


@pytest.fixture
def damaged(finished, tmp_path):
    """A copy of the run beside its store, as if it had been run there."""
    shutil.copytree(finished.parent, tmp_path / "runs")
    path = tmp_path / "runs" / "run" / "run.json"
    path.write_text(path.read_text().replace(str(finished.parent), str(path.parent.parent)))
    return path.parent


def readers(folder, tmp_path):
    """Every command that reads a run."""
    return {
        "status": ("status", folder),
        "report": ("report", folder),
        "compare": ("compare", folder, folder),
        "export": ("export", folder, tmp_path / "x.csv"),
        "pack": ("submission", "pack", folder, "--out", tmp_path / "packed"),
    }


def edited(change):
    def edit(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value)

    return edit


def replaced(field, value):
    """The first value of a field of the records replaced."""
    return lambda content: re.sub(f'"{field}":[^,}}]+', f'"{field}":{value}', content, count=1)


ALL = "status report compare export pack"
LINE = ".jsonl:1 is not a record"


@pytest.mark.parametrize(
    ("name", "edit", "commands", "expected"),
    [
        ("run.json", lambda _: "{}", ALL, "suite_id: Field required"),
        ("run.json", lambda _: "[]", ALL, "should be an object"),
        ("run.json", lambda _: "", ALL, "it is not JSON (EOF"),
        ("run.json", lambda text: text[:99], "status", "it is not JSON"),
        ("run.json", lambda _: "[" * 9999, "status", "it is not JSON (recursion limit"),
        ("run.json", lambda _: '"\\ud800"', "status", "it is not JSON"),
        ("run.json", edited(lambda run: run.update(schema_version=2)), ALL,
         "is of format 2, and this transferbench reads format 1; update transferbench"),
        ("run.json", edited(lambda run: run.update(jobs=3)), "report", "valid array"),
        ("run.json", edited(lambda run: run["jobs"][1].update(id="zz")), "status",
         "jobs.1.id: String should match pattern"),
        ("run.json", edited(lambda run: run["jobs"][1].update(target="far")), "report",
         "jobs.1.target is 'far', and the run has none of that name"),
        ("run.json", edited(lambda run: run["jobs"][1].update(replicate=2**70)), "status",
         "jobs.1.replicate: "),
        ("run.json", edited(lambda run: run["suite"].update(replicates="2")), "report",
         "suite.replicates: Input should be a valid integer"),
        ("run.json", edited(lambda run: run["suite"].update(version="2.0")), "report",
         "suite_id is 'tiny@1.0', and the suite is 'tiny@2.0'"),
        ("run.json", edited(lambda run: run.update(store=3)), "status", "store: Input should be a"),
        ("claims.json", lambda _: "[]", "report pack", "should be an object"),
        ("claims.json", lambda _: '{"a": []}', "report", "a is neither an entry nor a claim"),
        ("claims.json", lambda text: text[:50], "pack", "is damaged: Invalid JSON: EOF"),
        ("claims.json", replaced("n", '"2"'), "report", "should be a valid integer"),
        ("environment.json", lambda _: "[]", "report pack", "should be an object"),
        ("environment.json", lambda _: '{"python": 3}', "report", "python: Input should be"),
        ("records.jsonl", lambda text: "x" + text, "report compare export pack", LINE),
        ("records.jsonl", lambda text: text[:30], "report", LINE),
        ("records.jsonl", lambda text: text + text, "compare", "repeats a measurement"),
        ("records.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:-1]), ALL,
         "records.jsonl is damaged: of 1 of 4 finished jobs it has not all lines; run the suite"),
        ("records.jsonl", lambda _: "", ALL, "of 4 of 4 finished jobs it has not all lines"),
        ("records.jsonl", replaced("job", f'"{"0" * 64}"'), "report pack",
         "line 1 is of a job that run.json does not list"),
        ("records.jsonl", replaced("initialization", '"RX-T"'), "export",
         "line 1 is of a job that run.json does not list"),
        ("records.jsonl", replaced("value", '"0.5"'), "report", LINE),
        ("records.jsonl", replaced("value", "NaN"), "report", LINE),
        ("records.jsonl", replaced("coordinates", '{"epoch":NaN}'), "compare", LINE),
        ("records.jsonl", replaced("n", "9" * 300), "report", LINE),
        ("records.jsonl", replaced("schema_version", "2"), "export", LINE),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_the_way_on(damaged, tmp_path, name, edit, commands, expected):
    path = damaged / name
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    for command in commands.split():
        message = mistake(*readers(damaged, tmp_path)[command])
        assert expected in message
        assert str(path) in message
        assert "run the suite " in message


def test_a_rerun_that_was_killed_leaves_the_number_of_records(damaged, tmp_path, monkeypatch):
    """Only its end writes the records again, and until then those of the earlier run count."""
    before = json.loads((damaged / "run.json").read_text())["jobs"]
    monkeypatch.setattr("transferbench.runner.run.execute", _interrupt)
    path = suite_file(tmp_path, SMALL)
    shutil.rmtree(damaged.parent / "store")
    assert cli("run", path, "--out", damaged, *ARGUMENTS).code == 130
    after = json.loads((damaged / "run.json").read_text())["jobs"]
    assert [job["status"] for job in after] == ["missing"] * len(before)
    assert [job["records"] for job in after] == [job["records"] for job in before]
    (damaged / "records.jsonl").write_text("")
    assert "of 4 of 4 finished jobs" in mistake("status", damaged)


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_run_of_an_older_version_has_no_number_of_records(damaged, tmp_path):
    path = damaged / "run.json"
    described = json.loads(path.read_text())
    for job in described["jobs"]:
        del job["records"]
    path.write_text(json.dumps(described))
    lines = records_of(damaged).splitlines(keepends=True)
    (damaged / "records.jsonl").write_text("".join(lines[:-1]))
    for command in readers(damaged, tmp_path).values():
        assert "not all lines" not in cli(*command).err
    assert cli("export", damaged, tmp_path / "x.csv").out.startswith(f"{len(lines) - 1} rows")


@pytest.mark.parametrize("name", ["run.json", "claims.json", "environment.json", "records.jsonl"])
def test_what_is_no_file_is_named(damaged, tmp_path, name):
    path = damaged / name
    for obstacle in (path.mkdir, lambda: path.symlink_to(path.name), lambda: os.mkfifo(path)):
        path.unlink()
        obstacle()
        message = mistake(*readers(damaged, tmp_path)["report"])
        assert f"{path} is damaged: it is not a regular file; move it away; run the" in message
        if path.is_dir():
            path.rmdir()
            path.touch()


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", b"{}"), ("claims.json", b"[]"), ("environment.json", b""),
     ("records.jsonl", b"\xff"), ("records.jsonl", b""), ("records.jsonl", None),
     ("claims.json", "loop")],
)  # fmt: skip
def test_a_rerun_heals_a_damaged_folder_and_computes_nothing(damaged, tmp_path, name, content):
    path, store = damaged / name, damaged.parent / "store" / "jobs"
    before, jobs = path.read_bytes(), {job: job.stat().st_mtime_ns for job in store.glob("*/*")}
    path.unlink()
    if content == "loop":
        path.symlink_to(path.name)
    elif content is not None:
        path.write_bytes(content)
    said = cli("run", suite_file(tmp_path, SMALL), "--out", damaged, *ARGUMENTS)
    assert said.code == 0, said
    assert "no board" not in said.out
    assert path.read_bytes() == before
    assert {job: job.stat().st_mtime_ns for job in store.glob("*/*")} == jobs
    for command in readers(damaged, tmp_path).values():
        assert cli(*command).code == 0


@pytest.mark.parametrize("name", ["run.json", "claims.json", "records.jsonl", "report.html"])
@pytest.mark.parametrize("create", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_an_obstacle_before_anything_is_trained(tmp_path, name, create):
    out = tmp_path / "runs" / "run"
    out.mkdir(parents=True)
    create(out / name)
    message = mistake("run", suite_file(tmp_path, SMALL), "--out", out, *ARGUMENTS)
    assert f"cannot write {out / name}: it is no " in message
    assert not (out / name).is_file()
    assert artefacts(tmp_path / "runs" / "store") == []


def test_a_name_that_no_folder_can_have(tmp_path):
    message = mistake("status", tmp_path / ("x" * 5000))
    assert "run.json is damaged: it cannot be read (File name too long)" in message


def test_a_damaged_run_raises_in_python(damaged):
    (damaged / "run.json").write_text("{}")
    run = transferbench.Run(damaged)
    for read in (run.table, lambda: run.claims, run.report, lambda: run.statuses):
        with pytest.raises(StoreError, match=r"run\.json is damaged: .* with --out"):
            read()
    with pytest.raises(StoreError, match=r"is not a run's folder: it has no run\.json"):
        transferbench.Run(damaged.parent)


def test_a_process_that_code_in_c_ended_is_told_with_its_job(tmp_path):
    path, out = suite_file(tmp_path, SMALL), tmp_path / "run"
    child = os.fork()
    if child == 0:
        try:
            jobs.Engine._train = lambda *_: ctypes.CDLL(None)._exit(0)
            cli("run", path, "--out", out, *ARGUMENTS)
        finally:
            os._exit(9)
    assert os.waitpid(child, 0)[1] == 0
    ended = (
        rf": process {child} on \S+, since .*, ended while it computed this: it was killed, or code"
    )
    for start, command in (
        ("missing: ", ("status", out)),
        ("note: ", ("plan", path, "--out", out)),
    ):
        said = cli(*command)
        assert re.search(rf"^{start}.*{ended}", said.out + said.err, re.MULTILINE), said
    assert cli("run", path, "--out", out, *ARGUMENTS).code == 0
    assert "ended while" not in cli("status", out).out


# --- a suite that is edited -------------------------------------------------------------------


def records_of(folder):
    return (folder / "records.jsonl").read_text(encoding="utf-8")


def test_an_edited_suite_takes_over_the_folder_and_the_former_run_is_kept(damaged, tmp_path):
    former = records_of(damaged)
    boards = sorted((damaged / "submissions").glob("*/*/*"))
    path = suite_file(tmp_path, SMALL, summary="The same, and block-4.", replicates=2)
    planned = cli("plan", path, "--out", damaged)
    assert planned.code == 0, planned
    assert "holds a run of another suite, tiny@1.0 with digest" in planned.err
    assert records_of(damaged) == former

    said = cli("run", path, "--out", damaged, *ARGUMENTS)
    assert said.code == 0, said
    (aside,) = (damaged / "earlier").iterdir()
    assert f"its files move to {aside} when this run begins" in said.err
    assert "no board" not in said.out
    assert set(former.splitlines()) < set(records_of(damaged).splitlines())
    assert len(transferbench.Run(damaged).job_rows) == 9
    assert not set(boards) & set((damaged / "submissions").glob("*/*/*"))

    assert records_of(aside) == former
    former_run = transferbench.Run(aside)
    assert [row["status"] for row in former_run.job_rows] == ["ok"] * len(former_run.job_rows)
    assert cli("compare", aside, damaged).code == 0
    assert cli("report", aside).code == 0

    # Back to the former suite: all is in the store, and the second is kept in its turn.
    jobs = artefacts(damaged.parent / "store")
    said = cli("run", suite_file(tmp_path, SMALL), "--out", damaged, *ARGUMENTS)
    assert said.code == 0, said
    assert records_of(damaged) == former
    assert artefacts(damaged.parent / "store") == jobs
    assert len(list((damaged / "earlier").iterdir())) == 2


def test_changes_by_options_supersede_each_other_too(damaged, tmp_path):
    path = suite_file(tmp_path, SMALL)
    for change in ("targets.handwriting.test_limit=50", "targets.handwriting.test_limit=40"):
        said = cli("run", path, "--out", damaged, "--set", change, *ARGUMENTS)
        assert said.code == 0, said
        assert "no board" not in said.out
        assert "two suites call themselves" not in said.out + said.err
    assert len(list((damaged / "earlier").iterdir())) == 2


def test_a_folder_that_is_not_a_runs_is_left_alone(tmp_path):
    out = tmp_path / "out"
    (out / "submissions").mkdir(parents=True)
    (out / "submissions" / "mine.txt").write_text("mine")
    assert cli("plan", suite_file(tmp_path, SMALL), "--out", out).code == 0
    said = cli("run", suite_file(tmp_path, SMALL), "--out", out, *ARGUMENTS)
    assert said.code == 0, said
    assert (out / "submissions" / "mine.txt").read_text() == "mine"


def test_a_former_run_that_cannot_be_read_is_kept_apart(damaged, tmp_path):
    (damaged / "run.json").write_text("{}")
    path = suite_file(tmp_path, SMALL, replicates=2)
    said = cli("run", path, "--out", damaged, *ARGUMENTS)
    assert said.code == 0, said
    assert "holds a run whose run.json cannot be read; its files move to" in said.err
    assert "no board" not in said.out
    (aside,) = (damaged / "earlier").iterdir()
    assert aside.name.startswith("unreadable-")
    assert (aside / "run.json").read_text() == "{}"


def files_in(folder):
    """Name -> content of the files of a former run, wherever below ``folder`` they lie."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert len({path.name for path in paths} - {"run.json"}) == len(
        [path for path in paths if path.name != "run.json"]
    )
    return {path.name: path.read_text() for path in paths}


@pytest.mark.parametrize("content", ["{}", "described"])
@pytest.mark.parametrize("moment", range(12))
def test_setting_aside_may_stop_at_any_moment(tmp_path, monkeypatch, content, moment):
    described = {
        "suite_id": "s@1.0", "suite_digest": "a" * 64, "store": "../store", "asked": [],
        "entries": [],
    }  # fmt: skip
    results = {
        "records.jsonl": "r",
        "claims.json": "c",
        "environment.json": "e",
        "report.html": "h",
    }
    text = json.dumps(described) if content == "described" else content
    for name, value in {**results, "run.json": text}.items():
        (tmp_path / name).write_text(value)
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "board.md").write_text("b")
    run, calls = earlier_run(tmp_path), []
    old = run.aside if content == "described" else None
    if old:  # of the same suite, which is replaced
        old.mkdir(parents=True)
        (old / "run.json").write_text("old")
        (old / "report.html").write_text("old")
        (tmp_path / "report.html").unlink()
        results.pop("report.html")

    def stop(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) == moment:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "write_text"):
            patch.setattr(Path, name, stop(getattr(Path, name)))
        try:
            move_to_earlier(run)
        except StoreError as error:
            assert "No space left on device" in str(error)  # noqa: PT017  # at some moments
    again = earlier_run(tmp_path)
    if again and again.has_results:
        move_to_earlier(again)
    files = files_in(run.aside)
    rewritten = json.loads(files.pop("run.json"))
    assert files == {**results, "board.md": "b"}
    assert (
        rewritten.items() >= (json.loads(text) and described | {"store": "../../../store"}).items()
    )
