"""Trainings that go on together: one step of each at a time, captured in one graph.

Each has its own weights, data, rates and generators, and its own end: one that fails or diverges
does not touch the others.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeAlias, TypeVar

import torch

from transferbench.errors import is_out_of_memory
from transferbench.interrupts import ending_requested
from transferbench.metrics import Evaluation
from transferbench.training.captured import (
    CannotCaptureError,
    CapturedPasses,
    CapturedSteps,
    CompiledError,
    GroupMember,
    pass_size,
)
from transferbench.training.evaluation import scored
from transferbench.training.generators import OwnGenerators
from transferbench.training.graph import MakeGraph
from transferbench.training.loop import Request
from transferbench.training.step import StepDraw

__all__ = ["Ended", "Group"]

ResultT = TypeVar("ResultT")

Work: TypeAlias = Generator[Request, Evaluation | None, ResultT]
"""Anything that trains networks on its way to a result."""

REPLAYS = 4
"""Passes of an evaluation from which on a capture pays, which takes as long as three of them."""


class Ended(Generic[ResultT]):
    """A work of a group: it goes on from request to request; then ``result``, or its ``error``."""

    def __init__(self, work: Work[ResultT], device: torch.device) -> None:
        self._work = work
        # Its own context variables: what one work enters, the others are not in.
        self._context = copy_context()
        self.generators = OwnGenerators(device)
        self.request: Request | None = None
        self.result: ResultT | None = None
        self.error: BaseException | None = None
        self.go_on()

    def go_on(self, evaluation: Evaluation | None = None) -> None:
        """Go on to the next request, or to the end."""
        self._advance(lambda: self._work.send(evaluation))

    def compute(self) -> None:
        """Compute the request eagerly, and go on."""
        request = self.awaited

        def serve() -> Evaluation | None:
            return request.training.serve(request.work)

        try:
            with self.generators.active():
                evaluation = self._context.run(serve)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the work's, which raises it again
            self.fail(error)
        else:
            self.go_on(evaluation)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` where the work waits."""
        self._advance(lambda: self._work.throw(error))

    @property
    def awaited(self) -> Request:
        """The request that the work waits for. Raises: ``RuntimeError`` where it has ended."""
        if self.request is None:
            raise RuntimeError("this work has ended")
        return self.request

    @property
    def member(self) -> GroupMember:
        return GroupMember(self.awaited.training, self.generators)

    def _advance(self, step: Callable[[], Request]) -> None:
        self.request = None
        try:
            with self.generators.active():
                self.request = self._context.run(step)
        except StopIteration as end:
            self.result = end.value
        except (Exception, SystemExit) as error:  # noqa: BLE001  # of one work: the others go on
            self.error = error
        except KeyboardInterrupt as error:
            if not ending_requested():
                raise
            # The others are kept first, as this one was: ``Group`` raises it then.
            self.error = error


