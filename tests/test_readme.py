"""Every block of the README and of CONTRIBUTING runs as written, on the tiny suite."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_suite import TINY
from typer.testing import CliRunner

import transferbench
from transferbench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands():
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("#")[0].split(";")]
    wanted = (part.removeprefix(".venv/bin/") for part in parts)
    return [part for part in dict.fromkeys(wanted) if part.startswith("transferbench ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the README's plugin, and a tiny suite under the names it uses."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("quickstart", "characters"):
        suite = TINY | {"name": name}
        (folder / f"{name}.yaml").write_text(json.dumps(suite))
    plugin = next(block for block in blocks("README.md", "python") if "hookimpl" in block)
    (folder / "my_net.py").write_text(plugin)
    return folder


def test_the_blocks_are_found():
    assert len(commands()) > 10
    assert sum(len(blocks(page, "python")) for page in PAGES) == 2


def on_the_tiny_suite(command):
    """The words of a command, with the tiny suite for the real one and real folders for RUN."""
    words = shlex.split(command)[1:]
    words = [f"{word}.yaml" if word in {"quickstart", "characters"} else word for word in words]
    words = ["runs/quickstart@1.0" if word == "RUN" else word for word in words]
    if "my-net" in words and "--plugin" not in words:
        words += ["--plugin", "my_net.py"]
    return words + (["--jobs", "1", "--device", "cpu"] if words[0] == "run" else [])


def test_the_commands_run_in_the_order_of_the_pages(place, monkeypatch):
    monkeypatch.chdir(place)
    # The first run is what `make quickstart` does; the pages' other commands look at it.
    for command in ["transferbench run quickstart", *commands()]:
        words = [
            str(match) for word in on_the_tiny_suite(command)
            for match in (sorted(Path().glob(word)) if "*" in word else [word])
        ]  # fmt: skip
        result = CliRunner().invoke(app, words)
        # A submission of a suite that is not the bundled one is read, and not accepted.
        allowed = {0, 1} if words[:2] == ["submission", "check"] else {0}
        assert result.exit_code in allowed, (command, result.output, result.exception)


def test_the_python_calls_run(place, monkeypatch):
    monkeypatch.chdir(place)
    block = next(block for block in blocks("README.md", "python") if "transferbench.run(" in block)
    block = block.replace('"quickstart"', '"quickstart.yaml"').replace(
        "seed_count=2", 'seed_count=2, jobs=1, device="cpu"'
    )
    names = {"transferbench": transferbench}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102  # the page's own code
    assert set(names["run"].measurements.entry) == {"timm/test_resnet"}


def test_every_make_target_that_the_pages_name_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make (\w+)", (ROOT / page).read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_that_the_pages_link_to_exists():
    for page in PAGES:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), link
