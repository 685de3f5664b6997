"""No kill at any moment takes a number: 50 of the main process, and 50 of a worker."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from threading import Event, Thread

import pytest
from test_cli_accidents import children
from tiny_suite import TINY, tiny_suite

from transferbench.api import Run, run
from transferbench.errors import TransferbenchError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

KILLS = 50
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The records of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert not run(tiny_suite(), out=folder, jobs=1, device="cpu", progress=False).failed
    return (folder / "records.jsonl").read_bytes()


def wait_for_a_moment(store, draw):
    """Any moment of a start, or one while a job is being computed."""
    if draw.random() < 0.3:
        time.sleep(draw.uniform(0.01, 4))
        return
    until = time.monotonic() + PATIENCE_SECONDS
    before = len(list(store.glob("jobs/*/*")))
    while time.monotonic() < until:
        if any(store.glob("partial/*")) or len(list(store.glob("jobs/*/*"))) > before:
            break
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.4))


def check_sound(out, expected):
    """An undisturbed run ends what is left, with the same bytes."""
    finished = run(tiny_suite(), out=out, jobs=1, device="cpu", progress=False)
    assert not finished.failed
    assert (out / "records.jsonl").read_bytes() == expected
    assert not Run(out).failed
    assert list((out.parent / "store" / "partial").iterdir()) == []
    assert list((out.parent / "store" / "corrupt").iterdir()) == []


ATTEMPTS = """
    import json, os, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from transferbench.api import run
    from transferbench.suite import Suite
    suite = Suite.model_validate(json.loads(sys.argv[1]))
    # One import of everything serves all attempts: each runs in a fork of its own.
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            jobs = int(line)
            run(suite, out=Path(sys.argv[2]), jobs=jobs, device="cpu", progress=False)
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)
"""


def test_the_main_process_is_killed(tmp_path, expected):
    draw = random.Random(50)
    out = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(ATTEMPTS), json.dumps(TINY), str(out)]
    kills = ends = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        while kills < KILLS:
            # Workers take seconds to start; one run in five has them.
            parent.stdin.write(f"{2 if kills % 5 == 0 else 1}\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            wait_for_a_moment(tmp_path / "store", draw)
            with suppress(ProcessLookupError):  # it has come to its end
                os.kill(child, signal.SIGKILL)
            status = int(parent.stdout.readline())
            killed = os.WIFSIGNALED(status)
            assert killed or status == 0
            kills += killed
            ends += not killed
            if not killed:
                forget_some(tmp_path / "store", draw)
        parent.stdin.close()
    check_sound(out, expected)
    print(f"{kills} kills of the main process, {ends} runs came to their end before")  # noqa: T201


def forget_some(store, draw):
    """Everything is computed: there is work again for the kills that are left."""
    for job in sorted(store.glob("jobs/*/*")):
        if draw.random() < 0.5:
            job.rename(store / "leases" / f"forgotten-{draw.random()}")


def test_workers_are_killed(tmp_path, expected):
    draw = random.Random(51)
    out, store = tmp_path / "run", tmp_path / "store"
    kills: list[int] = []
    over = Event()

    def kill_workers():
        while len(kills) < KILLS and not over.is_set():
            wait_for_a_moment(store, draw)
            if workers := children(os.getpid()):
                victim = draw.choice(sorted(workers))
                os.kill(victim, signal.SIGKILL)
                kills.append(victim)

    killer = Thread(target=kill_workers, daemon=True)
    killer.start()
    runs = 0
    try:
        while len(kills) < KILLS:
            runs += 1
            try:
                finished = run(tiny_suite(), out=out, jobs=2, device="cpu", progress=False)
            except TransferbenchError as error:
                assert "a worker process could not start" in str(error)  # noqa: PT017
                continue
            assert {row["status"] for row in finished.failed} <= {"failed", "skipped"}
            # What a kill left is right, and nothing is missing but what failed.
            lines = (out / "records.jsonl").read_bytes().splitlines()
            assert set(lines) <= set(expected.splitlines())
            if not finished.failed:
                assert (out / "records.jsonl").read_bytes() == expected
                forget_some(store, draw)
    finally:
        over.set()
        killer.join()
    check_sound(out, expected)
    print(f"{len(kills)} kills of workers in {runs} runs")  # noqa: T201
