"""A third-party distribution runs in a suite; once uninstalled, the error names the plugin."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import SMALL, cli
from documentation import merged, suite_lines
from own_environment import call, commands, install, own_python
from tiny_suite import TINY

from transferbench import Run

EXAMPLE = Path(__file__).parent / "example_plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return own_python(tmp_path_factory.mktemp("environment"))


def run_suite(python, folder, *options):
    code = "from transferbench.cli import main; main()"
    words = ("run", "tiny.yaml", "--out", "run", "--jobs", "1", "--device", "cpu", *options)
    return call(python, "-c", code, *words, folder=folder)


@pytest.mark.slow
def test_an_installed_backbone_runs_in_a_suite_and_a_removed_one_is_named(python, tmp_path):
    small = {"diagnostics": {"speed": {"name": "speed"}}, "replicates": 2}
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY | small))
    # pip builds inside the source folder, which must stay clean.
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    install(python, source, folder=tmp_path)
    done = run_suite(python, tmp_path, "--backbone", "example-convnet")
    assert done.returncode == 0, done.stderr
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry["origin"] for entry in described["entries"]] == [
        "transferbench-example-convnet 0.1.0"
    ]
    name = "transferbench-example-convnet"
    removed = call(python, "-m", "pip", "uninstall", "--quiet", "--yes", name, folder=tmp_path)
    assert removed.returncode == 0, removed.stderr
    done = run_suite(python, tmp_path, "--backbone", "example-convnet")
    assert done.returncode == 2
    assert "no backbone named 'example-convnet'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_installed_diagnostic_has_its_figure_in_the_report_and_its_column_on_a_board(
    python, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    said = cli("plugin", "new", "my-measure", "--kind", "diagnostic", "--package")
    assert said.code == 0, said.err
    source = tmp_path / "transferbench-my-measure"
    suite = merged(SMALL, suite_lines(source / "transferbench_my_measure" / "__init__.py"))
    (tmp_path / "tiny.yaml").write_text(json.dumps(suite | {"replicates": 2}))
    install(python, source, folder=tmp_path)
    run = ("run", "tiny.yaml", "--out", "run", "--jobs", "1", "--device", "cpu")
    pack = ("submission", "pack", "run", "--out", "submissions", "--submitter", "A. Reader",
            "--overlap", "handwriting=no")  # fmt: skip
    known = tmp_path / "suites" / "tiny@1.0.yaml"
    known.parent.mkdir()
    shutil.copy(tmp_path / "tiny.yaml", known)
    build = ("leaderboard", "build", "submissions", "--out", "boards")
    for said in commands(python, run, pack, build, folder=tmp_path):
        assert said.code == 0, said.err
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'aria-label="mean confidence by perturbation"' in report
    assert "Mean confidence under each perturbation. Bars: 95% interval over replicates" in report
    (row,) = pd.read_csv(tmp_path / "boards" / "tiny@1" / "board.csv").to_dict("records")
    measured = Run(tmp_path / "run").measurements
    own = measured[(measured["metric"] == "confidence") & (measured["initialization"] == "P-T")]
    assert len(own) == 2
    assert row["confidence"] == pytest.approx(own["value"].mean())
