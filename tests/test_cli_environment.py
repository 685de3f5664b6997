"""What the system refuses or lacks is a sentence and exit code 2, wherever it comes up."""

import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from command_line import SMALL, cli, command, environment, files_no_larger_than, mistake, suite_file
from handmade_run import publish

from transferbench import Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

LONG = "x" * 300
TOO_LONG = f"cannot use {'x' * 200}...: File name too long; check the path, its permissions, and"
NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert cli("run", suite_file(folder.parent, SMALL), "--out", folder, "--jobs", 1).code == 0
    return folder


@contextmanager
def limited(which, value):
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def in_a_shell(script, *arguments):
    """What a command says that begins after a line of shell script."""
    done = subprocess.run(
        ["/bin/bash", "-c", f'{script}; exec "$@"', "bash", *command(*arguments)],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


# --- names of files -----------------------------------------------------------------------------


def test_a_name_that_is_too_long_is_an_error(tmp_path):
    assert TOO_LONG in mistake("list", "--plugin", LONG)
    suite = suite_file(tmp_path, SMALL)
    message = mistake("plan", suite, "--out", tmp_path / "run", "--store", tmp_path / LONG)
    assert "File name too long" in message


def test_a_run_may_be_in_a_folder_whose_name_is_no_text(finished, tmp_path):
    folder = tmp_path / NOT_UTF8 / "run"
    shutil.copytree(finished.parent, folder.parent)
    shutil.rmtree(folder / "submissions")
    for verb in (("report", folder), ("submission", "pack", folder, "--out", folder / "packed")):
        said = cli(*verb)
        assert (said.code, said.err) == (0, "")
    for name in ("table.csv", "table.json", "table.parquet"):
        assert cli("export", folder, folder / name).code == 0
    publish(Run(folder).suite, folder / "packed")
    said = cli("leaderboard", "build", folder / "packed", "--out", tmp_path / "boards")
    assert (said.code, said.err) == (0, "")
    assert "caf\\udce9" in (tmp_path / "boards" / "tiny@1" / "index.html").read_text()


# --- what the system lacks ----------------------------------------------------------------------


def test_a_working_directory_that_is_gone_is_an_error(tmp_path):
    code, err = in_a_shell(f"mkdir {tmp_path}/x; cd {tmp_path}/x; rmdir {tmp_path}/x", "suites")
    assert code == 2
    assert err == (
        "error: the working directory cannot be used: No such file or directory; change to one "
        "that exists\n"
    )


def test_too_many_open_files_are_an_error():
    free = os.dup(0)
    os.close(free)
    with limited(resource.RLIMIT_NOFILE, free):
        said = cli("suites")
    assert said.code == 2
    assert said.err.startswith("error: cannot use /")
    assert (
        f"Too many open files; a program may have {free} files open here; allow more (ulimit -n "
        "1024)"
    ) in said.err


def test_a_limit_of_open_files_is_told_with_how_to_raise_it(tmp_path):
    suite = suite_file(tmp_path, SMALL)
    code, err = in_a_shell("ulimit -n 16", "plan", suite, "--out", tmp_path / "run")
    assert code == 2
    assert "Too many open files; a program may have 16 files open here; allow more (ulimit" in err
    assert "make room" not in err


def test_a_limit_that_names_no_file_is_an_error(monkeypatch):
    def exhausted():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transferbench.suite.loading.bundled_suites", exhausted)
    assert mistake("suites") == (
        "error: the operating system reported: No space left on device; run the command again when "
        "it is remedied\n"
    )
    monkeypatch.setattr("transferbench.suite.loading.bundled_suites", lambda: os.close(-1))
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli("suites")


def test_a_library_that_does_not_fit_into_memory_is_an_error():
    code, err = in_a_shell("ulimit -v 1500000", "doctor")
    assert code == 2
    assert "failed to map segment from shared object: is memory limited (ulimit -v), or" in err
    assert "Traceback" not in err


# --- writes that fail half-way ------------------------------------------------------------------


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("verb", ["report", "export", "pack", "build", "new file", "new package"])
def test_a_write_that_fails_half_way_leaves_every_file_as_it_was(finished, tmp_path, verb):
    folder = tmp_path / "run"
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    commands = {
        "report": ("report", folder),
        "export": ("export", folder, tmp_path / "table.csv"),
        "pack": ("submission", "pack", folder, "--out", tmp_path / "packed"),
        "build": ("leaderboard", "build", folder / "submissions", "--out", tmp_path / "boards"),
        "new file": ("plugin", "new", "my-net", "--kind", "backbone", "--out", tmp_path / "new"),
        "new package": ("plugin", "new", "my-net", "--kind", "backbone", "--package", "--out",
                        tmp_path / "new"),
    }  # fmt: skip
    if "new" not in verb:
        assert cli(*commands[verb]).code == 0
    (tmp_path / "packed").exists() and shutil.rmtree(tmp_path / "packed")
    before = content(tmp_path)
    with files_no_larger_than(500):
        assert "File too large" in mistake(*commands[verb])
    assert content(tmp_path) == before
    assert cli(*commands[verb]).code == 0


# --- terminals and encodings --------------------------------------------------------------------

SURROUNDINGS = [
    {"COLUMNS": "abc", "TERM": "dumb", "NO_COLOR": "1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "20"},
    {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "POSIX"},
]
MORE_SURROUNDINGS = [
    {"COLUMNS": "400", "FORCE_COLOR": "1", "TERM": "xterm-256color"},
    {"COLUMNS": "-3", "TERM": "", "LC_ALL": "C.UTF-8"},
    {"PYTHONIOENCODING": "cp1252", "LC_ALL": "xx_YY.bogus"},
]


def printed(arguments, more):
    """The bytes on stdout of a command that ends well in an environment of its own."""
    done = subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done
    return done.stdout


@pytest.mark.parametrize("more", SURROUNDINGS)
def test_the_surroundings_of_a_process_change_no_value_that_it_prints(finished, more):
    own = json.loads(cli("status", finished, "--json").out)
    assert json.loads(printed(("status", finished, "--json"), more)) == own


@pytest.mark.slow
@pytest.mark.parametrize("more", [*SURROUNDINGS, *MORE_SURROUNDINGS])
def test_no_command_minds_the_surroundings_of_its_process(finished, more):
    suite = finished.parent / "suite.yaml"
    for arguments in (("run", suite, "--out", finished), ("plan", suite, "--out", finished)):
        own = json.loads(cli(*arguments, "--json").out)
        other = json.loads(printed((*arguments, "--json"), more))
        for values in (own, other):
            values.pop("memory_bytes", None)  # measured in each process
        assert other == own
    for arguments in (("status", finished), ("report", finished)):
        assert printed(arguments, more)


def test_a_backend_of_matplotlib_that_is_not_there_does_not_matter():
    code = (
        "import sys; from transferbench.cli import main; sys.argv[1:] = ['list', 'suites']\n"
        "try: main()\n"
        "except SystemExit: import matplotlib"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(MPLBACKEND="nope"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
