"""The executor ``slurm``: one array of chunks, each with workers of its own on a node."""

from __future__ import annotations

from transferbench.runner.executors.spec import ExecutorSpec
from transferbench.runner.slurm.executor import ArrayExecutor, cancel, describe
from transferbench.runner.slurm.options import SlurmOptions

__all__ = ["SLURM"]

SLURM = ExecutorSpec(
    name="slurm",
    summary="An array of Slurm, whose elements take jobs of the run as long as there are some.",
    options=SlurmOptions,
    build=ArrayExecutor,
    modules=("submitit",),
    install="pip install 'transferbench[slurm]'",
    remote=True,
    describe=describe,
    cancel=cancel,
)
