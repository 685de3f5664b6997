"""The pages of the documentation, and a reader who does what they say, on a tiny suite.

A reader goes through a page from top to bottom in a folder of its own. What a block is, its first
word says: ``sh`` are commands, ``python`` is code, ``yaml`` is a suite or a part of one, ``toml``
and ``json`` are data, ``text`` is what comes out. A block that begins with ``# NAME.py`` (or .yaml)
is that file. Nothing else may stand in a fence, so that no block goes unread.
"""

import ast
import json
import re
import shlex
import sys
import tomllib
from contextlib import chdir, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
from ruamel.yaml import YAML
from safetensors.torch import save_file
from tiny_suite import TINY
from typer.testing import CliRunner

from transferbench.cli import app
from transferbench.own_pictures import design
from transferbench.registry import open_registry
from transferbench.suite import loading
from transferbench.suite.loading import bundled_suites, load_suite, newest_suites

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")
))  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHORT = TINY["recipes"]["short"] | {"epochs": 1}
STAND_IN = TINY | {
    # As quickstart selects them: what its own pages ask of it must work.
    "targets": {"handwriting": TINY["targets"]["handwriting"] | {"labels_per_class": 20}},
    "recipes": {"short": SHORT, "pretrain": SHORT, "P-T": SHORT, "RI-T": SHORT},
    "initializations": {
        "P-T": {"name": "pretrained", "recipe": "P-T"},
        "RI-T": {"name": "random", "recipe": "RI-T"},
    },
    "perturbations": {
        "none": {"name": "identity"},
        "block-1": {"name": "block-shuffle", "params": {"block": 1}},
    },
    "trials": [{"perturbations": ["none"]}],
    "diagnostics": {"speed": {"name": "speed"}},
    "replicates": 1,
}
"""What stands in for the bundled suites, with the labels that pages use; little to draw."""

SEEN_AND_NOT_DONE = {"git", "pip", "pre-commit", "python", ".venv/bin/pip", ".venv/bin/pytest"}
"""Programs that a page may name and a reader here does not start."""


class FencedBlock(NamedTuple):
    """A fenced block; ``file``: the name of the file that it is, or ''."""

    language: str
    text: str

    @property
    def file(self):
        match = re.match(r"# ([\w./-]+\.(?:py|yaml|toml))\n", self.text)
        return match[1] if match else ""


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    return [FencedBlock(*match) for match in FENCE.findall(text_of(page))]


