"""Jobs run in worker processes of this machine; a worker that dies loses the jobs that it has.

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
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import TypeAdapter

from transferbench.errors import TransferbenchError
from transferbench.files import advice_on
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.executors.worker import COMMAND, START
from transferbench.runner.messages import say
from transferbench.store import WaitEvent
from transferbench.streams import open_closed_descriptors

if TYPE_CHECKING:
    from transferbench.runner.executors.worker import Pipe

__all__ = ["LocalExecutor", "SlotSetup", "Start", "absolute"]

Start: TypeAlias = Callable[[], Callable[[Any], None]]

TICK_SECONDS = 0.2
"""How often limits are checked, and deaths that no closed pipe shows (a child holds it open)."""
GRACE_SECONDS = 2.0
"""How long a worker may take to leave before it is killed, and then to be gone."""
MESSAGES: TypeAdapter[Outcome | WaitEvent] = TypeAdapter(Outcome | WaitEvent)
MAX_LINE_BYTES = 16 * 2**20
"""More than an outcome takes."""
GARBLED = (
    "sent data that is not a job's result; a plugin probably writes to a file descriptor that it "
    "did not open"
)


class SlotSetup(NamedTuple):
    """What a slot differs in: its lane, the variables of its worker (such as CUDA_VISIBLE_DEVICES).

    ``start``: instead of that of the executor.
    """

    lane: str = ""
    environment: Mapping[str, str] = {}
    start: Start | None = None


class LocalExecutor:
    """Up to ``slots`` worker processes, each started when a job first needs it.

    ``start`` is pickled and called once in each worker; what it returns runs one payload.
    ``time_limit_seconds`` is for one job, not counting its worker's start; jobs that run together
    have that of all of them. ``setups[i]`` says what differs in slot i. ``tell`` gets what the
    user should know meanwhile.
    """

    def __init__(
        self,
        start: Start,
        slots: int,
        time_limit_seconds: float | None = None,
        setups: Sequence[SlotSetup] | None = None,
        device: str = "cpu",
        tell: Callable[[str], None] = say,
    ) -> None:
        if setups is not None and len(setups) != slots:
            raise ValueError(f"{slots} slots need as many setups, not {len(setups)}")
        self.slots = slots
        self.device = device
        self._start = start
        self._limit_seconds = time_limit_seconds
        self._setups = setups or [SlotSetup()] * slots
        self._tell = tell
        self._workers: list[_Worker | None] = [None] * slots
        # A pipe must not get the number of a standard stream.
        open_closed_descriptors()
        # Workers of an executor that was not closed end with this process.
        atexit.register(self.close)

    def free(self, lane: str = "") -> int:
        """How many assignments of a lane may be submitted."""
        return len(self._idle(lane))

    def submit(self, work: Assignment) -> None:
        """Give jobs to an idle worker of their lane, or to a new one where there is none."""
        if not self.free(work.lane):
            raise RuntimeError("no slot is free: wait for an outcome before the next job")
        pickled = {job: pickle.dumps(payload) for job, payload in work.jobs.items()}
        self._idle_worker(work.lane).give(pickled)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """The outcomes that came, in the order of slots.

        Raises: what kept a worker from starting; ``TransferbenchError`` where a user can act.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            ended = [worker.outcomes(self._limit_seconds) for worker in self._busy()]
            if outcomes := [outcome for of_worker in ended for outcome in of_worker]:
                return outcomes
            for worker in self._busy():
                if worker.broken:
                    raise worker.broken
            left = TICK_SECONDS if until is None else until - time.monotonic()
            if not self._busy() or left <= 0:
                return []
            connection.wait([worker.pipe for worker in self._busy()], min(left, TICK_SECONDS))

    def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End every worker: idle ones leave, busy ones are terminated, and then killed.

        They have ``grace_seconds`` to leave, and trainings to be kept, and ``GRACE_SECONDS`` to be
        gone; an interrupt kills at once.
        """
        atexit.unregister(self.close)
        workers = [worker for worker in self._workers if worker]
        self._workers = [None] * self.slots
        try:
            for worker in workers:
                worker.dismiss()
            _join(workers, grace_seconds)
        finally:
            _kill(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker and worker.jobs]

    def _idle(self, lane: str) -> dict[int, _Worker | None]:
        """The idle slots of a lane, of all where there is none of it."""
        lane = lane if lane in {setup.lane for setup in self._setups} else ""
        return {
            slot: worker
            for slot, (worker, setup) in enumerate(zip(self._workers, self._setups, strict=True))
            if not (worker and worker.jobs) and lane in {"", setup.lane}
        }

    def _idle_worker(self, lane: str) -> _Worker:
        idle = self._idle(lane)
        for worker in idle.values():
            if worker and worker.is_usable:
                return worker
        slot, dead = next(iter(idle.items()))
        if dead:
            _kill([dead])
        setup = self._setups[slot]
        start = pickle.dumps(setup.start or self._start)
        new = self._workers[slot] = _Worker(start, setup.environment, self._tell)
        return new


class _Worker:
    """A worker process as its parent sees it.

    ``jobs`` are those that it has not ended yet; ``broken`` says why it could not start.
    """

    def __init__(
        self, start: bytes, environment: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        self._tell = tell
        self.pipe, self.process = _started(environment)
        self.jobs: list[str] = []
        self.broken: Exception | None = None
        self._started = False
        self._killed = False
        self._began = 0.0
        self._together = 0
        self._received = b""
        self._paused_at: float | None = None
        # A worker that dies at once shows when it is waited for.
        with suppress(OSError):
            self.pipe.send(absolute(sys.path))
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

    def give(self, jobs: Mapping[str, bytes]) -> None:
        self.jobs, self._began, self._paused_at = list(jobs), time.monotonic(), None
        self._together = len(jobs)
        # A worker that died just now shows when it is waited for.
        with suppress(OSError):
            self.pipe.send(list(jobs.items()))

    def outcomes(self, limit_seconds: float | None) -> list[Outcome]:
        """How jobs ended since the last time."""
        alive = self._is_alive()
        outcomes: list[Outcome] = []
        try:
            while self.jobs and (outcome := self._receive()):
                outcomes.append(outcome)
                self.jobs.remove(outcome.job)
        except (EOFError, OSError):
            alive = False
        except ValueError:
            outcomes += self._lost(GARBLED, status="failed")
        if self.jobs and not outcomes and not self.broken:
            outcomes = self._overtime(limit_seconds) if alive else self._death()
        if not outcomes and alive:
            self._say_if_stopped()
        return outcomes

    def dismiss(self) -> None:
        """Ask an idle worker to leave; terminate a busy one."""
        if not self.jobs:
            with suppress(OSError):
                self.pipe.send(None)
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, and what it started, whatever they do; it may take a moment."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def release(self) -> None:
        """Close the pipe, and say so where the process outlives even being killed."""
        self.pipe.close()
        if self._is_alive():
            self._tell(
                f"the worker process {self.process.pid} does not end although it was killed (it "
                "may be stuck in a driver or a file system); it is left behind"
            )

    def _receive(self) -> Outcome | None:
        """The outcome of a job, or None where none is complete yet.

        Raises: ``EOFError`` or ``OSError`` where the pipe is closed, ``ValueError`` where what
        came through it is no outcome.
        """
        while (line := self._next_line()) is not None:
            outcome = MESSAGES.validate_json(line)
            if isinstance(outcome, WaitEvent):
                self._pause(outcome)
                continue
            if outcome.job in self.jobs:
                return outcome
            if outcome.job != START:
                raise ValueError(outcome.job)
            self._started, self._began = True, time.monotonic()
            if outcome.traceback:
                self.broken = RuntimeError(
                    f"a worker process could not start:\n{outcome.traceback}"
                )
            elif outcome.status != "ok":
                self.broken = TransferbenchError(outcome.message)
        return None

    def _next_line(self) -> bytes | None:
        """The next line that came; never waits for the rest of one that is incomplete."""
        while b"\n" not in self._received and self.pipe.poll():
            more = os.read(self.pipe.fileno(), 2**16)
            if not more:
                raise EOFError
            self._received += more
            if len(self._received) > MAX_LINE_BYTES:
                raise ValueError("a line without an end")
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        return line

    def _pause(self, event: WaitEvent) -> None:
        """The time for which a job waits for another process is not its own."""
        if event.what == "announce":
            self._tell(event.text)
        elif event.what == "begin":
            self._paused_at = time.monotonic()
        elif self._paused_at is not None:
            self._began += time.monotonic() - self._paused_at
            self._paused_at = None

    def _overtime(self, limit_seconds: float | None) -> list[Outcome]:
        seconds = (self._paused_at or time.monotonic()) - self._began
        if limit_seconds is None or not self._started or seconds <= limit_seconds * self._together:
            return []
        _kill([self])
        advice = "raise the limit, or give the job less to do"
        return self._ended("timeout", f"took longer than {limit_seconds:g} s; {advice}", seconds)

    def _death(self) -> list[Outcome]:
        self.join(GRACE_SECONDS)
        return self._lost(_manner_of_death(self.process.returncode))

    def _lost(self, manner: str, status: Literal["lost", "failed"] = "lost") -> list[Outcome]:
        seconds = time.monotonic() - self._began
        _kill([self])
        if self._started:
            return self._ended(status, f"the worker process {manner}", seconds)
        self.broken = TransferbenchError(
            f"a worker process could not start: it {manner}; see what it wrote above"
        )
        return []

    def _say_if_stopped(self) -> None:
        """Say once that the process was stopped: otherwise its job would wait in silence."""
        process = self.process.pid
        with suppress(AttributeError, ChildProcessError):  # macOS has it since Python 3.13; dead
            if os.waitid(os.P_PID, process, os.WSTOPPED | os.WNOHANG):
                self._tell(f"the worker process {process} was stopped, and its job waits: "
                    f"kill -CONT {process} lets it go on")  # fmt: skip

    def _ended(
        self, status: Literal["failed", "timeout", "lost"], message: str, seconds: float
    ) -> list[Outcome]:
        """The outcomes of all jobs that have not ended."""
        jobs, self.jobs = self.jobs, []
        return [Outcome(job, status, message, "", seconds) for job in jobs]

    def _signal(self, number: int) -> None:
        # The group may be gone already, or the process may have left it.
        with suppress(OSError):
            os.killpg(self.process.pid, number)
        with suppress(OSError):
            self.process.send_signal(number)


def _started(environment: Mapping[str, str]) -> tuple[Pipe, subprocess.Popen[bytes]]:
    """A new worker process and this end of the pipe to it.

    Raises: ``TransferbenchError`` where the system refuses.
    """
    try:
        pipe, worker_end = connection.Pipe()
        with worker_end, _interrupts_held():
            descriptor = worker_end.fileno()
            process = subprocess.Popen(  # noqa: S603  # our own command
                [*COMMAND, str(descriptor)],
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
                pass_fds=[descriptor],
                process_group=0,
            )
    except OSError as error:
        way_on = advice_on(error.errno) or "allow more processes (ulimit -u)"
        raise TransferbenchError(
            f"cannot start a worker process: {error.strerror}; run fewer jobs at once (--jobs), or "
            f"{way_on}"
        ) from error
    return pipe, process


def _kill(workers: Sequence[_Worker]) -> None:
    """End the processes and all that they started, waiting ``GRACE_SECONDS`` at most."""
    killed = [worker for worker in workers if not worker.pipe.closed]
    for worker in killed:
        worker.kill()
    # A process stuck in a driver outlives even this; the others must not wait for it.
    _join(killed)
    for worker in killed:
        worker.release()


def _join(workers: Sequence[_Worker], seconds: float = GRACE_SECONDS) -> None:
    until = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))


def absolute(paths: Sequence[str]) -> list[str]:
    """Import paths that do not depend on the working directory, which may no longer exist."""
    absolute = []
    for path in paths:
        with suppress(OSError):
            absolute.append(str(Path(path).absolute()))
    return absolute


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
