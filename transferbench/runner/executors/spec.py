"""What an executor declares, and what it is built for.

A distribution offers an executor by an entry point of group ``transferbench.executors``, whose
value is an ``ExecutorSpec``. Those that come with transferbench are offered in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field

from transferbench.plan import Job
from transferbench.runner.executors import Executor
from transferbench.runner.executors.worker import report_waiting
from transferbench.runner.options import Options
from transferbench.specs import Frozen, Name
from transferbench.store import Store

if TYPE_CHECKING:
    from transferbench.engine.resources import Machine

__all__ = ["ExecutorContext", "ExecutorOptions", "ExecutorSpec", "NoOptions", "StartWorker"]

StartWorker: TypeAlias = Callable[[], Callable[[Any], None]]
"""Called once in each worker; what it returns runs one job. It can be pickled."""

GPU_GROUP = 8
"""Small trainings that fill a card: more at once gain nothing (measured on an H100 and an H200)."""


class ExecutorOptions(Frozen):
    """Base class of an executor's options: subclass it; a field has a type, bounds, a default.

    Texts of the command line are converted to the types of the fields.
    """

    model_config = ConfigDict(allow_inf_nan=False)


class NoOptions(ExecutorOptions):
    """An executor without options."""


@dataclass(frozen=True)
class ExecutorContext:
    """What an executor is built for; it can be pickled.

    ``options``: those of the run. ``machine``: what a worker needs, but for its device.
    ``jobs``: all of the plan. ``done``: those that are not to be computed. ``folder``: of the
    run, where an executor may keep what it needs to find its workers again.
    """

    options: Options
    machine: Machine
    store: Store
    folder: Path
    jobs: Mapping[str, Job] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    turns: Mapping[str, int] = field(default_factory=dict)

    def group_size(self, device: str) -> int:
        """How many trainings of one shape run together on a device, such as ``cuda``."""
        if self.options.gpus_per_job > 1:
            return 1
        return self.options.group or (GPU_GROUP if device.startswith("cuda") else 1)

    def start(self, device: str, slots: int = 1, group: int | None = None) -> StartWorker:
        """What a worker runs first; ``slots``: the workers that share the memory of its node.

        ``group``: trainings of one shape together, where not as many as the device holds.
        """
        from transferbench.engine.jobs import start_engine

        group = self.group_size(device) if group is None else group
        machine = self.machine._replace(device=device, slots=slots, group=group)
        return partial(start_engine, machine, report_waiting)


class ExecutorSpec(Frozen):
    """An executor as it is offered.

    ``modules``: those that must be importable; ``install``: the command that installs them.
    ``remote``: its jobs run on other machines, whose device and packages are looked at there.
    ``build``: called with the context and the options, an object of ``options``.
    ``describe``: a line for each worker of the run in a folder that goes on without the process
    that began it; ``cancel``: ends these and returns their names.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: Name
    summary: Annotated[str, Field(min_length=1)]
    build: Callable[[ExecutorContext, Any], Executor]
    options: type[ExecutorOptions] = NoOptions
    modules: tuple[str, ...] = ()
    install: str = ""
    remote: bool = False
    describe: Callable[[Path], list[str]] = lambda _: []
    cancel: Callable[[Path], list[str]] = lambda _: []
