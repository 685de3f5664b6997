"""Jobs run one at a time in this process, where a debugger can follow them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, Literal, Self, TypeAlias

from transferbench.errors import LostProcessError, TransferbenchError, is_out_of_memory
from transferbench.interrupts import received
from transferbench.runner.executors import Assignment, GroupRunner, Outcome

__all__ = ["InProcessExecutor", "attempt", "attempt_all"]

Ending: TypeAlias = tuple[Literal["ok", "failed", "oom", "lost"], str, str]

MAX_CHARACTERS = 100_000
"""Of a message or a traceback."""


class InProcessExecutor:
    """One slot, run inside ``wait``; ``start`` is called once, before the first job.

    ``inside``: what all of it is in, from then until it is closed.
    """

    slots = 1

    def __init__(
        self,
        start: Callable[[], Callable[[Any], None]],
        device: str = "cpu",
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.device = device
        self._start, self._inside, self._entered = start, inside, ExitStack()
        self._run: Callable[[Any], None] | None = None
        self._next: Assignment | None = None

    def free(self, _lane: str = "") -> int:
        """How many assignments may be submitted."""
        return 0 if self._next else 1

    def submit(self, work: Assignment) -> None:
        """Take jobs; ``wait`` runs them."""
        if self._next:
            raise RuntimeError("no slot is free: wait for an outcome before the next job")
        self._next = work

    def wait(self, timeout: float | None = None) -> list[Outcome]:  # noqa: ARG002  # a job is never left half-way here
        """Run what was submitted to its end, however long it takes."""
        if self._next is None:
            return []
        if self._run is None:
            self._entered.enter_context(self._inside())
            self._run = self._start()
        run, work, self._next = self._run, self._next, None
        return attempt_all(work.jobs, run)

    def close(self) -> None:
        """Drop what has not begun."""
        self._next = None
        self._entered.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def attempt_all(jobs: Mapping[str, Any], run: Callable[[Any], None]) -> list[Outcome]:
    """Run jobs here, together where ``run`` can.

    What fails together is run again alone: its outcome is its own, whoever its neighbours were.
    """
    if len(jobs) == 1 or not isinstance(run, GroupRunner):
        return [attempt(job, partial(run, payload)) for job, payload in jobs.items()]
    errors: list[BaseException | None] = []
    all_jobs = attempt("", lambda: errors.extend(run.together(list(jobs.values()))))
    if all_jobs.status != "ok":
        errors = [RuntimeError(all_jobs.message)] * len(jobs)
    seconds = all_jobs.wall_seconds / len(jobs)
    return [
        attempt(job, partial(run, payload)) if error else Outcome(job, "ok", "", "", seconds)
        for (job, payload), error in zip(jobs.items(), errors, strict=True)
    ]


def attempt(job: str, run: Callable[[], None]) -> Outcome:
    """Run a job here; whatever it raises is its outcome, except the user's interrupt."""
    began, interrupts = time.perf_counter(), received()
    ended: Ending = ("ok", "", "")
    try:
        run()
    except (Exception, SystemExit) as error:  # one job's bug must not cost the others
        if received() > interrupts:  # a library turned the interrupt into an error of its own
            raise KeyboardInterrupt from error
        ended = _ending(error)
    status, message, trace = ended
    return Outcome(job, status, _cut(message), _cut(trace), time.perf_counter() - began)


def _ending(error: BaseException) -> Ending:
    """The status of a job that raised ``error``, its message and its traceback."""
    if isinstance(error, LostProcessError):
        return "lost", str(error), ""
    if isinstance(error, TransferbenchError):
        # The author of a plugin needs the traceback of what it raised, which is the cause.
        cause = error.__cause__
        return "failed", str(error), "".join(traceback.format_exception(cause)) if cause else ""
    text = traceback.format_exception_only(error)[-1].strip()
    status: Literal["failed", "oom"] = "oom" if is_out_of_memory(error) else "failed"
    return status, text, "".join(traceback.format_exception(error))


def _cut(text: str) -> str:
    """``text`` without its middle where it is absurdly long: it is kept and shown whole."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"
