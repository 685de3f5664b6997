"""Jobs run in worker processes of this machine; a worker that dies costs its one job.

Each worker keeps what its ``start`` loaded from job to job. It leads a process group of its own,
so that ending it ends what it started, and a terminal's interrupt reaches the parent alone, which
decides. A worker whose parent is gone ends itself. How a worker runs: ``worker``.

Rejected: ``concurrent.futures.ProcessPoolExecutor``, where a worker that dies breaks the pool.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, connection
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from transferbench.errors import TransferbenchError
from transferbench.runner.executors import Outcome
from transferbench.runner.executors.worker import COMMAND, START

__all__ = ["LocalExecutor"]

Start: TypeAlias = Callable[[], Callable[[Any], None]]

TICK_SECONDS = 0.2
"""How often limits are checked, and deaths that no closed pipe shows (a child holds it open)."""
GRACE_SECONDS = 2.0
"""How long a worker may take to leave before it is killed."""


class LocalExecutor:
    """Up to ``slots`` worker processes, each started when a job first needs it.

    ``start`` is pickled and called once in each worker; what it returns runs one payload.
    ``time_limit_seconds`` is for one job, not counting its worker's start. ``environments[i]``
    holds variables of the worker in slot i (such as CUDA_VISIBLE_DEVICES).
    """

    def __init__(
        self,
        start: Start,
        slots: int,
        time_limit_seconds: float | None = None,
        environments: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        if environments is not None and len(environments) != slots:
            raise ValueError(f"{slots} slots need as many environments, not {len(environments)}")
        self.slots = slots
        self._start = pickle.dumps(start)
        self._limit_seconds = time_limit_seconds
        self._environments = environments or [{}] * slots
        self._workers: list[_Worker | None] = [None] * slots
        # Workers of an executor that was not closed end with this process.
        atexit.register(self.close)

    @property
    def free(self) -> int:
        """How many jobs may be submitted."""
        return self.slots - len(self._busy())

    def submit(self, job: str, payload: Any) -> None:
        """Give a job to an idle worker, or to a new one where there is none."""
        if not self.free:
            raise RuntimeError("no slot is free: wait for an outcome before the next job")
        pickled = pickle.dumps(payload)
        self._idle_worker().give(job, pickled)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """The outcomes that came, in the order of slots.

        Raises: what kept a worker from starting; ``TransferbenchError`` where a user can act.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            ended = [worker.outcome(self._limit_seconds) for worker in self._busy()]
            if outcomes := [outcome for outcome in ended if outcome]:
                return outcomes
            for worker in self._busy():
                if worker.broken:
                    raise worker.broken
            left = TICK_SECONDS if until is None else until - time.monotonic()
            if not self._busy() or left <= 0:
                return []
            connection.wait([worker.pipe for worker in self._busy()], min(left, TICK_SECONDS))

    def close(self) -> None:
        """End every worker: idle ones leave, busy ones are terminated, and then killed."""
        atexit.unregister(self.close)
        workers = [worker for worker in self._workers if worker]
        for worker in workers:
            worker.dismiss()
        until = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
            worker.kill()
        self._workers = [None] * self.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker and worker.job is not None]

    def _idle_worker(self) -> _Worker:
        workers = enumerate(self._workers)
        idle = {slot: worker for slot, worker in workers if worker is None or worker.job is None}
        for worker in idle.values():
            if worker and worker.is_usable:
                return worker
        slot, dead = next(iter(idle.items()))
        if dead:
            dead.kill()
        new = self._workers[slot] = _Worker(self._start, self._environments[slot])
        return new


class _Worker:
    """A worker process as its parent sees it.

    ``job`` is the one it runs; ``broken`` says why it could not start.
    """

    def __init__(self, start: bytes, environment: Mapping[str, str]) -> None:
        self.pipe, worker_end = Pipe()
        self.job: str | None = None
        self.broken: Exception | None = None
        self._started = False
        self._killed = False
        self._began = 0.0
        descriptor = worker_end.fileno()
        with _interrupts_held():
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                [*COMMAND, str(descriptor)],
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
                pass_fds=[descriptor],
                process_group=0,
            )
        worker_end.close()
        # A worker that dies at once shows when it is waited for.
        with suppress(OSError):
            self.pipe.send([str(Path(path).absolute()) for path in sys.path])
            self.pipe.send(start)

    @property
    def is_usable(self) -> bool:
        return not self._killed and self._is_alive()

    def _is_alive(self) -> bool:
        return self.process.poll() is None

    def join(self, seconds: float) -> None:
        """Wait for the process to end, for so many seconds at most."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def give(self, job: str, payload: bytes) -> None:
        self.job, self._began = job, time.monotonic()
        # A worker that died just now shows when it is waited for.
        with suppress(OSError):
            self.pipe.send((job, payload))

    def outcome(self, limit_seconds: float | None) -> Outcome | None:
        """How the job ended, or None where it has not."""
        alive = self._is_alive()
        try:
            outcome = self._receive()
        except (EOFError, OSError):
            outcome, alive = None, False
        if outcome is None and not self.broken:
            outcome = self._overtime(limit_seconds) if alive else self._death()
        if outcome:
            self.job = None
        return outcome

    def dismiss(self) -> None:
        """Ask an idle worker to leave; terminate a busy one."""
        if self.job is None:
            with suppress(OSError):
                self.pipe.send(None)
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, and what it started, whatever they do."""
        self._killed = True
        self._signal(signal.SIGKILL)
        # A process stuck in a driver outlives even this; the others must not wait for it.
        self.join(GRACE_SECONDS)
        self.pipe.close()

    def _receive(self) -> Outcome | None:
        while self.pipe.poll():
            outcome: Outcome = self.pipe.recv()
            if outcome.job != START:
                return outcome
            self._started, self._began = True, time.monotonic()
            if outcome.traceback:
                self.broken = RuntimeError(
                    f"a worker process could not start:\n{outcome.traceback}"
                )
            elif outcome.status != "ok":
                self.broken = TransferbenchError(outcome.message)
        return None

    def _overtime(self, limit_seconds: float | None) -> Outcome | None:
        seconds = time.monotonic() - self._began
        if limit_seconds is None or not self._started or seconds <= limit_seconds:
            return None
        self.kill()
        advice = "raise the limit, or give the job less to do"
        return self._ended("timeout", f"took longer than {limit_seconds:g} s; {advice}", seconds)

    def _death(self) -> Outcome | None:
        seconds = time.monotonic() - self._began
        self.join(GRACE_SECONDS)
        manner = _manner_of_death(self.process.returncode)
        self.kill()
        if self._started:
            return self._ended("failed", f"the worker process {manner}", seconds)
        self.broken = TransferbenchError(
            f"a worker process could not start: it {manner}; see what it wrote above"
        )
        return None

    def _ended(self, status: Literal["failed", "timeout"], message: str, seconds: float) -> Outcome:
        return Outcome(str(self.job), status, message, "", seconds)

    def _signal(self, number: int) -> None:
        # The group may be gone already.
        with suppress(OSError):
            os.killpg(self.process.pid, number)


def _manner_of_death(exit_code: int | None) -> str:
    if exit_code is None:
        return "no longer answers"
    if exit_code >= 0:
        return f"ended itself with exit code {exit_code}"
    advice = "; out of memory? try fewer jobs at once" if -exit_code == signal.SIGKILL else ""
    return f"was killed by signal {-exit_code} ({signal.strsignal(-exit_code)}){advice}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT back, here and in a process started meanwhile, until that can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
