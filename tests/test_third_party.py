"""A stranger's distribution: installed, it runs in a suite; removed, the error names what lacks."""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from tiny_suite import TINY

EXAMPLE = Path(__file__).parent / "example_plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment of its own that sees this one's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A .pth line is processed like the folder itself: editable installs are seen through it.
    (site / "shared.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    return folder / "bin" / "python"


def call(python, *words, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PIP_CONFIG_FILE": os.devnull}
    environment.pop("PIP_FIND_LINKS", None)
    return subprocess.run(
        [str(python), *words], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def run_suite(python, folder, *options):
    return call(
        python, "-c", "from transferbench.cli import main; main()", "run", "tiny.yaml",
        "--backbone", "example-convnet", "--out", "run", "--jobs", "1", "--device", "cpu",
        *options, folder=folder,
    )  # fmt: skip


def pip(python, folder, *words):
    done = call(python, "-m", "pip", *words, folder=folder)
    assert done.returncode == 0, done.stderr


def test_an_installed_backbone_runs_in_a_suite_and_a_removed_one_is_named(python, tmp_path):
    small = {"diagnostics": {"speed": {"name": "speed"}}, "replicates": 2}
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY | small))
    # pip builds in the source's folder, which must stay clean.
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    pip(python, tmp_path, "install", "--quiet", "--no-index", "--no-deps",
        "--no-build-isolation", str(source))  # fmt: skip
    done = run_suite(python, tmp_path)
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry["origin"] for entry in described["entries"]] == [
        "transferbench-example-convnet 0.1.0"
    ]
    pip(python, tmp_path, "uninstall", "--quiet", "--yes", "transferbench-example-convnet")
    done = run_suite(python, tmp_path)
    assert done.returncode == 2
    assert "no backbone named 'example-convnet'" in done.stderr
    assert "Traceback" not in done.stderr
