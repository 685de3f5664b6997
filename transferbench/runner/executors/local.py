"""Jobs run in worker processes of this machine; a worker that dies costs its one job.

Each worker keeps what its ``start`` loaded from job to job. It leads a process group of its own,
so that ending it ends what it started, and a terminal's interrupt reaches the parent alone, which
decides. A worker whose parent is gone ends itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from transferbench.errors import TransferbenchError
from transferbench.runner.executors import Outcome
from transferbench.runner.executors.inprocess import attempt

__all__ = ["LocalExecutor"]

if TYPE_CHECKING:
    Pipe: TypeAlias = connection.Connection[Any, Any]

Start: TypeAlias = Callable[[], Callable[[Any], None]]
Inbox: TypeAlias = SimpleQueue[tuple[str, bytes] | None]

START = ""
"""What stands for a job's id where the outcome is that of a worker's start."""
TICK_SECONDS = 0.2
"""How often limits are looked at, and deaths that no closed pipe tells of (a child holds it)."""
GRACE_SECONDS = 2.0
"""How long a worker may take to leave before it is killed."""


class LocalExecutor:
    """Up to ``slots`` worker processes, each started when a job first needs it.

    ``start`` is pickled and called once in each worker; what it returns runs one payload.
    ``time_limit_seconds`` is for one job, not counting its worker's start. ``environments[i]``
    holds variables of the worker in slot i, set before ``start`` (such as CUDA_VISIBLE_DEVICES).
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
        # at exit multiprocessing waits for its children: those that nobody closed must be gone
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
            outcomes = [
                it for worker in self._busy() if (it := worker.outcome(self._limit_seconds))
            ]
            if outcomes:
                return outcomes
            self._raise_if_broken()
            left = TICK_SECONDS if until is None else until - time.monotonic()
            if not self._busy() or left <= 0:
                return []
            connection.wait([it.pipe for it in self._busy()], min(left, TICK_SECONDS))

    def close(self) -> None:
        """End every worker: idle ones leave, busy ones are terminated, and then killed."""
        atexit.unregister(self.close)
        workers = [worker for worker in self._workers if worker]
        for worker in workers:
            worker.dismiss()
        until = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.kill()
        self._workers = [None] * self.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker and worker.job is not None]

    def _idle_worker(self) -> _Worker:
        idle = {slot: it for slot, it in enumerate(self._workers) if it is None or it.job is None}
        for worker in idle.values():
            if worker and worker.is_usable:
                return worker
        slot, dead = next(iter(idle.items()))
        if dead:
            dead.kill()
        new = self._workers[slot] = _Worker(self._start, self._environments[slot])
        return new

    def _raise_if_broken(self) -> None:
        for worker in self._busy():
            if worker.broken:
                raise worker.broken


class _Worker:
    """A worker process as its parent sees it.

    ``job`` is what it was given and has not ended; ``broken`` says why it could not start.
    """

    def __init__(self, start: bytes, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.job: str | None = None
        self.broken: Exception | None = None
        self._started = False
        self._killed = False
        self._began = 0.0
        self.process = context.Process(target=_serve, args=(theirs, start, dict(environment)))
        with _interrupts_held():
            self.process.start()
        theirs.close()

    @property
    def is_usable(self) -> bool:
        return not self._killed and self.process.is_alive()

    def give(self, job: str, payload: bytes) -> None:
        self.job, self._began = job, time.monotonic()
        # a worker that died just now is seen to be dead when it is waited for
        with suppress(OSError):
            self.pipe.send((job, payload))

    def outcome(self, limit_seconds: float | None) -> Outcome | None:
        """How the job ended, or None where it has not."""
        alive = self.process.is_alive()
        try:
            outcome = self._hear()
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
        # a process stuck in a driver outlives even this; the others must not wait for it
        self.process.join(GRACE_SECONDS)
        self.pipe.close()

    def _hear(self) -> Outcome | None:
        while self.pipe.poll():
            outcome: Outcome = self.pipe.recv()
            if outcome.job != START:
                return outcome
            self._started, self._began = True, time.monotonic()
            if outcome.status != "ok":
                self.broken = _start_error(outcome)
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
        self.process.join(GRACE_SECONDS)
        manner = _manner_of_death(self.process.exitcode)
        self.kill()
        if self._started:
            return self._ended("failed", f"the worker process {manner}", seconds)
        self.broken = TransferbenchError(
            f"a worker process could not start: it {manner}; see what it wrote above (a script "
            "that runs a benchmark does so under `if __name__ == '__main__':`)"
        )
        return None

    def _ended(self, status: Literal["failed", "timeout"], message: str, seconds: float) -> Outcome:
        return Outcome(str(self.job), status, message, "", seconds)

    def _signal(self, number: int) -> None:
        if self.process.pid is None:
            return
        try:
            os.killpg(self.process.pid, number)
        except OSError:
            # it has not made its group yet, or all of it is gone
            if self.process.is_alive():
                os.kill(self.process.pid, number)


def _start_error(outcome: Outcome) -> Exception:
    if outcome.traceback:
        return RuntimeError(f"a worker process could not start:\n{outcome.traceback}")
    return TransferbenchError(outcome.message)


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
    resource_tracker.ensure_running()  # starting it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker --------------------------------------------------------------------------------


def _serve(pipe: Pipe, start: bytes, environment: Mapping[str, str]) -> None:
    """Run what comes through the pipe until told to leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.setpgid(0, 0)
    os.environ.update(environment)
    inbox: Inbox = SimpleQueue()
    Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    # a parent that is gone is the listener's concern
    with suppress(BrokenPipeError, ConnectionResetError):
        _work(pipe, inbox, start)


def _work(pipe: Pipe, inbox: Inbox, start: bytes) -> None:
    run: list[Callable[[Any], None]] = []
    pipe.send(attempt(START, lambda: run.append(_unpickle(start)())))
    while run and (message := inbox.get()) is not None:
        job, payload = message
        pipe.send(_attempt_pickled(job, run[0], payload))


def _attempt_pickled(job: str, run: Callable[[Any], None], payload: bytes) -> Outcome:
    return attempt(job, lambda: run(_unpickle(payload)))


def _listen(pipe: Pipe, inbox: Inbox) -> None:
    """Pass messages on; end this process and what it started when the parent is gone."""
    try:
        while (message := pipe.recv()) is not None:
            inbox.put(message)
    except (EOFError, OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
    inbox.put(None)


def _unpickle(pickled: bytes) -> Any:
    return pickle.loads(pickled)  # noqa: S301  # the bytes come from our parent's pipe alone
