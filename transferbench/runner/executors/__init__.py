"""Executors run the jobs of a plan: in this process, in workers on this machine, or on others.

An executor takes ready jobs and returns outcomes; it knows neither what a job does nor where its
results are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

__all__ = ["Assignment", "Executor", "GroupRunner", "Outcome"]


class Outcome(NamedTuple):
    """How one attempt at a job ended; ``traceback`` is empty for what a user can act on.

    ``lost``: its worker is gone, which need not be the job's fault; it may be tried again.
    """

    job: str
    status: Literal["ok", "failed", "timeout", "oom", "skipped", "lost"]
    message: str
    traceback: str
    wall_seconds: float


class Assignment(NamedTuple):
    """Jobs for one worker, which runs them together where it can: their payloads by id.

    ``cost``: of all of them, in units that are the same for all jobs of a run. ``lane``: the kind
    of worker that may take them; "" for any.
    """

    jobs: Mapping[str, Any]
    cost: float = 0.0
    lane: str = ""

    @classmethod
    def of(cls, job: str, payload: Any) -> Self:
        """A job of its own."""
        return cls({job: payload})


@runtime_checkable
class GroupRunner(Protocol):
    """What runs one payload when called, and several together; ``together`` returns their errors.

    The errors are in the order of the payloads, None where there was none.
    """

    def __call__(self, payload: Any) -> None: ...
    def together(self, payloads: Sequence[Any]) -> Sequence[BaseException | None]: ...


class Executor(Protocol):
    """Runs up to ``slots`` assignments at once; used as a context, it leaves no process behind.

    ``device``: what trainings run on, cpu or cuda.
    ``submit`` may be called while ``free`` workers of the assignment's lane are idle. ``wait``
    returns the outcomes so far, one for each job, waiting for at least one up to ``timeout``
    seconds (None: as long as it takes); it returns none where nothing is running. ``close`` ends
    what still runs, without an outcome. An executor with a time limit ends jobs that take longer.
    """

    @property
    def slots(self) -> int: ...
    @property
    def device(self) -> str: ...
    def free(self, lane: str = "") -> int: ...
    def submit(self, work: Assignment) -> None: ...
    def wait(self, timeout: float | None = None) -> list[Outcome]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
