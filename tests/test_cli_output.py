"""Stdout belongs to the results of a command: what plugins print goes to stderr."""

import ast
import json
import subprocess
from pathlib import Path

import pytest
import typer
from command_line import SMALL, cli, command, environment, suite_file

from transferbench import cli as cli_package
from transferbench.cli import app
from transferbench.cli.output import ResultsCommand

NOISY = Path(__file__).parent / "loose_plugins" / "noisy.py"
WAYS = ["Python", "the first stdout", "the descriptor", "C"]


def in_a_process(folder, *arguments):
    words = command(*arguments)
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip


def test_a_plugin_that_prints_does_not_break_the_json_of_a_run(tmp_path):
    suite = suite_file(tmp_path, SMALL | {"perturbations": {"none": {"name": "noisy"}}})
    options = ("--plugin", NOISY, "--out", "run", "--jobs", 2, "--device", "cpu")
    done = in_a_process(tmp_path, "run", suite, *options, "--json")
    assert json.loads(done.stdout)["failed"] == []
    for moment in ("import", "hook", "severity", "end"):
        for way in WAYS:
            assert f"noise in {way} of the {moment}\n" in done.stderr
    for moment in ("builder", "call"):  # in workers, which may be killed before C's buffer is full
        for way in ("Python", "the descriptor"):
            assert f"noise in {way} of the {moment}\n" in done.stderr


@pytest.mark.parametrize("arguments", [("list", "perturbations"), ("plugin", "check", NOISY)])
def test_a_plugin_that_prints_does_not_break_the_json_of_other_commands(tmp_path, arguments):
    done = in_a_process(tmp_path, *arguments, "--plugin", NOISY, "--json")
    json.loads(done.stdout)
    for way in WAYS:
        assert f"noise in {way} of the hook\n" in done.stderr


def test_a_plugin_that_prints_does_not_break_a_command_in_this_process(tmp_path):
    plugin = tmp_path / "printing.py"
    plugin.write_text(
        "from transferbench.hookspecs import hookimpl\nprint('noise')\n"
        "@hookimpl\ndef transferbench_datasets():\n    return []\n"
    )
    said = cli("validate", suite_file(tmp_path, SMALL), "--plugin", plugin)
    assert said.code == 0
    assert said.out.startswith("tiny@1.0 is valid\ndigest: ")
    assert said.err == "noise\n"


def test_help_and_version_are_results():
    assert cli("--version").out.startswith("transferbench ")
    assert cli("run", "--help").out.startswith("Usage: ")


def commands(group):
    for member in group.commands.values():
        yield from commands(member) if hasattr(member, "commands") else [member]


def test_every_command_keeps_its_stdout():
    assert [member.name for member in commands(typer.main.get_command(app))
            if not isinstance(member, ResultsCommand)] == []  # fmt: skip


def test_every_command_knows_where_data_is_from_the_environment():
    asking = [option for member in commands(typer.main.get_command(app))
              for option in member.params if option.name == "data_root"]  # fmt: skip
    assert len(asking) > 5
    assert {option.envvar for option in asking} == {"TRANSFERBENCH_DATA"}


def test_the_command_line_prints_its_results_with_say():
    """``typer.echo`` would print to stderr inside a command."""
    for path in Path(cli_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.echo":
                keywords = {keyword.arg for keyword in node.keywords}
                assert keywords & {"err", "file"}, f"{path.name}:{node.lineno}: use say"
