"""The benchmarks of a card, at their smallest on the CPU: so that they run when a card is there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import gpu
import gpu_peers
import pytest
import torch
from command_line import SMALL, suite_file
from gpu_rows import compared, measured


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Runs the script without packages of others; returns its rows."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")

    def run():
        gpu.main(tmp_path, "tiny")
        written = json.loads((tmp_path / "benchmarks.json").read_text())
        assert written["card"].startswith("cpu, torch ")
        assert (tmp_path / "benchmarks.md").read_text().startswith("# Training and images on cpu, ")
        return written["rows"]

    return run


def test_every_comparison_has_a_row_or_a_reason(rows, monkeypatch):
    monkeypatch.setattr(gpu_peers, "_package", lambda _: None)
    rows = rows()
    assert [row["what"].partition(" (error")[0] for row in rows] == [
        "eager, default kernels", "graph of 2, deterministic", "graph of 1, deterministic",
        "eager, deterministic",
        "bare loop, deterministic, eager", "ours, deterministic, eager", "evaluation",
        "from the device", "from the disk",
        "loops with torch.compile: skipped, compiling takes minutes on a CPU",
        "ours", "pytorch-cka: skipped, which is not installed",
        "ours", "kornia: skipped, which is not installed",
        "ours", "kornia: skipped, which is not installed",
    ]  # fmt: skip
    assert all(row["value"] > 0 for row in rows if "skipped" not in row["what"])


def test_a_part_that_fails_is_a_row(rows, monkeypatch):
    def fails(_):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(gpu, "features", fails)
    (row,) = (row["what"] for row in rows() if row["what"].startswith("the rest"))
    assert row == "the rest of part 3: skipped, OutOfMemoryError: CUDA out of memory"


def test_packages_that_are_installed_are_compared(rows, monkeypatch):
    def crops(*_args, **_options):
        return lambda images: images

    kornia = ModuleType("kornia.augmentation")
    names = ("AugmentationSequential", "RandomResizedCrop", "RandomHorizontalFlip", "Normalize",
             "RandomJigsaw")  # fmt: skip
    for name in names:
        setattr(kornia, name, crops)
    cka = ModuleType("cka")
    cka.cka_from_features = lambda a, b: torch.zeros(len(a), len(b))
    packages = {"cka": cka, "kornia.augmentation": kornia}
    monkeypatch.setattr(gpu_peers, "_package", packages.get)
    by_kind = [row for row in rows() if row["base"].startswith(("kornia", "pytorch-cka (error"))]
    assert len(by_kind) == 3
    assert all(row["times"] is not None for row in by_kind)


def test_a_goal_may_be_a_value_and_a_ratio():
    row = measured("n", "ours", 4700.0, "images/s", 4600)
    assert (row.goal, row.met) == (">= 4,600", "yes")
    bare = measured("n", "bare", 4800.0, "images/s")
    assert compared(row, bare, 0.95)[5:] == (0.98, ">= 4,600 and >= 0.95 times", "yes")
    assert compared(row, bare, 0.99).met == "no"
    slow = measured("n", "ours", 4500.0, "images/s", 4600)
    assert compared(slow, bare, 0.9).met == "no"


@pytest.mark.slow
def test_the_script_of_a_card_runs_each_part_and_leaves_its_files(tmp_path):
    suite = suite_file(tmp_path, SMALL, replicates=1)
    script = Path(__file__).with_name("gpu.sh")
    settings = {"DEVICE": "cpu", "SCALE": "tiny", "PYTHON": sys.executable,
                "QUICKSTART": f"{suite} --jobs 1", "CHARACTERS": f"{suite} --jobs 1"}  # fmt: skip
    out = tmp_path / "out"
    subprocess.run([script, out], check=True, env={**os.environ, **settings})
    summary = (out / "summary.txt").read_text()
    for part in ("doctor", "first", "second", "tests", "benchmarks", "characters", "on-cpu",
                 "compared"):  # fmt: skip
        assert f"\n{part}: exit code 0, " in summary, summary
        assert (out / f"{part}.txt").stat().st_size
    assert "quickstart twice: equal records" in summary
    assert summary.endswith("end\n")
    assert json.loads((out / "benchmarks.json").read_text())["rows"]
    assert not list(out.rglob("*.safetensors"))
