"""``plugin new``: the files that it writes, the commands that it prints, its refusals."""

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import cli, environment, files_no_larger_than, mistake
from documentation import merged, suite_lines
from ruamel.yaml import YAML
from tiny_suite import TINY

from transferbench.registry import load_registry
from transferbench.registry.discovery import SPECS
from transferbench.scaffold.naming import names_of
from transferbench.suite.loading import load_suite

EXAMPLE = Path(__file__).parent / "example_plugin"
KINDS = tuple(SPECS)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def new(name, kind, *options):
    said = cli("plugin", "new", name, "--kind", kind, *options)
    assert said.code == 0, said.err
    return said.out


def here():
    return [path.name for path in Path().iterdir()]


def tree(folder):
    """The path and text of every file, without bytecode."""
    return {
        path.relative_to(folder): path.read_text(encoding="utf-8")
        for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }  # fmt: skip


def ruff(*words, folder):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", "."],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_offers_one_plugin_and_marks_one_place_to_edit(kind, tmp_path):
    new("my-plugin", kind)
    assert here() == ["my_plugin.py"]
    text = Path("my_plugin.py").read_text(encoding="utf-8")
    assert text.count("EDIT HERE") == 1
    # A diagnostic also brings its part of the report and the suite's lines of its column.
    assert len(text.splitlines()) < (120 if kind == "diagnostic" else 90)
    registry = load_registry([tmp_path / "my_plugin.py"])
    assert registry.problems == ()
    assert registry.origin(kind, "my-plugin") == "my_plugin.py"
    spec = getattr(registry, kind)("my-plugin")
    assert spec.accepts({})
    assert spec.accepts(spec.tiny)
    assert spec.tiny


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_holds_the_same_plugin_and_the_files_that_it_needs(kind):
    new("my-plugin", kind)
    new("my-plugin", kind, "--package")
    texts = tree(Path("transferbench-my-plugin"))
    assert sorted(map(str, texts)) == [
        ".github/workflows/check.yaml", ".gitignore", "LICENSE", "README.md", "pyproject.toml",
        "tests/test_my_plugin.py", "transferbench_my_plugin/__init__.py",
    ]  # fmt: skip
    plugin = texts[Path("transferbench_my_plugin/__init__.py")]
    assert plugin == Path("my_plugin.py").read_text(encoding="utf-8")
    project = tomllib.loads(texts[Path("pyproject.toml")])["project"]
    assert project["name"] == "transferbench-my-plugin"
    assert project["entry-points"]["transferbench"] == {"my-plugin": "transferbench_my_plugin"}
    imported = {name for name in ("numpy", "torch") if f"import {name}" in plugin}
    imported |= {"torch"} if "from torch" in plugin else set()
    required = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert required == imported | {"pydantic", "transferbench"}
    workflow = YAML(typ="safe").load(texts[Path(".github/workflows/check.yaml")])
    steps = [step.get("run") for step in workflow["jobs"]["check"]["steps"]]
    assert steps[-2:] == ["pytest", "transferbench plugin check transferbench-my-plugin"]
    assert f"The {kind} `my-plugin`" in texts[Path("README.md")]


