"""How a run looks while it goes on: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from transferbench.plan import Job
from transferbench.runner.executors import Outcome

__all__ = ["Display"]

QUIET_SECONDS = 15
"""How long plain lines may say nothing while there is something to tell."""


class Display:
    """Shows jobs done, running and left, throughput and the time left (a ``Watcher``).

    The time left is that of the work left, in images, at the rate of the work done so far.
    """

    def __init__(self, console: Console, *, left: dict[str, Job]) -> None:
        self.console = console
        self.left = dict(left)
        self.running: dict[str, Job] = {}
        self.started_at = self.told_at = time.monotonic()
        self.work_done = 0.0
        self.total = len(left)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.bar = self.progress.add_task("jobs", total=self.total, state="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def planned(self, total: int, done: int) -> None:
        """Show how much there is and how much of it needs no work."""
        self.progress.update(self.bar, total=total, completed=done)
        self.console.print(
            f"{total} jobs: {done} already done, {total - done} to run", soft_wrap=True
        )

    def started(self, job: Job) -> None:
        """Show one more job running."""
        self.running[job.id] = job
        self._show()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Count a job as over; a failure is told in a line of its own."""
        self.running.pop(job.id, None)
        self.left.pop(job.id, None)
        self.work_done += _passes(job)
        self.progress.advance(self.bar)
        if outcome.status != "ok":
            self.console.print(
                f"[red]{outcome.status}[/] {job.title}: {outcome.message}", soft_wrap=True
            )
        elif not self.console.is_terminal and self._worth_a_line(job):
            self.told_at = time.monotonic()
            self.console.print(
                f"done {job.title} in {outcome.wall_seconds:.1f} s, {self._state()}",
                highlight=False,
                soft_wrap=True,
            )
        self._show()

    def _worth_a_line(self, job: Job) -> bool:
        """Every training; of diagnoses, which may take milliseconds, one now and then."""
        return job.kind != "diagnosis" or time.monotonic() - self.told_at >= QUIET_SECONDS

    def _show(self) -> None:
        self.progress.update(self.bar, state=self._state())

    def _state(self) -> str:
        elapsed = time.monotonic() - self.started_at
        work_left = sum(_passes(job) for job in self.left.values())
        state = f"{len(self.running)} running, {len(self.left)} left"
        if self.work_done > 0 and elapsed > 0:
            rate = self.work_done / elapsed
            state += f", {rate:,.0f} images/s, {_duration(work_left / rate)} to go"
        return state


def _passes(job: Job) -> float:
    """A job's work in forward passes of one image; a backward pass costs two."""
    return 3 * job.work.trained + job.work.evaluated


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
