"""The options of the executor ``slurm``, and what they mean for sbatch."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from transferbench.errors import ExecutorError
from transferbench.runner.executors.spec import ExecutorOptions
from transferbench.runner.executors.this_machine import refuse_shared_cards
from transferbench.runner.options import Options

__all__ = ["SlurmOptions"]


NAMED = {"partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint",
         "time": "time", "cpus-per-task": "cpus", "gpus": "gpus", "gpus-per-node": "gpus",
         "mem": "mem_gb", "signal": "signal_seconds", "requeue": "requeue"}  # fmt: skip
"""Options of sbatch that have an option of the executor."""
FIXED = {"array", "error", "input", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output",
         "parsable", "test-only", "wait", "wrap"}  # fmt: skip
"""Options of sbatch that decide how chunks begin, and where their logs are."""


def _minutes(value: Any) -> Any:
    """Minutes of a time as sbatch takes it: minutes, H:MM:SS, D-H, D-H:MM or D-H:MM:SS."""
    if not isinstance(value, str) or value.isdigit():
        return value
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value)
    if match is None:
        raise ValueError("write minutes, H:MM:SS or D-H:MM:SS")
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] is None and match[4] is None:  # MM:SS
        return first + (second > 0)
    return days * 1440 + first * 60 + second + (third > 0)


def _lines(value: Any) -> Any:
    return tuple(line for line in value.splitlines() if line) if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """``mail-type=END,reservation=x`` as a mapping.

    Raises: ``ValueError`` for what other options say, or chunks rest on.
    """
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part]
        if any(not sign for _, sign, _ in pairs):
            raise ValueError("write KEY=VALUE,KEY=VALUE; in a file of settings, lines KEY: VALUE")
        value = {key: text for key, _, text in pairs}
    if not isinstance(value, dict):
        return value
    for key in value:
        name = str(key).strip("-").replace("_", "-")
        if name in FIXED:
            raise ValueError(f"{name} is set by the executor, and cannot be changed")
        if name in NAMED:
            raise ValueError(f"for {name} there is the option {NAMED[name]}")
    return {str(key).strip("-").replace("-", "_"): value[key] for key in value}


class SlurmOptions(ExecutorOptions):
    """What is requested of Slurm for each chunk, an element of the array."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Annotated[int, BeforeValidator(_minutes)] = Field(60, ge=1)
    """Minutes, or a time as sbatch takes it."""
    chunks: int = Field(8, ge=1, le=1000)
    """Elements of the array that may exist at once."""
    cpus: int = Field(1, ge=1)
    """Of a chunk; without GPUs that is how many processes it runs at once."""
    gpus: int = Field(0, ge=0)
    """Of a chunk."""
    slots_per_gpu: int = Field(1, ge=1)
    mem_gb: float | None = Field(None, gt=0)
    signal_seconds: int = Field(90, ge=1)
    """Before the end of its time a chunk is told, keeps its trainings and gives its jobs back."""
    idle_seconds: float = Field(60, ge=0)
    """After which a chunk without a job that it could begin ends."""
    requeue: bool = True
    """Whether a chunk whose time is over has itself queued again."""
    setup: Annotated[tuple[str, ...], BeforeValidator(_lines)] = ()
    """Lines of shell that run first, such as module load cuda."""
    sbatch: Annotated[dict[str, str | int | float | bool], BeforeValidator(_pairs)] = Field(
        default_factory=dict
    )
    """Further options of sbatch: reservation=x,mail-type=END. True is one without a value."""

    def slots(self, options: Options) -> int:
        """How many jobs a chunk runs at once, each on as many GPUs as ``options`` give to it.

        Raises: ``ExecutorError`` where a chunk has no whole number of such sets.
        """
        refuse_shared_cards(options, self.slots_per_gpu)
        count = options.gpus_per_job
        if self.gpus % count:
            more = math.ceil(self.gpus / count) * count
            raise ExecutorError(
                f"gpus={self.gpus} of a chunk are no whole number of sets of {count}, which "
                f"--gpus-per-job {count} gives to each training; use gpus={more}"
            )
        if not self.gpus and self.cpus < count:
            raise ExecutorError(
                f"cpus={self.cpus} of a chunk are too few for the {count} processes that "
                f"--gpus-per-job {count} gives to each training; use cpus={count} or gpus={count}"
            )
        training = self.gpus // count * self.slots_per_gpu
        return options.jobs or (max(self.cpus, training) if self.gpus else self.cpus // count)

    def parameters(self) -> dict[str, Any]:
        """As submitit takes them."""
        more = {key: value for key, value in self.sbatch.items() if value is not False}
        named = {
            "partition": self.partition, "account": self.account, "qos": self.qos,
            "constraint": self.constraint, "mem": self.mem_gb and f"{self.mem_gb * 1024:.0f}MB",
            "gpus_per_node": self.gpus or None, "setup": list(self.setup) or None,
            "additional_parameters": {"requeue": True, **more},
        }  # fmt: skip
        return {
            "job_name": "transferbench",
            "time": self.time,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "signal_delay_s": self.signal_seconds,
            **{key: value for key, value in named.items() if value is not None},
        }
