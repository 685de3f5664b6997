"""A third-party distribution runs in a suite; once uninstalled, the error names the plugin."""

import json
import shutil
from pathlib import Path

import pytest
from own_environment import call, install, own_python
from tiny_suite import TINY

EXAMPLE = Path(__file__).parent / "example_plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return own_python(tmp_path_factory.mktemp("environment"))


def run_suite(python, folder, *options):
    return call(
        python, "-c", "from transferbench.cli import main; main()", "run", "tiny.yaml",
        "--backbone", "example-convnet", "--out", "run", "--jobs", "1", "--device", "cpu",
        *options, folder=folder,
    )  # fmt: skip


def test_an_installed_backbone_runs_in_a_suite_and_a_removed_one_is_named(python, tmp_path):
    small = {"diagnostics": {"speed": {"name": "speed"}}, "replicates": 2}
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY | small))
    # pip builds inside the source folder, which must stay clean.
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    install(python, source, folder=tmp_path)
    done = run_suite(python, tmp_path)
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry["origin"] for entry in described["entries"]] == [
        "transferbench-example-convnet 0.1.0"
    ]
    name = "transferbench-example-convnet"
    removed = call(python, "-m", "pip", "uninstall", "--quiet", "--yes", name, folder=tmp_path)
    assert removed.returncode == 0, removed.stderr
    done = run_suite(python, tmp_path)
    assert done.returncode == 2
    assert "no backbone named 'example-convnet'" in done.stderr
    assert "Traceback" not in done.stderr
