"""Executors run the jobs of a plan: in this process, or in workers on this machine.

An executor takes ready jobs and returns outcomes; it knows neither what a job does nor where its
results are kept.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, Self

__all__ = ["Executor", "Outcome"]


class Outcome(NamedTuple):
    """How one attempt at a job ended; ``traceback`` is empty for what a user can act on."""

    job: str
    status: Literal["ok", "failed", "timeout", "oom", "skipped"]
    message: str
    traceback: str
    wall_seconds: float


class Executor(Protocol):
    """Runs up to ``slots`` jobs at once; used as a context, it leaves no process behind.

    ``submit`` may be called while ``free`` is positive. ``wait`` returns the outcomes so far,
    waiting for at least one up to ``timeout`` seconds (None: as long as it takes); it returns none
    where nothing is running. ``close`` ends what still runs, without an outcome.
    """

    @property
    def slots(self) -> int: ...
    @property
    def free(self) -> int: ...
    def submit(self, job: str, payload: Any) -> None: ...
    def wait(self, timeout: float | None = None) -> list[Outcome]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
