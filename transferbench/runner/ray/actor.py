"""What a Ray actor does: it runs jobs in one worker of the local executor, on its own node.

Limits, pauses, deaths and what jobs start are so the same as on one machine. Plain Python.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from transferbench.errors import StoreError
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.executors.local import LocalExecutor

__all__ = ["SlotActor"]

TICK_SECONDS = 0.2
"""How soon ``run`` sees that it is to end."""


class SlotActor:
    """Keeps a worker, and what it loaded, from one assignment to the next.

    ``start`` is pickled: this process, unlike its worker, never loads torch. ``paths``: of imports,
    besides those of this node. ``logs``: a folder that all nodes see, for what jobs print.
    """

    def __init__(
        self, start: bytes, time_limit_seconds: float | None, paths: Sequence[str], logs: str
    ) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        self._notes: list[str] = []
        self._ending = Event()
        self._parent = os.getppid()
        self._logs = Path(logs)
        self._worker = LocalExecutor(
            partial(_unpickled_start, start), 1, time_limit_seconds, tell=self._notes.append
        )

    def ready(self) -> str:
        """The file of the run to which this process and its worker print from now on.

        Raises: ``StoreError`` where this node does not see the run's folder.
        """
        name = socket.gethostname()
        path = self._logs / f"{name}-{os.getpid()}.log"
        try:
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise StoreError(
                f"{name} cannot write to {self._logs}: {error.strerror}; the run's folder and its "
                "store must be on a file system that all nodes share, under one path"
            ) from None
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        return str(path)

    def run(self, jobs: Mapping[str, Any]) -> Iterator[list[Outcome | str]]:
        """Outcomes and notes, as they come; ends early, without the others, after ``end``.

        So it does where the Ray of this node is gone: that is about to end this process and the
        worker, but not what the worker started.
        Raises: what kept the worker from starting.
        """
        self._worker.submit(Assignment(jobs))
        left = len(jobs)
        while left and not self._ending.is_set() and os.getppid() == self._parent:
            outcomes = self._worker.wait(TICK_SECONDS)
            notes, self._notes[:] = list(self._notes), []
            if notes or outcomes:
                yield [*notes, *outcomes]
            left -= len(outcomes)
        if left:
            self._worker.close()

    def end(self) -> None:
        """End what runs as an interrupt does: a training is kept first. Called while ``run`` is."""
        self._ending.set()


def _unpickled_start(start: bytes) -> Callable[[Any], None]:
    run: Callable[[Any], None] = pickle.loads(start)()  # noqa: S301  # of the run that made this actor
    return run