def commands(text):
    """The commands of a block, without comments; one a line, or joined by ``;``."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split(" #")[0].split(";")]
    return [part for part in parts if part and not part.startswith("#")]


class Reader:
    """Someone who does what a page says in ``folder``; ``store`` is shared with other readers."""

    def __init__(self, folder, store):
        self.folder = folder
        self.plugins = []
        self.names = {}
        (folder / "runs").mkdir()
        (folder / "runs" / "store").symlink_to(store)
        for name in (*newest_suites(), *bundled_suites()):
            board = newest_suites().get(name, name)
            suite = STAND_IN | dict(zip(("name", "version"), f"{board}.0".split("@"), strict=True))
            (folder / f"{name}.yaml").write_text(json.dumps(suite))

    def read(self, page):
        for block in blocks(page):
            self.do(page, block)

    def do(self, page, block):
        with chdir(self.folder), stand_ins_have_the_name_of_a_suite():
            self._do(page, block)

    def _do(self, page, block):
        what = {
            "sh": self._shell, "python": self._python, "yaml": self._yaml,
            "toml": lambda _, text: tomllib.loads(text),
            "json": lambda _, text: json.loads(text),
            "text": lambda *_: None,
        }  # fmt: skip
        assert block.language in what, (page, block.language, block.text)
        if block.file:
            Path(block.file).write_text(block.text)
            self.plugins += [Path(block.file)] if block.file.endswith(".py") else []
        what[block.language](page, block.text)

    # --- code ---------------------------------------------------------------------------------

    def _python(self, page, text):
        # A reader's own names are those of all blocks of the page.
        code = re.sub(r'device="\w+"', 'device="cpu"', text)
        for name in (*newest_suites(), *bundled_suites()):
            code = code.replace(f'run("{name}"', f'run("{name}.yaml", jobs=1')
        with importing_from(self.folder):
            exec(compile(code, page, "exec"), self.names)  # noqa: S102  # the page's own code

    # --- suites -------------------------------------------------------------------------------

    def _yaml(self, page, text):
        part = YAML(typ="safe").load(text)
        content = part if "name" in part else merged(STAND_IN, part)
        path = Path("read.yaml")
        path.write_text(json.dumps(content))
        suite = load_suite(str(path), open_registry([Path(file) for file in self.plugins]))
        assert suite.summary, page

    # --- commands -----------------------------------------------------------------------------

    def _shell(self, page, text):
        for command in commands(text):
            program, *words = shlex.split(command)
            if program == "make":
                self._make(words)
            elif Path(program).name == "transferbench":
                self._transferbench(page, words)
            else:
                assert program in SEEN_AND_NOT_DONE, (page, command)

    def _make(self, targets):
        for target in targets:
            assert re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE), target
            if target == "quickstart":
                self._transferbench("Makefile", ["run", "quickstart"])

    def _transferbench(self, page, words):
        words = [match for word in self._stand_ins(words) for match in globbed(word)]
        with trainings_of_a_second():
            result = CliRunner().invoke(app, words)
        # A submission of a suite that is not the bundled one is read, and not accepted.
        allowed = {0, 1} if words[:2] == ["submission", "check"] else {0}
        assert result.exit_code in allowed, (page, words, result.output, result.exception)

    def _stand_ins(self, words):
        """The words with stand-ins: for a bundled suite, a run for RUN, the CPU for any device."""
        # A name of a board is that of a suite, and what shows a board takes no file.
        takes_a_folder = words[0] == "try" or words[:2] == ["suite", "new"]
        takes_no_file = takes_a_folder or words[0] == "leaderboard"
        names = set() if takes_no_file else {*newest_suites(), *bundled_suites()}
        words = [f"{word}.yaml" if word in names else word for word in words]
        run = f"runs/{newest_suites()['quickstart']}.0"
        words = [run if word == "RUN" else word for word in words]
        # Weights in packages, which are not installed here: the suite's own.
        words = ["suite" if word == "imagenet" else word for word in words]
        words = ["cpu" if before == "--device" else word
                 for before, word in zip(["", *words], words, strict=False)]  # fmt: skip
        if takes_a_folder:
            return [*words, *self._small_weights(), "--size", "32", "--jobs", "1"]
        return words + (["--jobs", "1"] if words[0] == "run" and "--jobs" not in words else [])

    def _small_weights(self):
        """Those of a small network, for which no package is needed."""
        file = self.folder / "small.safetensors"
        save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), file)
        return ["--backbone", "timm/test_resnet", "--weights", str(file)]


@contextmanager
def stand_ins_have_the_name_of_a_suite():
    """Inside the block an edited copy of a bundled suite is not refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "_refuse_edited_copy", lambda *_: None)
        yield


@contextmanager
def trainings_of_a_second():
    """Inside the block a design of one's own pictures is as small as it can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "SEEN", (60, 40, 30))
        patch.setattr(design, "ENOUGH", design.FEWEST)
        patch.setattr(design, "MOST", design.FEWEST)
        yield


@contextmanager
def importing_from(folder):
    """Files of ``folder`` can be imported inside the block, and are forgotten after it."""
    loaded = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in sys.modules.keys() - loaded:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).parent == folder:
                del sys.modules[name]


def globbed(word):
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def merged(base, change):
    """``base`` with ``change`` laid over it, mapping by mapping."""
    result = deepcopy(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def suite_lines(file):
    """The part of a suite in the docstring of a new diagnostic."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return YAML(typ="safe").load(docstring.partition("with these lines:\n")[2])