def test_the_example_plugin_is_what_the_command_writes():
    new("example-convnet", "backbone", "--package")
    assert tree(EXAMPLE) == tree(Path("transferbench-example-convnet")), (
        "write it again: transferbench plugin new example-convnet --kind backbone --package"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x", "my-net", "a-name-of-a-length-that-an-author-may-choose"])
def test_what_is_written_obeys_the_linter_and_the_formatter_at_both_usual_widths(kind, name):
    new(name, kind, "--out", "files")
    new(name, kind, "--package")
    for folder in ("files", f"transferbench-{name}"):
        assert ruff("check", folder=folder) == (0, "All checks passed!\n")
        for width in ("88", "100"):
            code, said = ruff("format", "--check", "--line-length", width, folder=folder)
            assert code == 0, said


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints_the_files_and_the_next_commands(kind):
    said = new("my-plugin", kind, "--out", "a folder").splitlines()
    assert said[0] == "written: a folder/my_plugin.py"
    assert said[2] == "edit a folder/my_plugin.py where it says EDIT HERE, then:"
    check, run = map(shlex.split, said[3:])
    assert check == ["transferbench", "plugin", "check", "a folder/my_plugin.py"]
    loaded = ["transferbench", "run", "quickstart", "--plugin", "a folder/my_plugin.py"]
    assert run[:5] == loaded
    said = new("my-plugin", kind, "--package").splitlines()
    assert all(Path(line.removeprefix("written: ")).is_file() for line in said[:7])
    install, test, check, run = map(shlex.split, said[9:])
    assert install == ["pip", "install", "-e", "transferbench-my-plugin[test]"]
    assert test == ["pytest", "transferbench-my-plugin"]
    assert check == ["transferbench", "plugin", "check", "transferbench-my-plugin"]
    assert run[:3] + run[5:] == ["transferbench", "run", "quickstart"]


@pytest.mark.parametrize("kind", ["dataset", "perturbation", "diagnostic"])
@pytest.mark.parametrize("name", ["my-plugin", "block_5", "my.net_2-", "my_agreement", "my.speed-"])
def test_the_printed_run_is_valid_on_the_bundled_suite(kind, name):
    *_, plugin, option, change = shlex.split(new(name, kind).splitlines()[-1])
    assert option == "--set"
    light = "backbones=[fixup-resnet8]"  # timm takes seconds to import
    suite = load_suite("quickstart", load_registry([Path(plugin)]), [light, change])
    tables = (suite.perturbations, suite.diagnostics)
    used = [use.name for table in tables for use in table.values()]
    assert name in [*used, suite.targets["handwriting"].dataset.name]


@pytest.mark.parametrize("name", ["my-plugin", "block-5", "my.net_2-"])
def test_the_suite_lines_of_a_diagnostic_make_it_a_column(name):
    new(name, "diagnostic")
    (file,) = here()
    lines = suite_lines(Path(file))
    Path("suite.json").write_text(json.dumps(merged(TINY, lines)), encoding="utf-8")
    suite = load_suite("suite.json", load_registry([Path(file)]))
    (column,) = suite.scoring.columns
    assert suite.diagnostics[column.diagnostic].name == name


def test_a_new_plugin_imports_nothing_heavy():
    code = (
        "import sys\nfrom transferbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "names = [name for name in ('torch', 'timm', 'pandas') if name in sys.modules]\n"
        "print(names, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "plugin", "new", "my-net", "--kind", "backbone"],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"
    assert Path("my_net.py").is_file()


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("My Net", "write it as 'my-net'"),
        ("net/18", "write it as 'net-18'"),
        ("-net", "write it as 'net'"),
        ("../net", "write it as 'net'"),
        ("n" * 81, f"write it as '{'n' * 80}'"),
        ("!", "write it as my-net"),
        ("", "write it as my-net"),
    ],
)
def test_a_name_that_no_plugin_can_have(name, advice):
    message = mistake("plugin", "new", "--kind", "backbone", "--", name)
    assert f"{name!r} cannot be a plugin's name: it has at most 80 characters" in message
    assert message.endswith(f"starts with a letter or a digit; {advice}\n")
    assert here() == []


def test_the_names_that_are_derived():
    assert names_of("my.net_2-") == (
        "my.net_2-", "my_net_2", "my-net-2", "transferbench-my-net-2", "transferbench_my_net_2"
    )  # fmt: skip
    assert names_of("3d").package == "transferbench_3d"


@pytest.mark.parametrize(
    ("kind", "name"), [("backbone", "timm"), ("dataset", "digits"), ("diagnostic", "cka")]
)
@pytest.mark.parametrize("options", [(), ("--package",)])
def test_a_name_that_another_plugin_of_the_kind_has(kind, name, options):
    message = mistake("plugin", "new", name, "--kind", kind, *options)
    assert (
        f"the {kind} {name!r} is already offered by transferbench 0.1.0; choose another" in message
    )
    assert here() == []


def test_a_name_that_a_loose_plugin_of_the_environment_has(monkeypatch):
    new("my-net", "backbone")
    monkeypatch.setenv("TRANSFERBENCH_PLUGINS", "my_net.py")
    message = mistake("plugin", "new", "my-net", "--kind", "backbone", "--out", "other")
    assert "the backbone 'my-net' is already offered by my_net.py" in message
    new("my-net", "dataset", "--out", "other")


@pytest.mark.parametrize(
    ("name", "options", "module"),
    [
        ("random", (), "random"),
        ("numpy", (), "numpy"),
        ("plugins", ("--package",), "transferbench_plugins"),
    ],
)
def test_a_file_that_would_shadow_another_module(name, options, module):
    message = mistake("plugin", "new", name, "--kind", "backbone", *options)
    assert f"a module {module!r} already exists, and one of the two would shadow the" in message
    assert "choose another name" in message
    assert here() == []


@pytest.mark.parametrize(
    ("options", "path"), [((), "my_net.py"), (("--package",), "transferbench-my-net")]
)
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_an_existing_file_is_never_overwritten(options, path, make):
    make(Path(path))
    message = mistake("plugin", "new", "my-net", "--kind", "dataset", *options)
    assert (
        f"{path} already exists and is not overwritten; choose another name, or another" in message
    )
    assert "--out" in message
    assert here() == [path]


@pytest.mark.parametrize("options", [(), ("--package",)])
def test_a_folder_that_cannot_be_written(options):
    Path("file").touch()
    message = mistake("plugin", "new", "my-net", "--kind", "backbone", "--out", "file", *options)
    assert "cannot write file/" in message
    assert "check the path, where a file stands in the place of a folder" in message


@pytest.mark.parametrize("options", [(), ("--package",)])
def test_a_full_disk_leaves_nothing_behind(options):
    with files_no_larger_than(1000):
        message = mistake("plugin", "new", "my-net", "--kind", "backbone", *options)
    assert "File too large; nothing finished is lost: make room or choose another" in message
    assert here() == []
    new("my-net", "backbone", *options)


def test_an_unknown_kind():
    said = cli("plugin", "new", "my-net", "--kind", "network")
    assert said.code == 2
    assert all(kind in said.err for kind in KINDS)
    assert here() == []
