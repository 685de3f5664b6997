"""The steps, and the passes of evaluation, of a group of trainings in one graph.

Before the capture everything is done a few times eagerly, and the graph's replays must give the
same: what a network hides from a capture (a counter, a draw of the host) shows here. Then weights,
buffers, the optimizer's state and the generators are put back in place.

Shape letters: N images, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from transferbench.data.pipeline import BatchDraw
from transferbench.networks.modules import eval_mode
from transferbench.training.execution import autocast
from transferbench.training.generators import GeneratorStates, OwnGenerators
from transferbench.training.graph import Graph, MakeGraph
from transferbench.training.inputs import FixedInputs
from transferbench.training.loop import Training
from transferbench.training.step import StepDraw, TrainingStep
from transferbench.training.tasks import DataSplit

__all__ = ["CannotCaptureError", "CapturedPasses", "CapturedSteps", "CompiledError", "GroupMember",
           "pass_size"]  # fmt: skip

Attribute: TypeAlias = tuple[str, str]
"""A module by its path, and a name in it."""
Value: TypeAlias = float | Tensor

WARM_UPS = 2
"""The second step of an optimizer is the first that is like all others."""


class CannotCaptureError(Exception):
    """Why the work of a network cannot be captured."""


class CompiledError(Exception):
    """A compiled network is not captured: one large step at a time fills a card."""


class GroupMember(NamedTuple):
    """A training of a group, with the global generators as it sees them."""

    training: Training
    generators: OwnGenerators


class CapturedSteps:
    """One step of each member, captured together.

    Raises: ``CannotCaptureError``; what torch raises where memory runs out.
    """

    def __init__(
        self,
        members: Sequence[GroupMember],
        draws: Sequence[StepDraw],
        make_graph: MakeGraph,
        *,
        compared: bool,
    ) -> None:
        steps = [member.training.stepping for member in members]
        for step in steps:
            if step.scaler.is_enabled():
                raise CannotCaptureError("fp16 scales its loss on the host")
            if step.execution.compile:
                raise CompiledError
        self._inputs = FixedInputs(draws, steps[0].execution.device)
        works = [_step_of(step, draw) for step, draw in zip(steps, self._inputs.draws, strict=True)]
        generators = [member.generators for member in members]
        before = [_Before(step, own) for step, own in zip(steps, generators, strict=True)]
        self._graph = make_graph()
        try:
            self._warm_up(_drawing(generators, works), before)
            expected = [_values(step) for step in steps] if compared else []
            for each in before:
                each.put_back()
            _capture(self._graph, works, generators)
            for _ in range(WARM_UPS if compared else 0):
                self._graph.replay()
            if compared:
                _compare(expected, [_values(step) for step in steps], "a step")
        except BaseException:
            for each in before:
                each.put_attributes_back()
            raise
        finally:
            for each in before:
                each.put_back()

    def _warm_up(self, works: Sequence[Callable[[], None]], before: Sequence[_Before]) -> None:
        """Take the first steps eagerly. Raises: ``CannotCaptureError`` where steps are counted."""
        numbers: list[list[Mapping[Attribute, Value]]] = []
        for _ in range(WARM_UPS):
            self._graph.warm_up(works)
            numbers.append([each.attributes(int, float) for each in before])
        # Of the last two: the first step may prepare what the others use.
        for earlier, later in zip(*numbers[-2:], strict=True):
            _refuse_counts(earlier, later)

    def fits(self, draws: Sequence[StepDraw]) -> bool:
        """Whether these draws can be filled in."""
        return self._inputs.fits(draws)

    def take(self, draws: Sequence[StepDraw]) -> dict[int, Exception]:
        """Take the step of each member; returns what they raised, by their place."""
        self._inputs.fill(draws)
        return self._graph.replay()


class CapturedPasses:
    """The passes of all members over whole batches of one split each, captured together.

    The rest of a split is shorter and is passed eagerly: with the shapes of a training that runs
    alone, the logits are equal bit for bit. Raises: as ``CapturedSteps``.
    """

    def __init__(
        self, members: Sequence[GroupMember], split: str, make_graph: MakeGraph, *, compared: bool
    ) -> None:
        trainings = [member.training for member in members]
        self._trainings = trainings
        self._splits = [training.splits[split] for training in trainings]
        self._size = pass_size(trainings[0], split)
        device = trainings[0].execution.device
        draws = [self._draw(each, 0) for each in self._splits]
        self._inputs = FixedInputs(draws, device)
        self._outputs: list[Tensor] = [torch.empty(0)] * len(trainings)
        generators = [member.generators for member in members]
        works = [partial(self._captured, *each) for each in enumerate(self._inputs.draws)]
        self._generators = generators
        before = [_Before(training.stepping, own)
                  for training, own in zip(trainings, generators, strict=True)]  # fmt: skip
        self._graph = make_graph()
        try:
            self._graph.warm_up(_drawing(generators, works))
            expected = [[output.clone()] for output in self._outputs]
            for each in before:
                each.put_back()
            _capture(self._graph, works, generators)
            if compared:
                self._graph.replay()
                _compare(expected, [[output] for output in self._outputs], "an evaluation")
        except BaseException:
            for each in before:
                each.put_attributes_back()
            raise
        finally:
            for each in before:
                each.put_back()

    def logits(self) -> list[Tensor]:
        """The logits (N, K) of all images, in order, of each member."""
        batches: list[list[Tensor]] = [[] for _ in self._splits]
        n = len(self._splits[0].pipeline)
        whole = n - n % self._size
        for start in range(0, whole, self._size):
            draws = [self._draw(split, start) for split in self._splits]
            if not self._inputs.fits(draws):
                raise CannotCaptureError("its batches have no static shapes")
            self._inputs.fill(draws)
            if raised := self._graph.replay():
                raise next(iter(raised.values()))
            for logits, output in zip(batches, self._outputs, strict=True):
                logits.append(output.clone())
        if whole < n:
            for index, logits in enumerate(batches):
                with self._generators[index].active():
                    logits.append(self._pass(index, self._draw(self._splits[index], whole)))
        return [torch.cat(logits) for logits in batches]

    def _draw(self, split: DataSplit, start: int) -> BatchDraw:
        pipeline = split.pipeline
        indices = torch.arange(start, min(start + self._size, len(pipeline)))
        return pipeline.for_device(pipeline.draw(indices))

    def _captured(self, index: int, draw: BatchDraw) -> None:
        self._outputs[index] = self._pass(index, draw)

    def _pass(self, index: int, draw: BatchDraw) -> Tensor:
        training, pipeline = self._trainings[index], self._splits[index].pipeline
        device, precision = training.execution.device, training.recipe.precision
        with eval_mode(training.net), torch.no_grad(), autocast(device, precision):
            logits: Tensor = training.net(pipeline.make(draw)).float()
        return logits


def pass_size(training: Training, split: str) -> int:
    """The images of a whole batch of an evaluation."""
    return min(training.execution.evaluation_batch, len(training.splits[split].pipeline))


def _step_of(step: TrainingStep, draw: StepDraw) -> Callable[[], None]:
    return lambda: step.compute(draw)


def _drawing(
    generators: Sequence[OwnGenerators], works: Sequence[Callable[[], None]]
) -> list[Callable[[], None]]:
    """The works, each with the generators of its training."""

    def run(own: OwnGenerators, work: Callable[[], None]) -> None:
        with own.active():
            work()

    return [partial(run, own, work) for own, work in zip(generators, works, strict=True)]


def _capture(
    graph: Graph, works: Sequence[Callable[[], None]], generators: Sequence[OwnGenerators]
) -> None:
    """Capture the works. Raises: ``CannotCaptureError`` where they draw from the host.

    A replay would compute with the numbers of the capture; where replays are not compared, nothing
    else would tell.
    """
    outside = GeneratorStates.now()._replace(cuda=None)
    graph.capture(works, generators)
    if not outside.equals(GeneratorStates.now()):
        outside.restore()
        raise CannotCaptureError("it draws random numbers on the host")


def _refuse_counts(earlier: Mapping[Attribute, Value], later: Mapping[Attribute, Value]) -> None:
    """Raise ``CannotCaptureError`` where a network counts: a replay does not run its code."""
    for key, value in later.items():
        if earlier.get(key) not in {value, None}:
            raise CannotCaptureError(f"its {'.'.join(filter(None, key))} changes with each step")


def _state(step: TrainingStep) -> list[Tensor]:
    """All that a step changes: weights, buffers and the optimizer's state, on their device."""
    optimizer = step.optimizer.state.values()
    moments = [tensor for state in optimizer for tensor in state.values() if tensor is not None]
    return [*step.net.parameters(), *step.net.buffers(), *moments]


