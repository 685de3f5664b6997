"""The training loop of one network.

It computes nothing itself: it yields what is to be computed, one step or one evaluation at a time,
so that several trainings can go on together.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import nn

from transferbench.metrics import Evaluation
from transferbench.specs import RateFactor
from transferbench.suite import Recipe
from transferbench.training.evaluation import evaluate, fitting
from transferbench.training.execution import Execution
from transferbench.training.processes import refuse_other_positions
from transferbench.training.progress import Progress
from transferbench.training.resume import Unfinished
from transferbench.training.schedule import evaluated_epochs
from transferbench.training.step import StepDraw, TrainingStep, set_train_mode
from transferbench.training.tasks import HISTORY_VALUES, SPLITS, DataSplit, TaskData

__all__ = [
    "DIVERGED",
    "UNDEFINED",
    "Loop",
    "Request",
    "SplitName",
    "Training",
    "TrainingResult",
    "run_alone",
]

DIVERGED = "the outputs are not finite: diverged"
UNDEFINED = "not defined on these images"
"""Why a metric has no value."""

SplitName: TypeAlias = str
ResultT = TypeVar("ResultT")


class TrainingResult(NamedTuple):
    """A history with a row for each evaluated epoch, and the stored states by name.

    The losses and metrics of a row are None where they were not evaluated, or are not finite.
    """

    history: list[dict[str, float | None]]
    states: dict[str, dict[str, torch.Tensor]]
    best_epoch: int | None


class Request(NamedTuple):
    """What a training waits for: a step to take, or the evaluation of a split."""

    training: Training
    work: StepDraw | SplitName


Loop: TypeAlias = Generator[Request, Evaluation | None, TrainingResult]
"""A training that goes on when what it yielded is computed; an evaluation is sent to it."""


def run_alone(loop: Generator[Request, Evaluation | None, ResultT]) -> ResultT:
    """Run trainings to the end of ``loop``, computing each step as it comes."""
    evaluation: Evaluation | None = None
    while True:
        try:
            request = loop.send(evaluation)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        try:
            evaluation = request.training.serve(request.work)
        except BaseException as error:  # noqa: BLE001  # the loop's, which raises it again
            request = loop.throw(error)


class Training:
    """A training of one network.

    ``rate_factors`` take precedence over those of the recipe; parameters without gradient are
    excluded. ``only_head``: the head, if only the head is trained; the batch statistics of the
    body then stay fixed. ``evaluated``: the splits whose loss and metric are in the history.

    Raises: ``SuiteError`` for batches of one image that the network cannot normalise.
    """

    def __init__(
        self,
        net: nn.Module,
        data: TaskData,
        recipe: Recipe,
        execution: Execution,
        rate_factors: Sequence[RateFactor] = (),
        *,
        only_head: nn.Module | None = None,
        evaluated: Collection[str] = SPLITS,
    ) -> None:
        self.net = net
        self.data = data
        self.recipe = recipe
        self.execution = execution
        self.only_head = only_head
        self.evaluated = evaluated
        self.stepping = TrainingStep(
            net, data, recipe, execution, rate_factors, only_head=only_head
        )
        self.steps_taken = 0

    def train(
        self, *, data_seed: int, augmentation_seed: int, checkpoints: Sequence[int] = ()
    ) -> TrainingResult:
        """Train to the end, one step after another; the network then holds its final state."""
        return run_alone(self.loop(data_seed, augmentation_seed, checkpoints))

    def serve(self, work: StepDraw | SplitName) -> Evaluation | None:
        """Compute what the loop waits for."""
        if isinstance(work, StepDraw):
            self.stepping.compute_in_parts(work)
            return None
        split, compiled = self.splits[work], self.stepping.network
        evaluation, self.execution = fitting(
            self.execution,
            lambda execution: evaluate(
                self.net, split, self.data, execution, self.recipe.precision,
                compiled=compiled if execution.compile else None,
            ),
        )  # fmt: skip
        return evaluation

    def loop(
        self,
        data_seed: int,
        augmentation_seed: int,
        checkpoints: Sequence[int] = (),
        unfinished: Unfinished | None = None,
    ) -> Loop:
        """The training, from the beginning, or from where it was kept, to its result.

        ``states`` of the result has ``init``, ``final``, ``best`` (by the validation metric at the
        evaluated epochs with finite outputs, the earliest of equals; the final state where there is
        none) and ``epoch-T`` for each of ``checkpoints``.
        """
        progress = unfinished.load(self) if unfinished else None
        if self.execution.processes.size > 1:
            position = None if progress is None else (progress.epoch, progress.step)
            refuse_other_positions(position)
        if progress is None:
            # On the CPU: what is drawn does not depend on the device.
            progress = Progress(
                order=torch.Generator().manual_seed(data_seed),
                augmentation=torch.Generator().manual_seed(augmentation_seed),
            )
            progress.states["init"] = self.stepping.state()
            yield from self._after_epoch(progress, checkpoints)
        while progress.epoch < self.recipe.epochs:
            yield from self._epoch(progress, unfinished)
            yield from self._after_epoch(progress, checkpoints)
        states = progress.states
        states["final"] = self.stepping.state()
        states.setdefault("best", states["final"])
        # Selected by schedule: a diverged network has no finite value in an evaluated epoch.
        evaluated = {epoch for epochs in self.schedules.values() for epoch in epochs}
        rows = [row for row in progress.history if row["epoch"] in evaluated]
        return TrainingResult(rows, states, progress.best_epoch)

    def _epoch(
        self, progress: Progress, unfinished: Unfinished | None
    ) -> Generator[Request, Evaluation | None, None]:
        set_train_mode(self.net, self.only_head)
        if progress.permutation is None:
            n = len(self.data.train.pipeline)
            progress.permutation = torch.randperm(n, generator=progress.order)
        # The incomplete last batch is dropped: its gradient would be noisier than the schedule
        # assumes, and a single image has no batch statistics.
        size = self.recipe.batch_size
        batches = torch.split(progress.permutation, size)[progress.step : self.stepping.per_epoch]
        announced = self.execution.processes.announced(batches, self.recipe.mixup)
        self.data.train.pipeline.announce(announced)
        for indices in batches:
            if unfinished:
                unfinished.visit(self, progress)
            taken = progress.epoch * self.stepping.per_epoch + progress.step
            yield Request(self, self.stepping.draw(indices, progress.augmentation, taken))
            progress.step += 1
        progress.epoch, progress.step, progress.permutation = progress.epoch + 1, 0, None

    def _after_epoch(
        self, progress: Progress, checkpoints: Sequence[int]
    ) -> Generator[Request, Evaluation | None, None]:
        """Evaluate where it is due after this epoch, and keep the states that are wanted."""
        epoch = progress.epoch
        row: dict[str, float | None] = {"epoch": epoch, **dict.fromkeys(HISTORY_VALUES)}
        for name, epochs in self.schedules.items():
            if epoch not in epochs:
                continue
            evaluation = yield Request(self, name)
            if evaluation is None:
                raise RuntimeError(f"the loop waits for the evaluation of {name}")
            row |= {f"{name}_loss": evaluation.loss, f"{name}_metric": evaluation.metric}
        progress.history.append(row)
        if epoch in checkpoints:
            progress.states[f"epoch-{epoch}"] = self.stepping.state()
        validation, loss = row["validation_metric"], row["validation_loss"]
        # Without a loss the outputs are not finite: their metric is that of the first class.
        if validation is not None and loss is not None and validation > progress.best:
            progress.best_epoch, progress.best = epoch, validation
            progress.states["best"] = self.stepping.state()

    def step(self, indices: torch.Tensor, augmentation: torch.Generator) -> None:
        """Train one step on the images at ``indices``."""
        draw = self.stepping.draw(indices, augmentation, self.steps_taken)
        self.steps_taken += 1
        self.stepping.compute(draw)

    @property
    def splits(self) -> dict[SplitName, DataSplit]:
        """The splits that are evaluated."""
        data = self.data
        splits = {"train": data.train, "test": data.test, "validation": data.validation}
        return {
            name: split
            for name, split in splits.items()
            if split is not None and name in self.evaluated
        }

    @property
    def schedules(self) -> dict[SplitName, frozenset[int]]:
        """The epochs after which each split is evaluated."""
        recipe = self.recipe
        train = evaluated_epochs(recipe.evaluate_train, recipe.epochs)
        test = evaluated_epochs(recipe.evaluate_test, recipe.epochs)
        return {name: train if name == "train" else test for name in self.splits}
