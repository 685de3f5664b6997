"""A process of its own that writes a job until a line comes in."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from transferbench.store import Store, lease

__all__ = ["hold"]


def hold(root: str, job: str, lease_seconds: str, child: str = "") -> None:
    """Write ``job``; ``child``: with a child process that outlives this one."""
    lease.LEASE_SECONDS = float(lease_seconds)
    with Store(Path(root)).writing(job, "trial") as draft:
        if child and os.fork() == 0:
            time.sleep(600)
        print(os.getpid(), flush=True)  # noqa: T201  # read by the test
        sys.stdin.readline()
        draft.write_json("trial.json", "theirs")


if __name__ == "__main__":
    hold(*sys.argv[1:])
