"""A worker process: runs the jobs that arrive through a pipe, until its parent ends it or is gone.

The parent starts it with ``COMMAND`` and sends, in this order: its ``sys.path``, the pickled
start, then lists of (job, pickled payload) pairs that it runs together, and None to end it. Back
come outcomes, each a line of JSON: whatever else a plugin writes there can neither be taken for one
nor keep the parent waiting.
The parent's ``__main__`` is never imported: scripts need no ``__main__`` guard.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeAlias

from transferbench.runner.executors import Outcome
from transferbench.runner.executors.inprocess import attempt, attempt_all
from transferbench.runner.messages import say
from transferbench.store import WaitEvent
from transferbench.streams import guarded_streams

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    Pipe: TypeAlias = Connection[Any, Any]

__all__ = ["COMMAND", "START", "report_waiting", "serve"]

Inbox: TypeAlias = SimpleQueue[list[tuple[str, bytes]] | None]

START = ""
"""Instead of a job's id in the outcome of a worker's start."""

# The path comes first: the parent may have found this package on a path of its own. -P keeps
# files of the working directory from being imported instead of the standard library.
_BOOTSTRAP = (
    "import sys; from multiprocessing.connection import Connection; "
    "pipe = Connection(int(sys.argv[1])); sys.path[:] = pipe.recv(); "
    f"from {__name__} import serve; serve(pipe)"
)
# As multiprocessing does, workers take over -W, -X, -O and the like.
_FLAGS = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # no public list
COMMAND = (sys.executable, *_FLAGS, "-P", "-c", _BOOTSTRAP)
"""Starts a worker; the file descriptor of its end of the pipe follows."""


_parents: list[Pipe] = []
"""The pipe to the parent, in a worker process."""


def report_waiting(event: WaitEvent) -> None:
    """Tell the parent that a job waits, or announce it here where there is none.

    The time limit does not count the wait.
    """
    if _parents:
        _send(_parents[0], event)
    elif event.what == "announce":
        say(event.text)


def serve(pipe: Pipe) -> None:
    """Run what arrives through the pipe until None does."""
    # The parent blocks SIGINT while it starts a worker, which inherits that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with guarded_streams():
        # Stdout belongs to the parent's results; what jobs print must not wait in a buffer either.
        sys.stdout = sys.stderr
        start: bytes = pipe.recv()
        _parents[:] = [pipe]
        inbox: Inbox = SimpleQueue()
        Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
        # The listener handles a parent that is gone; an interrupt ends the worker.
        with suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
            _work(pipe, inbox, start)


def _work(pipe: Pipe, inbox: Inbox, start: bytes) -> None:
    process = os.getpid()
    run: list[Callable[[Any], None]] = []
    _send(pipe, attempt(START, lambda: run.append(_unpickle(start)())))
    while run and (message := inbox.get()) is not None:
        outcomes = _attempt_pickled(message, run[0])
        if os.getpid() != process:  # a child that a plugin forked and did not end
            os._exit(1)
        for outcome in outcomes:
            _send(pipe, outcome)


def _send(pipe: Pipe, message: Outcome | WaitEvent) -> None:
    line = f"{json.dumps(message)}\n".encode()
    while line:
        line = line[os.write(pipe.fileno(), line) :]


def _attempt_pickled(message: list[tuple[str, bytes]], run: Callable[[Any], None]) -> list[Outcome]:
    if len(message) == 1:
        job, payload = message[0]
        return [attempt(job, lambda: run(_unpickle(payload)))]
    return attempt_all({job: _unpickle(payload) for job, payload in message}, run)


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
