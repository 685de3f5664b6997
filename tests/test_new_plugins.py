"""From an empty folder to numbers: a new plugin of each kind is edited, checked and run.

The commands are those that ``plugin new`` prints, with the tiny suite for the bundled one.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import SMALL, Said, cli, mistake, suite_file
from own_environment import call, commands, install, own_python

from transferbench.api import Run
from transferbench.cli import authoring
from transferbench.conformance import CheckResult

NAMES = {
    "dataset": "my-data",
    "perturbation": "my-shuffle",
    "backbone": "my-net",
    "initialization": "my-start",
    "diagnostic": "my-measure",
}
EDITS = {
    "dataset": ("4 * np.pi * across", "6 * np.pi * across"),
    "perturbation": ("np.roll(moved, 1)", "np.roll(moved, 2)"),
    "backbone": ("padding=1), nn.ReLU())", "padding=1), nn.GELU())"),
    "initialization": ("pretrained.std(correction=0)", "pretrained.abs().mean()"),
    "diagnostic": ("odds.max(axis=1) /", "odds.min(axis=1) /"),
}
"""The edit of the marked function of each."""


class New(NamedTuple):
    """The output of ``plugin new``: the file to edit, and the commands, split into words."""

    file: Path
    commands: list[list[str]]


def begin(kind, *options):
    """A new plugin, edited."""
    said = cli("plugin", "new", NAMES[kind], "--kind", kind, *options)
    assert said.code == 0, said.err
    (file,) = re.findall(r"^edit (.*) where it says EDIT HERE, then:$", said.out, re.MULTILINE)
    edit(Path(file), *EDITS[kind])
    lines = said.out.splitlines()
    return New(Path(file), [shlex.split(line) for line in lines if line.startswith("  ")])


def edit(file, old, new):
    """Change the marked function, and nothing else."""
    text = file.read_text(encoding="utf-8")
    before, mark, after = text.partition("EDIT HERE")
    function, gap, rest = after.partition("\n\n\n")
    assert mark
    assert function.count(old) == 1
    edited = before + mark + function.replace(old, new) + gap + rest
    file.write_text(edited, encoding="utf-8")


def on_the_tiny_suite(command, out="run"):
    program, run, suite, *options = command
    assert (program, run, suite) == ("transferbench", "run", "quickstart")
    return [run, "suite.yaml", *options, "--out", out, "--jobs", "1", "--device", "cpu"]


def check_run(kind, said, folder):
    """The run used the plugin, and measured numbers with it."""
    assert said.code == 0, said.err
    name, run = NAMES[kind], Run(folder)
    assert run.failed == []
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert ('aria-label="mean confidence by perturbation"' in report) == (kind == "diagnostic")
    entry = name if kind == "backbone" else "fixup-resnet8"
    assert re.search(rf"^ +1 +a +{entry} ", said.out, re.MULTILINE), said.out
    if kind != "backbone":
        assert name in " ".join(run.described["changed"])
        assert re.search(r"^\w+-changed@1 ", said.out, re.MULTILINE), said.out
    table = run.measurements
    if kind == "dataset":
        assert run.suite.targets["handwriting"].dataset.name == name
        mine = table
    else:
        mine = table[table["entry" if kind == "backbone" else kind] == name]
    assert len(mine) > 1
    assert mine["value"].notna().any()
    if kind in {"perturbation", "initialization"}:
        others = table[table[kind] != name]
        assert set(mine["metric"]) == set(others["metric"])


@pytest.mark.parametrize("kind", NAMES)
def test_a_new_file_is_edited_checked_and_run(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite_file(tmp_path, SMALL)
    check, run = begin(kind).commands
    said = cli(*check[1:])
    assert said.code == 0, said.out + said.err
    assert re.search(rf"^{kind} {NAMES[kind]} .* passed$", said.out, re.MULTILINE)
    check_run(kind, cli(*on_the_tiny_suite(run)), tmp_path / "run")


class Installed(NamedTuple):
    """Distributions in one environment; ``said``: the output of check and run of each kind."""

    folder: Path
    python: Path
    folders: list[str]
    said: dict[str, tuple[Said, Said]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A distribution of each kind, installed, checked and run as its commands say."""
    folder = tmp_path_factory.mktemp("installed")
    python = own_python(folder / "environment")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = {kind: begin(kind, "--package").commands for kind in NAMES}
    pips, tests, checks, runs = zip(*printed.values(), strict=True)
    assert {tuple(words[:2]) for words in pips} == {("pip", "install")}
    install(python, *(word for words in pips for word in words[2:]), folder=folder)
    suite_file(folder, SMALL)
    # A run folder for each kind and one store: the source network is trained once.
    apart = [[*on_the_tiny_suite(run, kind), "--store", "store"]
             for kind, run in zip(NAMES, runs, strict=True)]  # fmt: skip
    calls = [*(words[1:] for words in checks), *apart]
    said = commands(python, *calls, folder=folder)
    pairs = zip(said[: len(NAMES)], said[len(NAMES) :], strict=True)
    folders = [words[1] for words in tests]
    return Installed(folder, python, folders, dict(zip(NAMES, pairs, strict=True)))


@pytest.mark.parametrize("kind", NAMES)
def test_a_new_distribution_is_installed_checked_and_run(installed, kind):
    checked, run = installed.said[kind]
    assert checked.code == 0, checked.out + checked.err
    assert re.search(rf"^{kind} {NAMES[kind]} .* passed$", checked.out, re.MULTILINE)
    check_run(kind, run, installed.folder / kind)


@pytest.mark.slow
def test_new_distributions_pass_their_own_tests(installed):
    options = ("-W", "error", "-p", "no:cacheprovider")
    done = call(installed.python, "-m", "pytest", *options, *installed.folders,
                folder=installed.folder)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in NAMES.values():
        module = f"test_{name.replace('-', '_')}.py"
        assert re.search(rf"tests/{module} [.s]+ ", done.stdout), done.stdout


def test_a_name_whose_file_lies_here_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text("")
    assert mistake("plugin", "check", "my-net") == (
        "error: no plugin or distribution named 'my-net' (did you mean the file my_net.py?)\n"
    )
    assert "did you mean the file" not in mistake("plugin", "check", "my-other-net")


@pytest.mark.parametrize("listed", [False, True])
def test_skipped_checks_are_summed_up_and_listed_on_request(capsys, listed):
    passed = CheckResult("backbone", "my-net", "it-builds", "passed")
    skipped = CheckResult("backbone", "my-net", "cpu-and-cuda-agree", "skipped", "no CUDA device")
    authoring._print([passed, skipped], {"my-net": "none"}, reasons=listed)
    said = capsys.readouterr().out
    reason = "skipped: cpu-and-cuda-agree: backbone 'my-net': no CUDA device\n"
    assert (reason in said) == listed
    summary = "2 checks: 1 passed, 1 skipped; what was skipped was not checked"
    assert said.endswith(f"{summary}\n" if listed else f"{summary} (--skipped says why)\n")
