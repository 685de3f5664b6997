"""The rows of the table of a card, the scale of what is measured, and its clock."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from transferbench.engine.kernels import choose_kernels


class BenchmarkScale(NamedTuple):
    """Sizes of networks, images and rounds.

    ``small``, ``large``: backbones; ``group``: trainings in one graph; ``compiles``: whether torch
    compiles here in the time of a benchmark.
    """

    device: str
    small: tuple[str, ...]
    small_steps: int
    group: int
    large: tuple[str, ...]
    large_batch: int
    large_side: int
    large_classes: int
    large_steps: int
    evaluated: int
    layers: int
    features: int
    images: int
    rounds: int
    compiles: bool


CARD = BenchmarkScale(
    device="cuda", small=("timm/test_resnet", "fixup-resnet14"), small_steps=600, group=8,
    large=("timm/resnet50", "fixup-resnet50"), large_batch=256, large_side=224, large_classes=1000,
    large_steps=30, evaluated=4000, layers=17, features=4096, images=256, rounds=20, compiles=True,
)  # fmt: skip
TINY = BenchmarkScale(
    device="cpu", small=("fixup-resnet8",), small_steps=4, group=2, large=("fixup-resnet8",),
    large_batch=4, large_side=16, large_classes=5, large_steps=2, evaluated=8, layers=2,
    features=8, images=4, rounds=1, compiles=False,
)  # fmt: skip


class MeasuredRow(NamedTuple):
    """A measured value; ``times``: in units of that of ``base``, higher is better.

    ``goal``: the least value, or the least ``times``; ``met``: whether it is reached.
    """

    network: str
    what: str
    value: float | None
    unit: str
    base: str = ""
    times: float | None = None
    goal: str = ""
    met: str = ""


def measured(
    network: str, what: str, value: float, unit: str, goal: float | None = None
) -> MeasuredRow:
    """A row; ``goal``: the least value."""
    row = MeasuredRow(network, what, round(value, 1), unit)
    if goal is None:
        return row
    return row._replace(goal=f">= {goal:,.0f}", met="yes" if value >= goal else "no")


def compared(row: MeasuredRow, base: MeasuredRow, goal: float | None = None) -> MeasuredRow:
    """``row`` in units of ``base``; ``goal``: the least number of times."""
    if not row.value or not base.value:
        return row
    times = row.value / base.value
    row = row._replace(base=base.what, times=round(times, 2))
    if goal is None:
        return row
    own = f"{row.goal} and " if row.goal else ""
    met = "yes" if times >= goal and row.met != "no" else "no"
    return row._replace(goal=f"{own}>= {goal:g} times", met=met)


def skipped(network: str, what: str, reason: str) -> MeasuredRow:
    """A row of what is not measured here."""
    return MeasuredRow(network, f"{what}: skipped, {reason}", None, "")


def kernels(scale: BenchmarkScale, *, fast: bool) -> None:
    """Let this process compute with deterministic kernels, or with the fastest."""
    torch.use_deterministic_algorithms(mode=False)
    choose_kernels(scale.device, fast=fast)


def seconds_of(work: Callable[[], object], scale: BenchmarkScale) -> float:
    """The duration of ``work``, with all that the device computes for it."""
    synchronise(scale)
    began = time.perf_counter()
    work()
    synchronise(scale)
    return time.perf_counter() - began


def synchronise(scale: BenchmarkScale) -> None:
    if scale.device == "cuda":
        torch.cuda.synchronize()
