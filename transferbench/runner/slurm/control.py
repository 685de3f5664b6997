"""Slurm as a run uses it: arrays are submitted through submitit, looked at and cancelled.

``sacct`` needs accounting, which not every cluster has, and submitit asks it every ten minutes:
``scontrol`` tells the same at once, until the controller forgets a job (MinJobAge, 300 s).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from transferbench.errors import ExecutorError
from transferbench.runner.slurm.options import SlurmOptions

__all__ = ["ArrayControl", "Chunk", "ElementState", "SlurmControl", "elements_in", "own_states"]

GONE = "GONE"
"""The state of what neither the controller nor the accounting knows."""
ALIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
         "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "UNKNOWN"}  # fmt: skip
ENDED = re.compile("Invalid job id|already complet", re.IGNORECASE)
"""What scancel says of what is over."""
COMMAND_SECONDS = 60
"""After which a command of Slurm is not waited for: its controller is busy or down."""

Chunk = Callable[[], None]


class ElementState(NamedTuple):
    """Of an element of an array: ``restarts``, how often Slurm has begun it again.

    ``log``: the file that it writes to; empty where Slurm does not tell.
    """

    state: str
    restarts: int = 0
    detail: str = ""
    log: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ALIVE

    @property
    def is_running(self) -> bool:
        """Whether it has a node."""
        return self.state in {"RUNNING", "COMPLETING"}


class ArrayControl(Protocol):
    """What runs chunks elsewhere."""

    def submit(self, folder: Path, chunk: Chunk, n: int) -> list[str]:
        """Begin ``n`` chunks; returns their ids."""

    def states(self, elements: Iterable[str]) -> Mapping[str, ElementState]:
        """How they are; those of which nothing can be learned now are left out."""

    def cancel(self, elements: Iterable[str]) -> None:
        """End them. Raises: ``ExecutorError`` where they cannot be ended."""


class SlurmControl:
    """Slurm, as its commands on this machine reach it."""

    def __init__(self, options: SlurmOptions) -> None:
        self.options = options

    def submit(self, folder: Path, chunk: Chunk, n: int) -> list[str]:
        """One array of ``n`` elements, whose scripts and logs are in ``folder``.

        Raises: ``ExecutorError`` with what Slurm says.
        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # The run is begun again for lost jobs here, and by Slurm for lost nodes.
            executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=0)
            executor.update_parameters(**self.options.parameters())
            with executor.batch():
                jobs = [executor.submit(chunk) for _ in range(n)]
        except (FailedJobError, FailedSubmissionError, RuntimeError) as error:
            raise ExecutorError(
                f"Slurm does not take the array: {str(error).strip()}; see --executor-option"
            ) from error
        return [job.job_id for job in jobs]

    def states(self, elements: Iterable[str]) -> dict[str, ElementState]:
        """From scontrol, and from the accounting what that has forgotten."""
        by_array: dict[str, list[str]] = {}
        for element in elements:
            by_array.setdefault(element.partition("_")[0], []).append(element)
        states: dict[str, ElementState] = {}
        for array, own in by_array.items():
            text = _output("scontrol", "show", "job", "-o", array)
            if text is None:
                continue  # the controller does not answer
            found_states = elements_in(text)
            for element in own:
                states[element] = found_states.get(element) or _accounted(element)
        return states

    def cancel(self, elements: Iterable[str]) -> None:
        """End them, or take them out of the queue.

        Raises: ``ExecutorError`` where Slurm does not answer, or refuses.
        """
        if names := list(elements):
            try:
                result = _run("scancel", *names)
                refusal = result.stderr.strip() if result.returncode else ""
            except (OSError, subprocess.TimeoutExpired) as error:
                refusal = str(error)
            # What has ended by itself is no reason to complain.
            left = [line for line in refusal.splitlines() if not ENDED.search(line)]
            if left:
                raise ExecutorError(
                    f"the chunks {', '.join(names)} could not be cancelled: {'; '.join(left)}; "
                    "cancel them as the user, and on the cluster, that they compute for"
                )


def own_states(
    control: ArrayControl, session: Path, elements: Iterable[str]
) -> dict[str, ElementState]:
    """The states of chunks whose logs are in the folder ``session``.

    The controller of another cluster, or one that counts from the beginning again, may have given
    their ids to jobs that are none of this run.
    """
    states = dict(control.states(elements))
    for element, state in states.items():
        if state.log and session.name not in Path(state.log).parts:
            states[element] = ElementState(GONE, detail="Slurm has another job of its id")
    return states


def elements_in(text: str) -> dict[str, ElementState]:
    """The elements that ``scontrol show job -o`` tells of, by their ids such as 23_1."""
    states = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        if "JobState" not in fields:
            continue
        array, tasks = fields.get("ArrayJobId"), fields.get("ArrayTaskId")
        names = [fields["JobId"]]
        if array and tasks:
            names = [f"{array}_{task}" for task in _numbers(tasks)]
        restarts = int(fields.get("Restarts", "0"))
        detail = f"{fields['JobState']}, ExitCode={fields.get('ExitCode', '')}"
        if fields.get("Reason", "None") != "None":
            detail += f", Reason={fields['Reason']}"
        state = ElementState(fields["JobState"], restarts, detail, fields.get("StdErr", ""))
        states.update(dict.fromkeys(names, state))
    return states


def _numbers(ranges: str) -> list[int]:
    """The numbers in ranges such as 0-3,7%2."""
    numbers: list[int] = []
    for part in ranges.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        step = 1
        if ":" in last:
            last, _, by = last.partition(":")
            step = int(by)
        numbers += range(int(first), int(last or first) + 1, step)
    return numbers


def _accounted(element: str) -> ElementState:
    text = _output("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", element) or ""
    state, _, code = text.strip().partition("|")
    if not state:
        return ElementState(GONE, detail="no longer known to Slurm")
    return ElementState(state.split()[0], detail=f"{state}, ExitCode={code}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # a command of Slurm
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


def _output(*command: str) -> str | None:
    """What a command prints; "" where Slurm does not know the job, None without an answer."""
    try:
        result = _run(*command)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode and "Invalid job id" not in result.stderr:
        return None
    return result.stdout
