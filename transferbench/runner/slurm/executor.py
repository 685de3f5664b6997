"""The executor ``slurm`` as the process of a run sees it: it submits chunks and hears of jobs."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from transferbench.errors import ExecutorError
from transferbench.interrupts import endings_held
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.messages import say
from transferbench.runner.slurm.chunk import Chunk
from transferbench.runner.slurm.control import ArrayControl, ElementState, SlurmControl
from transferbench.runner.slurm.ledger import Entry, Ledger
from transferbench.runner.slurm.losses import gone_writers, write_losses
from transferbench.runner.slurm.options import SlurmOptions
from transferbench.runner.slurm.session import Session, plan_digest, sessions_in

__all__ = ["ArrayExecutor", "cancel", "describe"]

POLL_SECONDS = 1.0
WATCH_SECONDS = 10.0
"""Between two looks at the chunks; a controller serves many users."""
CANCELLED = Entry("", 0, "failed", "transferbench cancel has ended the chunks of this run")
"""Told to the process of a run, which would submit others."""
SILENCE_SECONDS = 60.0
"""Without a chunk that runs, until the user is told what they wait for."""
FRUITLESS = 3
"""How often all chunks may end, one submission after another, without a job that ended."""


class ArrayExecutor:
    """Chunks of an array, which choose their jobs themselves: what is submitted here is waited for.

    It takes up the chunks that an earlier process of the same plan has left.
    """

    device = "cpu"
    """Here nothing is trained; a chunk groups trainings as its own device lets it."""

    def __init__(
        self,
        context: ExecutorContext,
        options: SlurmOptions,
        control: ArrayControl | None = None,
        ask: Callable[[str], str] | None = None,
    ) -> None:
        self.context, self.options = context, options
        self.control = control or SlurmControl(options)
        self._ask = ask or (input if sys.stdin.isatty() else None)
        self.slots_per_chunk = options.slots(context.options)
        self.slots = options.chunks * self.slots_per_chunk
        self._pending: set[str] = set()
        self._ended: dict[str, deque[Outcome]] = defaultdict(deque)
        self._delivered: set[str] = set()
        self._refusals: list[str] = []
        self._watched_at = -math.inf
        self._fruitless = 0
        self._is_cancelled = False
        self._idle_since = time.monotonic()
        self._reasons: set[str] = set()
        left = self._left_session()
        self.session = left or Session.begin(context, options)
        if left:
            left.go_on(context, options)
        self.ledger = Ledger(self.session.folder, f"run.{time.time_ns()}")
        self._read()
        self._take_back()
        self._is_cancelled = False

    def _left_session(self) -> Session | None:
        for session in sessions_in(self.context.folder):
            living = session.living(self.control)
            if not living:
                continue
            if session.plan == plan_digest(self.context):
                say(f"goes on with {len(living)} chunk(s) of an earlier start: {_listed(living)}; "
                    "they keep its options, and new chunks have those of this one")  # fmt: skip
                return session
            say(
                f"{len(living)} chunk(s) of another plan of this run go on: {_listed(living)}; "
                f"transferbench cancel {self.context.folder} ends them"
            )
        return None

    def _take_back(self) -> None:
        """Have computed again what chunks told of as finished, and the store lost since."""
        ended = [job for job, outcomes in self._ended.items() if outcomes[-1].status == "ok"]
        for job in self.context.store.settle(set(ended) - self.context.done):
            del self._ended[job]
            self.ledger.write(Entry(job, self.ledger.rounds[job], "returned"))

    def free(self, _lane: str = "") -> int:
        """How many more jobs are waited for at once; chunks do not wait for them."""
        return max(0, self.slots - len(self._pending))

    def submit(self, work: Assignment) -> None:
        """Wait for jobs: chunks begin them as soon as all is done that they require."""
        for job in work.jobs:
            self._pending.add(job)
            if job in self._delivered and not self._ended[job]:
                # Its artefact, or one that it reads, was damaged since.
                self.ledger.write(Entry(job, self.ledger.rounds[job], "returned"))
            self._delivered.discard(job)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """The outcomes that chunks have told of.

        Raises: ``ExecutorError`` where chunks end again and again before a job does, or were
        cancelled.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._pending:
            self._read()
            if outcomes := self._take_ended():
                return outcomes
            self._watch()
            if time.monotonic() >= until:
                break
            time.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))
        return []

    def close(self) -> None:
        """End the chunks: none of their jobs is waited for any more."""
        self._cancel(self.session.living(self.control))

    def _cancel(self, living: Iterable[str]) -> None:
        try:
            self.control.cancel(living)
        except ExecutorError as error:  # what was computed is worth more
            say(str(error))
        else:
            self.session.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        living = self.session.living(self.control) if self.session.elements else {}
        if kind is None or not living or self._is_cancelled:
            self._cancel(living)
            return
        folder = self.context.folder
        if issubclass(kind, KeyboardInterrupt) and self._ask:
            answer = self._ask(f"{len(living)} chunk(s) compute on: leave or cancel them? [l/c] ")
            if answer.strip().lower().startswith("c"):
                self._cancel(living)
                return
        say(
            f"{len(living)} chunk(s) go on without this process ({_listed(living)}): the same "
            f"command takes them up, transferbench cancel {folder} ends them"
        )

    def _read(self) -> None:
        for entry in self.ledger.read():
            if not entry.job:
                if entry.message == CANCELLED.message:
                    self._is_cancelled = True
                elif entry.message not in self._refusals:
                    self._refusals.append(entry.message)
                    say(f"chunk {entry.writer}: {entry.message}")
            elif entry.status != "returned":
                self._fruitless = 0
                self._ended[entry.job].append(entry.outcome)
                if entry.status not in {"ok", "lost"}:
                    self._say_log(entry)

    def _say_log(self, entry: Entry) -> None:
        element = entry.writer.rpartition(".")[0]
        for path in sorted(self.session.logs.glob(f"{element}_0_log.err")):
            say(f"{self.context.jobs[entry.job].title}: the log of its chunk is {path}")

    def _take_ended(self) -> list[Outcome]:
        outcomes = []
        for job in [job for job in self._pending if self._ended.get(job)]:
            outcome = self._ended[job].popleft()
            outcomes.append(outcome)
            self._pending.discard(job)
            if outcome.status != "lost":  # which chunks take again without a word
                self._delivered.add(job)
        return outcomes

    def _watch(self) -> None:
        """Look at the chunks from time to time: tell what was lost, and submit what lacks."""
        if self._is_cancelled:
            raise ExecutorError(f"{CANCELLED.message}; what is finished is kept, and the same "
                "command goes on")  # fmt: skip
        if time.monotonic() - self._watched_at < WATCH_SECONDS:
            return
        self._watched_at = time.monotonic()
        self._write_losses()
        living = self.session.living(self.control)
        self._tell_waiting(living)
        claimable = sum(self.ledger.holder(job) is None for job in self._pending)
        wanted_chunks = min(self.options.chunks, math.ceil(claimable / self.slots_per_chunk))
        waiting = sum(not state.is_running for state in living.values())
        lacking = min(wanted_chunks - waiting, self.options.chunks - len(living))
        if lacking > 0:
            if not living:
                self._refuse_fruitless()
            self._begin(lacking)

    def _tell_waiting(self, living: Mapping[str, ElementState]) -> None:
        """Say once of each reason why none of the chunks has begun for long."""
        if not living or any(state.is_running for state in living.values()):
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > SILENCE_SECONDS:
            details = {state.detail or state.state for state in living.values()}
            if new := sorted(details - self._reasons):
                self._reasons |= details
                say(
                    f"none of {len(living)} chunk(s) has begun yet ({_listed(living)}): "
                    f"{'; '.join(new)}; transferbench cancel {self.context.folder} ends them"
                )

    def _write_losses(self) -> None:
        holders = {self.ledger.holder(job) for job in self._pending}
        writers = {holder for holder in holders if holder}
        gone = gone_writers(self.control, self.session.folder, writers)
        self._read()  # what they told before they went
        open_jobs = [job for job in self._pending if not self._ended.get(job)]
        write_losses(self.ledger, self.context.store, open_jobs, gone.get)
        self._read()

    def _refuse_fruitless(self) -> None:
        self._fruitless += bool(self.session.elements)
        if self._refusals or self._fruitless >= FRUITLESS:
            reasons = "; ".join(self._refusals) or "their logs say why"
            raise ExecutorError(
                f"all chunks ended, and jobs are left: {reasons} (logs in {self.session.logs})"
            )

    def _begin(self, n: int) -> None:
        chunk = Chunk(self.session.folder, self.session.context)
        with endings_held():  # chunks that nobody knows of could not be taken up, nor cancelled
            elements = self.control.submit(self.session.logs, chunk, n)
            self.session.elements += elements
            self.session.save()
        say(f"{n} chunk(s) submitted: {_listed(elements)}; their logs are in {self.session.logs}")


def _listed(elements: object) -> str:
    names = sorted(elements)  # type: ignore[call-overload]  # a mapping or a list of names
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def describe(folder: Path, control: ArrayControl | None = None) -> list[str]:
    """A line for each chunk of a run that lives."""
    control = control or SlurmControl(SlurmOptions())
    return [
        f"chunk {element}: {state.detail or state.state}; log {session.logs}/{element}_0_log.err"
        for session in sessions_in(folder)
        for element, state in session.living(control).items()
    ]


def cancel(folder: Path, control: ArrayControl | None = None) -> list[str]:
    """End all chunks of a run; returns their ids."""
    control = control or SlurmControl(SlurmOptions())
    ended: list[str] = []
    for session in sessions_in(folder):
        living = list(session.living(control))
        control.cancel(living)
        if living:  # a run that waits for them is told, too
            Ledger(session.folder, f"cancel.{time.time_ns()}").write(CANCELLED)
        session.end()
        ended += living
    return ended
