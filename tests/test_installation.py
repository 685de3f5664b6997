"""What is installed is the whole project: packages, their data, plugins, and the public names."""

import ast
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import transferbench
from transferbench.registry import load_registry

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"transferbench": "transferbench", "plugins": "transferbench_plugins"}
SOURCE = {".py", ".pyc"}


def installed_name(path):
    """What a file or folder of the repository is called once installed."""
    top, *rest = path.relative_to(ROOT).parts
    return "/".join([FOLDERS[top], *rest])


def files_to_install():
    """Everything below the two packages that a checkout holds."""
    for top in FOLDERS:
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield path


def test_every_folder_with_modules_is_a_package_that_is_installed():
    folders = {installed_name(path.parent).replace("/", ".") for path in files_to_install()}
    packages = SETUP["tool"]["setuptools"]["packages"]
    assert folders == set(packages)
    assert packages == sorted(packages)
    for path in files_to_install():
        assert (path.parent / "__init__.py").is_file(), path


def test_every_entry_point_is_a_module_of_the_project():
    points = SETUP["project"]["entry-points"]["transferbench"]
    kinds = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert points == {kind: f"transferbench_plugins.{kind}" for kind in kinds}
    script = SETUP["project"]["scripts"]["transferbench"]
    module, _, name = script.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built without a network."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for path in (
        *files_to_install(),
        ROOT / "pyproject.toml",
        ROOT / "README.md",
        ROOT / "LICENSE",
    ):
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    build = (
        "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(folder)],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_every_file_of_data(wheel):
    expected = {installed_name(path) for path in files_to_install()}
    data = {Path(name).name for name in expected if Path(name).suffix not in SOURCE}
    assert {"py.typed", "quickstart@1.yaml", "quickstart@3.yaml"} <= data
    assert {Path(name).suffix for name in data} >= {".typed", ".yaml", ".j2"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert names == expected


def test_an_installed_wheel_lists_its_plugins_and_suites(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import transferbench; print(transferbench.__file__)\n"
        "from transferbench.registry import load_registry\n"
        "print(len(load_registry().datasets))\n"
        "from transferbench.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "suites"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, datasets, *suites = done.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert int(datasets) == len(load_registry().datasets)
    assert any(line.startswith("quickstart@") for line in suites)


def test_the_built_in_plugins_load_without_a_problem():
    registry = load_registry()
    assert [
        problem for problem in registry.problems if problem.origin.distribution == "transferbench"
    ] == []
    for kind in ("datasets", "perturbations", "backbones", "initializations", "diagnostics"):
        assert getattr(registry, kind)


def test_the_public_names_are_complete_sorted_and_there():
    names = transferbench.__all__
    assert list(names) == sorted(names)
    tree = ast.parse(Path(transferbench.__file__).read_text(encoding="utf-8"))
    # What type checkers see is imported in one block; what runs, when it is first asked for.
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    public = {alias.asname or alias.name for line in checked.body for alias in line.names}
    assert set(names) == {*public, "__version__"}
    for name in names:
        assert getattr(transferbench, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        transferbench.nothing  # noqa: B018  # the access is what is tested
