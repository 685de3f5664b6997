"""A chunk: an element of an array, which takes ready jobs of the plan and runs them on its node.

It knows the whole plan, so that it goes on without the process that submitted it. What it holds
is lost with it; nothing else is.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from transferbench.errors import TransferbenchError
from transferbench.plan import Job
from transferbench.runner.execute import grouping_of
from transferbench.runner.executors import Executor, Outcome
from transferbench.runner.executors.local import LocalExecutor
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.executors.this_machine import LocalOptions, workers_here
from transferbench.runner.schedule import JobSchedule, record_failure
from transferbench.runner.slurm.control import ArrayControl, SlurmControl
from transferbench.runner.slurm.ledger import Entry, Ledger, entry_of
from transferbench.runner.slurm.losses import element_of, gone_writers, write_losses
from transferbench.runner.slurm.options import SlurmOptions

__all__ = ["CONTEXT", "Chunk", "SharedSchedule", "read_context"]

CONTEXT = "context.pickle"
"""What the first chunks of a session are begun with, beside their ledger."""
POLL_SECONDS = 0.5
WATCH_SECONDS = 30.0
"""How often a chunk that has nothing to do looks whether the others live."""
LAST_SECONDS = 10.0
"""Of the time between the signal and the end, what is left for telling how jobs ended."""


def read_context(session: Path, name: str = CONTEXT) -> tuple[ExecutorContext, SlurmOptions]:
    """What was submitted; written by the same user's ``run``, as submitit's own pickles are."""
    context: tuple[ExecutorContext, SlurmOptions] = pickle.loads((session / name).read_bytes())  # noqa: S301  # our own file
    return context


class _Log:
    """A watcher that writes what a chunk does, with the titles of its jobs."""

    def note(self, text: str) -> None:
        """Write a line."""
        self._write(text)

    def planned(self, jobs: Mapping[str, Job], done: Collection[str]) -> None:
        """Write how much there is."""
        self._write(f"{len(jobs)} jobs, {len(done)} of them done")

    def started(self, job: Job) -> None:
        """Write that a job begins here."""
        self._write(f"begins {job.title}")

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Nothing: other chunks' jobs end here, too."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Write how a job of this chunk ended."""
        self._write(f"{outcome.status} {job.title} in {outcome.wall_seconds:.1f} s"
                    + (f": {outcome.message}" if outcome.message else ""))  # fmt: skip
        if outcome.traceback:
            self._write(outcome.traceback)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            sys.stderr.flush()


@dataclass
class Chunk:
    """Called on a node; its pickle is replayed when Slurm begins it again, and holds no state.

    ``context``: the file of the session with the plan and the options that it was submitted with.
    """

    session: Path
    context: str = CONTEXT

    def __call__(self) -> None:
        """Run jobs until none is left that could begin here."""
        context, options = read_context(self.session, self.context)
        element = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", "0"))
        if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
            element = f"{element}_{task}"
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if options.gpus == 0:
            jobs = options.slots(context.options)
            context = replace(context, options=replace(context.options, jobs=jobs))
        ledger = Ledger(self.session, f"{element}.{restarts}")
        own = LocalOptions(slots_per_gpu=options.slots_per_gpu)
        with _endings() as endings:
            try:
                with workers_here(context, own) as executor:
                    schedule = SharedSchedule(
                        context, options, ledger, executor, SlurmControl(options)
                    )
                    schedule.run(endings)
            except TransferbenchError as error:
                with suppress(TransferbenchError):  # a full disk takes no word of it either
                    ledger.write(Entry("", 0, "failed", str(error)))
                raise
        if signal.SIGUSR2 in endings and options.requeue and schedule.jobs.is_unfinished:
            schedule.log.note("its time is over, and it is queued again")
            subprocess.run(["scontrol", "requeue", element], check=False)  # noqa: S603, S607  # a command of Slurm


