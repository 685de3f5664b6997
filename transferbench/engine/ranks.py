"""One training on several processes of this machine, which are started as torchrun starts them.

The worker has the job and its draft, and starts the processes; each trains its share of every
step, and the first, of rank 0, writes what is kept. The end of one ends them all.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import distributed

from transferbench.engine.resources import Machine
from transferbench.errors import LostProcessError
from transferbench.interrupts import ENDING, interrupt
from transferbench.plan import Job
from transferbench.store import Draft

__all__ = ["RankedJob", "joined", "lost_another", "on_ranks"]

TIMEOUT = timedelta(minutes=10)
"""For which a process waits for the others: longer than one may read, evaluate or write."""
POLL_SECONDS = 0.5
TASK, FACTS = "task", "facts.json"

# As of a worker: the import path comes first. What torch says of each step is no news.
_BOOTSTRAP = (
    "import json, os, pathlib, sys; os.environ['TORCH_CPP_LOG_LEVEL'] = 'ERROR'; "
    "folder = pathlib.Path(sys.argv[1]); sys.path[:] = json.loads((folder / 'path').read_text()); "
    "from transferbench.engine.jobs import serve_rank; serve_rank(folder)"
)
_FLAGS = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # no public list


class RankedJob(NamedTuple):
    """A training for several processes. ``draft``, ``unfinished``: its folders in the store."""

    machine: Machine
    job: Job
    draft: Path
    unfinished: Path


class _Failure(NamedTuple):
    """What a process raised, when, and where."""

    error: BaseException
    trace: str
    at: float


def on_ranks(task: RankedJob) -> Mapping[str, Any]:
    """Train on ``task.machine.processes`` processes; returns the facts of the first.

    Raises: what one of them raised; ``LostProcessError`` where one ended otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="transferbench-ranks-") as name:
        folder = Path(name)
        (folder / TASK).write_bytes(pickle.dumps(task))
        (folder / "path").write_text(json.dumps([str(Path(path).absolute()) for path in sys.path]))
        _launch(folder, task.machine.processes)
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
        return facts


def _launch(folder: Path, count: int) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, run_id=folder.name,
        # As torchrun --standalone: on a free port of this machine.
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
        # By default torch makes a folder that nobody removes.
        logs_specs=DefaultLogsSpecs(str(folder / "logs")),
    )  # fmt: skip
    command = [*_FLAGS, "-P", "-c", _BOOTSTRAP, str(folder)]
    try:
        with _quiet(), _signals_restored():
            elastic_launch(config, sys.executable)(*command)
    except SignalException as error:
        # The first process was told, and has kept the training.
        interrupt(error.sigval, None)
    except ChildFailedError as error:
        exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        _raise_cause(folder, exit_codes)


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch logs of the end of a process is in the error that is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Undo the handlers that torch leaves; a scheduler's signals are told to the first process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [*ENDING, signal.SIGQUIT]
    handlers = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGTERM, interrupt)  # until torch handles it
    signal.signal(signal.SIGUSR2, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _raise_cause(folder: Path, exit_codes: Mapping[int, int]) -> NoReturn:
    """Raise what one process raised by itself, or that one is gone."""
    failures = [pickle.loads(path.read_bytes()) for path in folder.glob("failure-*")]  # noqa: S301  # our own processes wrote them
    own = [failure for failure in failures if not lost_another(failure.error)]
    if own:
        first = min(own, key=lambda failure: failure.at)
        first.error.add_note(first.trace)
        raise first.error
    manner = ", ".join(
        f"process {rank} was killed by signal {-code}" if code < 0 else
        f"process {rank} ended with exit code {code}"
        for rank, code in sorted(exit_codes.items())
    )  # fmt: skip
    raise LostProcessError(f"a training on several processes was cut off: {manner}")


def lost_another(error: BaseException) -> bool:
    """Whether a process failed since another one was gone, or did not answer in time."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


@contextmanager
def joined(folder: Path) -> Iterator[tuple[RankedJob, Draft]]:
    """In a process that ``on_ranks`` started: its job, while all of them are connected.

    Only the first writes to the draft that is kept; it alone is told of signals.
    """
    rank = int(os.environ["RANK"])
    os.dup2(2, 1)  # standard output is of the run's results
    _end_with_others(rank)
    try:
        task: RankedJob = pickle.loads((folder / TASK).read_bytes())  # noqa: S301  # our parent wrote it
        task = task._replace(machine=task.machine._replace(rank=rank))
        draft = Draft(task.draft if rank == 0 else folder / f"draft-{rank}", task.unfinished,
                      already_done=False)  # fmt: skip
        on_card = task.machine.device.startswith("cuda")
        if on_card:
            torch.cuda.set_device(rank)
        distributed.init_process_group("nccl" if on_card else "gloo", timeout=TIMEOUT)
        yield task, draft
        if rank == 0:
            (folder / FACTS).write_text(json.dumps(draft.facts))
        distributed.destroy_process_group()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # raised again where the job is
        _write_failure(folder / f"failure-{rank}", error)
        os._exit(1)
    except KeyboardInterrupt:
        os._exit(1)  # nothing waits for the others


def _write_failure(path: Path, error: BaseException) -> None:
    trace, at = "".join(traceback.format_exception(error)), time.monotonic()
    try:
        content = pickle.dumps(_Failure(error, trace, at))
        pickle.loads(content)  # noqa: S301  # as it is read: some errors cannot be
    except Exception:  # noqa: BLE001  # of any class
        text = traceback.format_exception_only(error)[-1].strip()
        content = pickle.dumps(_Failure(RuntimeError(text), trace, at))
    path.with_suffix(".partial").write_bytes(content)
    path.with_suffix(".partial").replace(path)


def _end_with_others(rank: int) -> None:
    """Let this process end with the one that started it, whatever it waits for."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # not from a terminal: each is in its own session
    if rank:
        # The first keeps the training at the end of a step, for which it needs the others.
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
