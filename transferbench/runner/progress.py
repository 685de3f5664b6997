"""The progress of a run: a live bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from transferbench.plan import Job
from transferbench.runner.executors import Outcome
from transferbench.runner.schedule import SilentWatcher, Watcher
from transferbench.streams import printable

__all__ = ["Display", "progress_watcher"]

QUIET_SECONDS = 15
"""How long plain lines may report nothing while jobs finish."""
REDRAW_SECONDS = 0.1
"""The shortest time between two pictures of the bar in a notebook."""
NOTEBOOK_WIDTH = 100


def progress_watcher(progress: bool | Watcher) -> AbstractContextManager[Watcher]:
    """The watcher that ``RunOptions.progress`` asks for; a bar only where somebody can see it."""
    if isinstance(progress, Watcher):
        return nullcontext(progress)
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or a Watcher, not {progress!r}")
    console = Console(stderr=True)
    if progress and (console.is_terminal or console.is_jupyter):
        return Display(console)
    return nullcontext(SilentWatcher())


class Display:
    """Shows jobs done, running and left, throughput and the time left (a ``Watcher``).

    The time left is that of the work left, in images, at the rate of the work done so far.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.left: dict[str, Job] = {}
        self.running: set[str] = set()
        self.started_at = self.reported_at = time.monotonic()
        self.work_done = 0.0
        self.work_left = 0.0
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            disable=console.is_jupyter or not console.is_terminal,
        )
        self.bar = self.progress.add_task("jobs", total=None, state="")
        self.picture = _NotebookPicture(self.progress) if console.is_jupyter else None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
        if self.picture:
            self.picture.draw()

    def note(self, text: str) -> None:
        """Show a line before the bar."""
        self.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)

    def planned(self, jobs: Mapping[str, Job], done: Collection[str]) -> None:
        """Show how much there is and how much of it needs no work."""
        self.left = {name: job for name, job in jobs.items() if name not in done}
        self.work_left = sum(map(_passes, self.left.values()))
        total, left = len(jobs), len(self.left)
        self.progress.update(self.bar, total=total, completed=total - left)
        line = f"{total} jobs: {total - left} already done, {left} to run"
        self.console.print(line, soft_wrap=True)

    def started(self, job: Job) -> None:
        """Show one more job running."""
        self.running.add(job.id)
        self._show()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Count a job as over; a failure has a line of its own."""
        self.running.discard(job.id)
        if self.left.pop(job.id, None):
            self.work_left -= _passes(job)
        self.work_done += _passes(job)
        self.progress.advance(self.bar)
        if outcome.status != "ok":
            text = printable(f" {job.title}: {outcome.message}")
            self.console.print(Text.assemble((outcome.status, "red"), text), soft_wrap=True)
        elif self._worth_a_line(job):
            self.reported_at = time.monotonic()
            self.console.print(
                f"done {printable(job.title)} in {outcome.wall_seconds:.1f} s, {self._state()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        self._show()

    def _worth_a_line(self, job: Job) -> bool:
        """Without a bar, every training; of diagnoses, which may take milliseconds, a few."""
        if self.console.is_terminal or self.console.is_jupyter:
            return False
        return job.kind != "diagnosis" or time.monotonic() - self.reported_at >= QUIET_SECONDS

    def _show(self) -> None:
        self.progress.update(self.bar, state=self._state())
        if self.picture:
            self.picture.draw(REDRAW_SECONDS)

    def _state(self) -> str:
        elapsed = time.monotonic() - self.started_at
        state = f"{len(self.running)} running, {len(self.left)} left"
        if self.work_done > 0 and elapsed > 0:
            rate = self.work_done / elapsed
            state += f", {rate:,.0f} images/s, {_duration(max(0.0, self.work_left) / rate)} to go"
        return state


class _NotebookPicture:
    """The bar as one output of a notebook's cell; rich's own needs ipywidgets."""

    def __init__(self, progress: Progress) -> None:
        from IPython.display import display

        self.progress = progress
        self.drawn_at = time.monotonic()
        self.handle: Any = display(self._content(), raw=True, display_id=True)

    def draw(self, seconds: float = 0.0) -> None:
        """Update the output, unless that was done in the last ``seconds``."""
        if time.monotonic() - self.drawn_at >= seconds:
            self.drawn_at = time.monotonic()
            self.handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        console = Console(
            file=io.StringIO(), force_jupyter=False, record=True, width=NOTEBOOK_WIDTH
        )
        console.print(self.progress.get_renderable())
        page = console.export_html(
            code_format="<pre style='line-height:normal'>{code}</pre>",
            inline_styles=True,
            clear=False,
        )
        return {"text/html": page, "text/plain": console.export_text().strip()}


def _passes(job: Job) -> float:
    """A job's work in forward passes of one image; a backward pass costs two."""
    return 3 * job.work.trained + job.work.evaluated


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