def _values(step: TrainingStep) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _state(step)]


def _can_be_written(tensor: Tensor) -> bool:
    """Not where several values share their memory, or none may change."""
    return tensor.is_contiguous() and not tensor.is_inference()


class _Before:
    """The state of a training, to be put back in place: a graph reads the same memory."""

    def __init__(self, step: TrainingStep, own: OwnGenerators) -> None:
        self._step, self._own = step, own
        self._attributes = self.attributes(int, float, Tensor)
        self._with_moments = frozenset(step.optimizer.state)
        of_modules = [value for value in self._attributes.values()
                      if isinstance(value, Tensor) and _can_be_written(value)]  # fmt: skip
        self._tensors = [tensor.detach() for tensor in [*_state(step), *of_modules]]
        self._values = [tensor.clone() for tensor in self._tensors]
        with own.active():
            self._generators = GeneratorStates.now()

    def attributes(self, *types: type[Value]) -> Mapping[Attribute, Value]:
        """What modules hold beside parameters and buffers, of these types."""
        return {
            (path, name): value
            for path, module in self._step.net.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, types)
        }

    def put_attributes_back(self) -> None:
        """As if no step had been taken; what a capture uses may have been made in its warm-up."""
        for (path, name), value in self._attributes.items():
            setattr(self._step.net.get_submodule(path), name, value)
        # The optimizer may have been stopped as it made the state of a parameter.
        moments = self._step.optimizer.state
        for parameter in moments.keys() - self._with_moments:
            del moments[parameter]

    def put_back(self) -> None:
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        places = {tensor.data_ptr() for tensor in self._tensors}
        for tensor in _state(self._step):
            # An optimizer's state begins with zeros.
            if tensor.data_ptr() not in places:
                tensor.detach().zero_()
        with self._own.active():
            self._generators.restore()


def _compare(expected: Iterable[list[Tensor]], replayed: Iterable[list[Tensor]], what: str) -> None:
    for first, second in zip(expected, replayed, strict=True):
        # NaN is equal to itself here. One answer for all: each waits for the device.
        pairs = zip(first, second, strict=True)
        same = [((a == b) | (a.isnan() & b.isnan())).all() for a, b in pairs]
        if not torch.stack(same).all():
            raise CannotCaptureError(f"{what} in a graph computes other numbers than outside")
