"""One plan on this machine, through Slurm and on Ray: the same records, and the same networks."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL, artefacts, environment
from tiny_suite import tiny_suite

import transferbench
from transferbench.runner.slurm import executor as executor_module
from transferbench.runner.slurm.control import ElementState, SlurmControl

REAL = pytest.param(
    True,
    marks=[
        pytest.mark.slurm,
        pytest.mark.skipif(
            "SLURM_CONF" not in os.environ, reason="tests/clusters/slurm.sh runs it"
        ),
    ],
)
CODE = "import pickle, sys; pickle.load(sys.stdin.buffer)()"


class ChunkProcesses:
    """Begins each chunk as a process, as Slurm does on a node."""

    def __init__(self, _options):
        self.chunks = {}

    def submit(self, folder, chunk, n):
        folder.mkdir(exist_ok=True)
        names = [f"1_{len(self.chunks) + i}" for i in range(n)]
        for name in names:
            array, _, task = name.partition("_")
            own = environment(SLURM_ARRAY_JOB_ID=array, SLURM_ARRAY_TASK_ID=task)
            with (folder / f"{name}_0_log.err").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stderr=log, env=own
                )
            with process.stdin:
                process.stdin.write(pickle.dumps(chunk))
            self.chunks[name] = process
        return names

    def states(self, elements):
        words = {None: "RUNNING", 0: "COMPLETED"}
        return {name: ElementState(words.get(self.chunks[name].poll(), "FAILED"))
                for name in elements}  # fmt: skip

    def cancel(self, elements):
        for name in elements:
            self.chunks[name].terminate()

    def wait(self):
        return [process.wait(60) for process in self.chunks.values()]


def computed(folder: Path, **options):
    """The records of the plan, and the digests of all files of all jobs."""
    run = transferbench.run(
        tiny_suite(**SMALL), out=folder / "run", device="cpu", progress=False, **options
    )
    assert not run.failed
    files = {
        path.name: json.loads((path / "manifest.json").read_text())["files"]
        for path in artefacts(folder / "store")
    }
    return (run.folder / "records.jsonl").read_bytes(), files


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("local"), jobs=1)


def assert_equal(there, here):
    assert there[0] == here[0]
    assert there[1] == here[1]
    assert any("final.safetensors" in files for files in here[1].values())


@pytest.mark.parametrize("is_real", [False, REAL])
def test_through_slurm(is_real, here, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'transferbench[slurm]'")
    controls = []

    def control(options):
        controls.append(SlurmControl(options) if is_real else ChunkProcesses(options))
        return controls[-1]

    monkeypatch.setattr(executor_module, "SlurmControl", control)
    options = {"chunks": 2, "time": 10}
    assert_equal(computed(tmp_path, executor="slurm", executor_options=options), here)
    assert list(tmp_path.glob("run/slurm/*/logs/*_log.err"))
    if not is_real:
        # A chunk that has not begun when all jobs are done is cancelled.
        assert {0} <= set(controls[0].wait()) <= {0, -signal.SIGTERM}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_ray(here, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'transferbench[ray]'")
    assert_equal(computed(tmp_path, executor="ray", jobs=2), here)
    assert not sys.modules["ray"].is_initialized()