class Group(Generic[ResultT]):
    """Runs works together, at most ``size`` at a time; fewer where memory runs out.

    ``say``: called with why a network is trained eagerly. ``compared``: whether replays must equal
    eager steps bit for bit, which holds where kernels are deterministic. ``captures``: whether a
    graph is tried at all.
    """

    def __init__(
        self,
        device: torch.device,
        size: int,
        make_graph: MakeGraph,
        say: Callable[[str], None],
        *,
        compared: bool = True,
        captures: bool = True,
    ) -> None:
        self.size = size
        self._device, self._make_graph, self._say = device, make_graph, say
        self._compared = compared
        self._eager = not captures

    def run(self, works: Sequence[Work[ResultT]]) -> list[Ended[ResultT]]:
        """How each work ended, in their order."""
        members: list[Ended[ResultT]] = []
        try:
            members.extend(Ended(work, self._device) for work in works)
            while alive := _alive(members):
                self._run(alive[: self.size])
        except BaseException as error:
            # An interrupt: what each work has begun is put in order before this process ends.
            for member in _alive(members):
                with suppress(BaseException):
                    member.fail(error)
            raise
        return members

    def _run(self, members: Sequence[Ended[ResultT]]) -> None:
        """Go on with these until they have ended, or until memory runs out in a capture."""
        captured: dict[str, Any] = {}
        while alive := _alive(members):
            if evaluated := [each for each in alive if not isinstance(each.awaited.work, StepDraw)]:
                self._evaluate(evaluated, captured)
            elif not self._step(alive, captured):
                return

    def _step(self, members: Sequence[Ended[ResultT]], captured: dict[str, Any]) -> bool:
        """Take a step of each; returns False where memory ran out and fewer are to go on."""
        requests = [each.awaited.work for each in members]
        draws = [request for request in requests if isinstance(request, StepDraw)]
        owners, steps = captured.get("", ((), None))
        if not self._eager and (owners != tuple(members) or not steps.fits(draws)):
            captured.pop("", None)
            del steps
            steps = self._captured(
                lambda: CapturedSteps([each.member for each in members], draws, self._make_graph,
                                      compared=self._compared)
            )  # fmt: skip
            captured[""] = tuple(members), steps
            if steps is None and (not self._eager or len(members) > self.size):
                return False
        if self._eager:
            for each in members:
                each.compute()
            _end_if_kept(members)
            return True
        raised = steps.take(draws)
        for index, each in enumerate(members):
            if index in raised:
                each.fail(raised[index])
            else:
                each.go_on()
        _end_if_kept(members)
        return True

    def _captured(self, capture: Callable[[], CapturedSteps]) -> CapturedSteps | None:
        """The captured steps; None where this group is to be smaller, or eager."""
        try:
            return capture()
        except CompiledError:
            self.size, self._eager = 1, True
        except Exception as error:  # noqa: BLE001  # eager steps raise it again, if it is the work's
            if is_out_of_memory(error) and self.size > 1:
                self.size //= 2
                self._say(f"memory runs out: {self.size} trainings at a time from here on")
            else:
                self._eager = True
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                if isinstance(error, CannotCaptureError):
                    reason = str(error)
                self._say(f"its steps are not captured, which is slower on a GPU ({reason})")
        # Outside the handler, where nothing holds the tensors of the failed capture any more.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _evaluate(self, members: Sequence[Ended[ResultT]], captured: dict[str, Any]) -> None:
        """Evaluate a split of each: of all together where all wait for the same."""
        split = str(members[0].awaited.work)
        together = [each for each in members if each.awaited.work == split]
        passes = self._passes(together, split, captured)
        try:
            outputs = None if passes is None else passes.logits()
        except Exception:  # noqa: BLE001  # evaluated eagerly, it is raised again, and whose it is
            outputs = None
            captured[split] = tuple(together), None
        if outputs is None:
            for each in together:
                each.compute()
            return
        for each, logits in zip(together, outputs, strict=True):
            training = each.awaited.training
            with each.generators.active():
                evaluation = scored(logits, training.splits[split], training.data)
            each.go_on(evaluation)

    def _passes(
        self, members: Sequence[Ended[ResultT]], split: str, captured: dict[str, Any]
    ) -> CapturedPasses | None:
        owners, passes = captured.get(split, ((), None))
        compiled = any(each.awaited.training.execution.compile for each in members)
        if self._eager or compiled:
            return None
        if owners != tuple(members):
            captured.pop(split, None)
            passes = None
            if _many_passes(members, split):
                try:
                    passes = CapturedPasses([each.member for each in members], split,
                                            self._make_graph, compared=self._compared)  # fmt: skip
                except Exception:  # noqa: BLE001  # evaluated eagerly; what the network raises, again
                    passes = None
                    # Whose graphs draw from the generators that have been renewed.
                    for key in [key for key, (_, graph) in captured.items() if graph is not None]:
                        del captured[key]
            captured[split] = tuple(members), passes
        return passes  # type: ignore[no-any-return]  # a dictionary of steps and passes


def _end_if_kept(members: Sequence[Ended[Any]]) -> None:
    """Pass on the interrupt with which all members have ended, now that each is kept."""
    for each in members:
        if isinstance(each.error, KeyboardInterrupt):
            raise each.error


def _alive(members: Sequence[Ended[ResultT]]) -> list[Ended[ResultT]]:
    return [member for member in members if member.request is not None]


def _many_passes(members: Sequence[Ended[Any]], split: str) -> bool:
    """Whether all splits have one size, and enough whole batches for a capture to pay."""
    trainings = [each.awaited.training for each in members]
    sizes = {len(training.splits[split].pipeline) for training in trainings}
    first = trainings[0]
    whole = min(sizes) // pass_size(first, split)
    return len(sizes) == 1 and whole * len(first.schedules[split]) >= REPLAYS
