"""Trainings of one shape that one worker runs together."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial
from typing import TypeAlias

import torch

from transferbench.engine.resources import Machine
from transferbench.identity import digest
from transferbench.metrics import Evaluation
from transferbench.plan import Job
from transferbench.store import WaitEvent, Waiting
from transferbench.training.graph import graphs_of
from transferbench.training.group import Group
from transferbench.training.loop import Request

__all__ = ["Groups", "Steps"]

Steps: TypeAlias = Generator[Request, Evaluation | None, None]
"""The work of a job, which waits for each step and each evaluation of its training."""


class Groups:
    """Runs trainings together, as many at a time as memory holds of their shape.

    ``announce``: called once for each network that is trained eagerly, or in smaller groups.
    """

    def __init__(self, device: torch.device, machine: Machine, announce: Waiting) -> None:
        self._device, self._machine, self._announce = device, machine, announce
        self._sizes: dict[str, int] = {}
        self._said: set[str] = set()

    def run(self, first: Job, works: Mapping[str, Steps]) -> dict[str, BaseException | None]:
        """What each work raised; ``first``: a job with the shape of all."""
        shape = digest([first.payload[key] for key in ("backbone", "image")])
        group: Group[None] = Group(
            self._device,
            self._sizes.get(shape, self._machine.group),
            graphs_of(self._device),
            partial(self._say, first.payload["backbone"]["name"]),
            # Other kernels may sum in another order each time.
            compared=not self._machine.fast_kernels,
        )
        ended = group.run(list(works.values()))
        self._sizes[shape] = group.size
        return dict(zip(works, [each.error for each in ended], strict=True))

    def _say(self, backbone: str, reason: str) -> None:
        if (text := f"{backbone}: {reason}") not in self._said:
            self._said.add(text)
            self._announce(WaitEvent("announce", text))
