"""The import contracts hold, and each of them fails for an import that it forbids."""

import os
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
CONTRACTS = CONTRACTS["importlinter"]["contracts"]
PACKAGES = ("transferbench", "transferbench_plugins")


def lint_imports(folder, config):
    """import-linter over the packages in ``folder``: its exit code and what it says."""
    code = "import sys; from importlinter.cli import lint_imports_command as lint; lint()"
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(config), "--no-cache"],
        cwd=folder, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def names_in(contract):
    """Every module that a contract names."""
    keys = ("layers", "modules", "source_modules", "forbidden_modules")
    parts = " ".join(name for key in keys for name in contract.get(key, []) if name != "torch")
    return set(
        parts.replace("|", " ").replace(":", " ").replace("(", " ").replace(")", " ").split()
    )


def import_cycle(*packages):
    """The modules of a cycle, imports inside functions included; packages count as modules."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture
def skeleton(tmp_path):
    """Empty modules of every name in the contracts, under the project's own contracts."""
    names = set(PACKAGES).union(*map(names_in, CONTRACTS))
    for name in names:
        path = tmp_path.joinpath(*name.split("."))
        path.mkdir(parents=True, exist_ok=True)
        for package in (path, *path.parents):
            if package == tmp_path:
                break
            (package / "__init__.py").touch()
    config = tmp_path / "pyproject.toml"
    config.write_bytes((ROOT / "pyproject.toml").read_bytes())
    return tmp_path


def test_the_project_keeps_its_contracts():
    code, said = lint_imports(ROOT, ROOT / "pyproject.toml")
    assert code == 0, said
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in said


def test_every_module_is_on_the_map():
    (layers,) = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    assert len(layers["layers"]) <= 18
    below = {name.split(".")[1] for name in names_in(layers)}
    modules = {path.stem for path in (ROOT / "transferbench").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "transferbench").glob("*/__init__.py")}
    without = sorted((modules | packages) - below)
    assert not without, f"give a place in [tool.importlinter] to {', '.join(without)}"
    assert below <= modules | packages


def test_empty_modules_keep_the_contracts(skeleton):
    code, said = lint_imports(skeleton, skeleton / "pyproject.toml")
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "forbidden", "contract"),
    [
        ("transferbench.identity", "transferbench.runner.execute", "imports point down the map"),
        ("transferbench.plan", "transferbench.cli", "imports point down the map"),
        (
            "transferbench.networks",
            "transferbench.data",
            "imports point down the map",
        ),
        ("transferbench.claims", "transferbench_plugins.datasets", "the core never imports"),
        ("transferbench.registry", "torch", "come without torch"),
        ("transferbench.cli", "torch", "come without torch"),
        (
            "transferbench_plugins.backbones",
            "transferbench_plugins.datasets",
            "do not import each other",
        ),
    ],
)
def test_a_forbidden_import_is_caught(skeleton, module, forbidden, contract):
    path = skeleton.joinpath(*module.split("."), "__init__.py")
    path.write_text(f"def late():\n    import {forbidden}\n", encoding="utf-8")
    code, said = lint_imports(skeleton, skeleton / "pyproject.toml")
    assert code == 1, said
    (broken,) = [line for line in said.splitlines() if line.endswith(" BROKEN")]
    assert contract in broken


@pytest.mark.parametrize("package", ["transferbench.conformance", "transferbench_plugins.datasets"])
def test_a_cycle_inside_a_package_is_caught(skeleton, package):
    folder = skeleton.joinpath(*package.split("."))
    (folder / "first.py").write_text(f"import {package}.second\n", encoding="utf-8")
    late = f"def late():\n    import {package}.first\n"
    (folder / "second.py").write_text(late, encoding="utf-8")
    code, said = lint_imports(skeleton, skeleton / "pyproject.toml")
    assert code == 1, said
    (broken,) = [line for line in said.splitlines() if line.endswith(" BROKEN")]
    assert broken.startswith("no import cycles")


def test_no_module_imports_itself_through_other_modules():
    assert import_cycle(*PACKAGES) == []


def test_a_cycle_of_a_package_with_its_module_is_caught(tmp_path, monkeypatch):
    package = tmp_path / "cyclic"
    package.mkdir()
    (package / "__init__.py").write_text("from cyclic.part import name\n", encoding="utf-8")
    (package / "part.py").write_text("def late():\n    import cyclic\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(import_cycle("cyclic")) == {"cyclic", "cyclic.part"}