@contextmanager
def _endings() -> Iterator[list[int]]:
    """The signals that ask for the end of this chunk, as they come."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SharedSchedule:
    """The schedule of one of several processes that compute one plan; ``jobs``: its view of it."""

    def __init__(
        self,
        context: ExecutorContext,
        options: SlurmOptions,
        ledger: Ledger,
        executor: Executor,
        control: ArrayControl,
    ) -> None:
        self.options, self.ledger, self.executor = options, ledger, executor
        self.control, self.log = control, _Log()
        self.jobs = JobSchedule(
            context.jobs, set(context.done), context.store, executor, self.log,
            grouping=grouping_of(context, executor), turns=context.turns, take=ledger.claim,
            shared=True,
        )  # fmt: skip
        self._watched_at = time.monotonic()

    def run(self, endings: Collection[int] = ()) -> None:
        """Run jobs until none is left, none could begin for long, or a signal came."""
        self.jobs.begin()
        self._learn()
        if not self.ledger.writer.endswith(".0"):
            self._write_losses(self._why_own_earlier)
        busy_at = time.monotonic()
        while self.jobs.is_unfinished and not endings:
            self._learn()
            self.jobs.submit()
            if self.jobs.running:
                busy_at = time.monotonic()
                for outcome in self.executor.wait(POLL_SECONDS):
                    self._tell(outcome, endings)
            elif time.monotonic() - busy_at > self.options.idle_seconds:
                break
            else:
                self._watch()
                time.sleep(POLL_SECONDS)
        if self.jobs.running:
            self._give_back()

    def _learn(self) -> None:
        """Take note of how jobs ended, of this chunk and of others."""
        for entry in self.ledger.read():
            if entry.status == "returned":
                self.jobs.running.discard(entry.job)
                self.jobs.put_back(entry.job)
            elif entry.job:
                self.jobs.settle(entry.outcome)

    def _tell(self, outcome: Outcome, endings: Collection[int]) -> None:
        """Tell how a job of this chunk ended; all chunks, this one too, take note of it then."""
        name, job = outcome.job, self.jobs.jobs[outcome.job]
        if outcome.status == "lost":
            time.sleep(POLL_SECONDS)  # the signal that ended its worker comes here, too
        self.log.ended(job, outcome)
        if outcome.status == "lost" and endings:
            self._return([name])
            return
        if outcome.status not in {"ok", "lost"}:
            if damaged := self.jobs.damaged_requirements(name):
                self.jobs.say_repaired(name, damaged)
                self._return([*damaged, name])
                return
            record_failure(self.jobs.store, job, outcome)
        self.ledger.write(entry_of(outcome, self.ledger.rounds[name]))
        self._learn()

    def _return(self, names: Collection[str]) -> None:
        """Have jobs computed again, which is no fault of theirs."""
        for name in names:
            self.ledger.write(Entry(name, self.ledger.rounds[name], "returned"))
        self._learn()

    def _give_back(self) -> None:
        """Let the trainings be kept, and others go on with them."""
        self.log.note(f"gives back {len(self.jobs.running)} job(s), which were kept")
        if isinstance(self.executor, LocalExecutor):
            self.executor.close(max(1.0, self.options.signal_seconds - LAST_SECONDS))
        for name in list(self.jobs.running):
            if self.jobs.store.is_done(name):  # just in time
                self.ledger.write(Entry(name, self.ledger.rounds[name], "ok"))
        self._learn()
        self._return(list(self.jobs.running))

    def _watch(self) -> None:
        """Where nothing can begin here: free what chunks hold that are gone."""
        if time.monotonic() - self._watched_at < WATCH_SECONDS:
            return
        self._watched_at = time.monotonic()
        holders = {self.ledger.holder(name) for name in self.jobs.ready.waiting}
        writers = {holder for holder in holders if holder}
        gone = gone_writers(self.control, self.ledger.folder, writers)
        # What they told before they went is read first.
        self._learn()
        self._write_losses(gone.get)

    def _why_own_earlier(self, holder: str) -> str | None:
        """Why a claim of this element is void that it made before Slurm began it again."""
        own = self.ledger.writer
        if holder != own and element_of(holder) == element_of(own):
            return f"its chunk {element_of(own)} was begun again by Slurm"
        return None

    def _write_losses(self, why_gone: Callable[[str], str | None]) -> None:
        waiting = list(self.jobs.ready.waiting)
        write_losses(self.ledger, self.jobs.store, waiting, why_gone)
        self._learn()
