"""Standard streams that cannot take the output: the work ends all the same, and says so."""

import io
import json
import os
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from command_line import SMALL, cli, command, environment, suite_file

from transferbench.cli import main
from transferbench.cli.output import as_json, say
from transferbench.streams import guarded_streams, one_line, printable

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")

LOST = (
    "error: part of the output could not be printed: No space left on device; what was computed "
    "and written to files is kept: give the command again where its output finds room"
)

ODD = """
from transferbench import hookimpl
from transferbench.specs import InitializationSpec


def initialize(params, net, context):
    pass


@hookimpl
def transferbench_initializations():
    yield InitializationSpec(name="odd", version=1, source="s",
                             summary="caf\\u00e9 \\u2212 \\u4e2d \\U0001F600",
                             license="l", initialize=initialize)
"""


@pytest.fixture
def odd(tmp_path):
    """The arguments that show a summary which many encodings lack."""
    path = tmp_path / "odd.py"
    path.write_text(ODD)
    return ("list", "initializations", "--plugin", path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose jobs are done, as arguments that print it."""
    folder = tmp_path_factory.mktemp("finished")
    run = ("run", suite_file(folder, SMALL), "--out", folder / "run", "--jobs", 1)
    assert cli(*run).code == 0
    return run


def code_with(out, *arguments, stderr=None):
    """The exit code of a command that prints to a real file, and what it says on stderr."""
    before, sys.argv = sys.argv, ["transferbench", *map(str, arguments)]
    try:
        with out, stderr or io.StringIO() as err, redirect_stdout(out), redirect_stderr(err):
            with pytest.raises(SystemExit) as leaving:
                main()
            said = err.getvalue() if isinstance(err, io.StringIO) else ""
            return leaving.value.code, said
    finally:
        sys.argv = before


def written(path, encoding, text):
    """The bytes of ``text`` said to a file of this encoding."""
    with path.open("w", encoding=encoding) as stream, redirect_stdout(stream), guarded_streams():
        say(text)
    return path.read_bytes()


# --- encodings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "summary"),
    [
        ("utf-8", "caf\u00e9 \u2212 \u4e2d \U0001f600"),
        ("ascii", r"caf\xe9 - \u4e2d \U0001f600"),
        ("latin-1", "caf\u00e9 - \\u4e2d \\U0001f600"),
        ("cp1252", "caf\u00e9 - \\u4e2d \\U0001f600"),
        ("cp437", "caf\u00e9 - \\u4e2d \\U0001f600"),
        ("gbk", "caf\u00e9 - \u4e2d \\U0001f600"),
        ("utf-16", "caf\u00e9 \u2212 \u4e2d \U0001f600"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(odd, tmp_path, encoding, summary):
    path = tmp_path / "out"
    assert code_with(path.open("w", encoding=encoding), *odd) == (0, "")
    assert summary in path.read_text(encoding=encoding)


def test_json_keeps_its_values_in_every_encoding(odd, tmp_path):
    values = []
    for encoding in ("utf-8", "ascii", "cp1252"):
        path = tmp_path / encoding
        assert code_with(path.open("w", encoding=encoding), *odd, "--json") == (0, "")
        values.append(json.loads(path.read_text(encoding=encoding)))
    assert values[0] == values[1] == values[2]
    assert "caf\u00e9 \u2212 \u4e2d \U0001f600" in {row["summary"] for row in values[0]}


def test_json_may_hold_characters_that_steer_a_terminal(tmp_path):
    with (tmp_path / "out").open("w") as stream, redirect_stdout(stream), guarded_streams():
        as_json("\x1b[31m\x7f\x9b")
    assert json.loads((tmp_path / "out").read_text()) == "\x1b[31m\x7f\x9b"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_a_file_name_that_is_no_text_is_printed_byte_by_byte(tmp_path, encoding):
    name = os.fsdecode(b"run-\xff\xfe")
    assert written(tmp_path / "out", encoding, name) == b"run-\xff\xfe\n"


def test_json_of_a_file_name_that_is_no_text_can_be_read(tmp_path, finished):
    (finished[3].parent / os.fsdecode(b"run-\xff")).symlink_to(finished[3])
    out = tmp_path / "out"
    run = (*finished[:3], finished[3].parent / os.fsdecode(b"run-\xff"), *finished[4:])
    assert code_with(out.open("w", encoding="utf-8"), *run, "--json")[0] == 0
    assert json.loads(out.read_text(encoding="utf-8"))["folder"].endswith("run-\udcff")


def test_characters_that_steer_a_terminal_are_shown(tmp_path):
    assert printable("a\x1b[31mred\x07\x9b\r\n\tb") == "a\\x1b[31mred\\x07\\x9b\\r\n\tb"
    assert written(tmp_path / "out", "utf-8", "\x1b]0;title\x07") == b"\\x1b]0;title\\x07\n"


# --- streams that take nothing ----------------------------------------------------------------


def full():
    """A file on a disk that is full."""
    return Path("/dev/full").open("w")


def unread():
    """The writing end of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("arguments", [("suites",), ("schema",), ("--help",), ("--version",)])
def test_a_full_disk_behind_the_output_is_an_error(arguments):
    code, err = code_with(full(), *arguments)
    assert (code, err.splitlines()) == (2, [LOST])


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_run_with_a_full_disk_behind_its_output_is_finished(finished, more):
    report = finished[3] / "report.html"
    report.unlink()
    code, err = code_with(full(), *finished, *more)
    assert code == 2
    assert err.splitlines()[-1] == LOST
    assert "Traceback" not in err
    assert report.exists()


def test_a_reader_that_leaves_costs_neither_the_work_nor_the_exit_code(finished):
    report = finished[3] / "report.html"
    report.unlink()
    code, err = code_with(unread(), *finished)
    assert code == 0
    assert err.splitlines() == ["5 jobs: 5 already done, 0 to run"]
    assert report.exists()
    code, err = code_with(unread(), "show", "backbone", "resnet5")
    assert code == 2
    assert "no backbone named 'resnet5'" in err


@pytest.mark.parametrize("broken", [unread, full], ids=["left", "full"])
def test_a_broken_standard_error_costs_nothing(finished, tmp_path, broken):
    out = tmp_path / "out"
    assert code_with(out.open("w"), *finished, stderr=broken())[0] == 0
    assert "the report is" in out.read_text()
    assert code_with(out.open("w"), "validate", "no-such-suite", stderr=broken())[0] == 2


def test_a_pipe_that_does_not_block_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received = []
    with os.fdopen(reader, "rb") as source:
        thread = threading.Thread(target=lambda: received.append(source.read()))
        with os.fdopen(writer, "w") as stream, redirect_stdout(stream), guarded_streams():
            threading.Timer(0.2, thread.start).start()
            say("x" * 1_000_000)
        thread.join(20)
    assert received == [b"x" * 1_000_000 + b"\n"]


def test_closed_streams_are_no_obstacle_and_their_numbers_stay_unused(tmp_path):
    code = (
        "import os\nfrom transferbench.streams import guarded_streams\nwith guarded_streams():\n"
        f"    path = open({str(tmp_path / 'data')!r}, 'w')\n"
        "    print('to nobody')\n    os.system('echo to nobody')\n"
        "    assert path.fileno() > 2\n"
    )
    shell = ["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh"]
    subprocess.run([*shell, sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "data").read_text() == ""
    subprocess.run([*shell, *command("suites")], env=environment(), check=True, timeout=60)


def test_a_name_is_shown_in_one_line():
    assert one_line("é b\n\u202e\x1bc") == "é b???c"
