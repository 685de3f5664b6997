"""A run and its tables go where nothing of others is replaced; what has no place is refused."""

import pytest
from command_line import SMALL, cli, mistake, suite_file

COMMANDS = ("plan", "run", "prepare")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run in runs/run, with its store in runs/store."""
    folder = tmp_path_factory.mktemp("destination")
    said = cli("run", suite_file(folder, SMALL), "--out", folder / "runs" / "run", "--jobs", 1)
    assert said.code == 0, said
    return folder / "runs" / "run"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--out", "--store"])
@pytest.mark.parametrize("below", ["", "a/run"])
def test_a_file_is_no_folder(tmp_path, command, option, below):
    file = tmp_path / "mine"
    file.write_text("text")
    suite, before = suite_file(tmp_path, SMALL), sorted(tmp_path.iterdir())
    paths = {"--out": tmp_path / "run", option: file / below}
    message = mistake(command, suite, *(word for pair in paths.items() for word in pair))
    assert message == f"error: {file} is not a folder, and {option} must be one; name another\n"
    assert file.read_text() == "text"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "name", ["report.html", "records.jsonl", "environment.json", "pictures.json"]
)
def test_a_folder_with_files_of_others_is_not_a_runs(tmp_path, command, name):
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("my own")
    (out / "notes.txt").write_text("notes")
    message = mistake(command, suite_file(tmp_path, SMALL), "--out", out)
    assert message == (
        f"error: {out} is not a run's folder, since it has no run.json, and a run would replace "
        f"its {name}; move them away, or choose another --out\n"
    )
    assert {path.name: text for path, text in contents(tmp_path).items() if path.parent == out} == {
        name: b"my own", "notes.txt": b"notes",
    }  # fmt: skip


@pytest.mark.parametrize("part", ["", "jobs", "jobs/run", "datasets/run"])
def test_a_store_holds_no_run(finished, tmp_path, part):
    store = finished.parent / "store"
    before = contents(store)
    message = mistake("run", suite_file(tmp_path, SMALL), "--out", store / part)
    assert f"is part of the store {store}; name another --out" in message
    assert contents(store) == before


def test_a_folder_beside_those_of_a_store_may_hold_a_run(finished, tmp_path):
    store = finished.parent / "store"
    suite = suite_file(tmp_path, SMALL)
    assert cli("plan", suite, "--out", store / "mine", "--store", store).code == 0


@pytest.mark.parametrize("name", ["run.json", "claims.json", "environment.json", "entries/a.json"])
def test_a_table_replaces_no_file_of_a_run(finished, name):
    before = contents(finished)
    message = mistake("export", finished, finished / name)
    assert message == f"error: {finished / name} is a file of the run itself; choose another name\n"
    assert contents(finished) == before


def test_a_table_is_not_written_into_a_store(finished):
    path = finished.parent / "store" / "jobs" / "table.csv"
    assert "is part of the store" in mistake("export", finished, path)
    assert not path.exists()


def test_a_table_may_lie_in_the_folder_of_a_run(finished):
    assert cli("export", finished, finished / "table.csv").code == 0
