"""The one training loop: a network, batches of images and a recipe in; its history and states out.

Tensors stay on the device and a step reads nothing back; losses and metrics are read once for
each evaluated epoch.

Shape letters: N images, K classes or labels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # the name everybody knows it by

from transferbench.data.pipeline import ImagePipeline, mixup
from transferbench.errors import SuiteError
from transferbench.metrics import Evaluation, score
from transferbench.networks.modules import (
    FeatureRecorder,
    body_in_eval,
    clone_state,
    eval_mode,
    optimizer_groups,
)
from transferbench.specs import Metric, RateFactor
from transferbench.specs import Task as TaskKind
from transferbench.suite import Recipe

__all__ = [
    "Execution",
    "Labelled",
    "Outputs",
    "Task",
    "Trained",
    "Training",
    "evaluate",
    "evaluated_epochs",
    "learning_rate_factor",
    "outputs",
    "refuse_smaller_batches",
]

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

MEASURED = tuple(
    f"{split}_{what}" for split in ("train", "test", "validation") for what in ("loss", "metric")
)
"""What a row of the history holds besides its epoch."""

Objective = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


class Labelled(NamedTuple):
    """Images behind their pipeline, and their labels on the same device.

    labels: int64 (N,) classes, or float32 (N, K) of 0 and 1 for multi-label tasks.
    """

    pipeline: ImagePipeline
    labels: torch.Tensor


class Task(NamedTuple):
    """What is learned from what, and by which metric it is measured."""

    kind: TaskKind
    metric: Metric
    classes: int
    train: Labelled
    test: Labelled
    validation: Labelled | None


@dataclass(frozen=True)
class Execution:
    """How a machine computes what a recipe asks for; nothing here is part of an id.

    ``micro_batch``: images at once on the device; gradients accumulate over a step's batch. For
    networks without batch statistics alone: see ``refuse_smaller_batches``.
    """

    device: torch.device
    micro_batch: int | None = None
    evaluation_batch: int = 500
    compile: bool = False


def refuse_smaller_batches(network: str, batch_size: int, micro_batch: int | None) -> None:
    """Refuse to accumulate the gradients of a network that normalises by its batch.

    Its statistics would be those of the micro-batches, and so would its numbers; no id says that.
    Raises: ``SuiteError``.
    """
    if micro_batch is not None and micro_batch < batch_size:
        raise SuiteError(
            f"--micro-batch {micro_batch} would change the numbers of {network}: it normalises by "
            f"statistics of its batch (BatchNorm), and the recipe's batch is of {batch_size} "
            f"images; give a micro-batch of at least {batch_size}, or leave it out"
        )


class Outputs(NamedTuple):
    """What a network says of every image: logits (N, K), and what its head read (N, D)."""

    logits: torch.Tensor
    features: torch.Tensor


class Trained(NamedTuple):
    """A history with an entry for each evaluated epoch, and the states that were kept.

    An entry's losses and metrics are None where they were not evaluated, or are not finite.
    """

    history: list[dict[str, float | None]]
    states: dict[str, dict[str, torch.Tensor]]
    best_epoch: int | None


def evaluated_epochs(schedule: str, epochs: int) -> frozenset[int]:
    """The epochs after which is evaluated; 0 is the initial state.

    ``sparse``: 0, 1, 2, 5, 10, 20, 50 ... and the last, about three for each tenfold.
    """
    if schedule == "every":
        return frozenset(range(epochs + 1))
    if schedule == "last":
        return frozenset({epochs})
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return frozenset({0, epochs, *(epoch for epoch in steps if epoch < epochs)})


def learning_rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The schedule's factor of the learning rate at one step, counted from 0.

    The warm-up reaches 1 at its last step; cosine falls from 1 after it to 0 at the end.
    """
    schedule = recipe.schedule
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "cosine":
        length = recipe.epochs * steps_per_epoch - warmup
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(length, 1), 1.0)))
    passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
    return schedule.gamma**passed


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)


def _binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, smoothing: float
) -> torch.Tensor:
    smooth = targets * (1 - smoothing) + 0.5 * smoothing
    return F.binary_cross_entropy_with_logits(logits.float(), smooth)


OBJECTIVES: dict[str, Objective] = {
    "multi-class": _cross_entropy,
    "multi-label": _binary_cross_entropy,
}


def outputs(net: nn.Module, head: nn.Module, pipeline: ImagePipeline, run: Execution) -> Outputs:
    """Logits and features of every image, in order, in eval mode and float32, on the CPU."""
    logits, features = [], []
    with eval_mode(net), FeatureRecorder(head) as recorder, torch.no_grad():
        for indices in _chunks(len(pipeline), run.evaluation_batch, run.device):
            logits.append(net(pipeline.batch(indices, None)).float())
            features.append(recorder.features.float())
    return Outputs(torch.cat(logits).cpu(), torch.cat(features).cpu())


def evaluate(
    net: nn.Module, data: Labelled, task: Task, run: Execution, precision: str = "f32"
) -> Evaluation:
    """Loss and metric over all images of ``data``, in eval mode on clean inputs."""
    with eval_mode(net), torch.no_grad(), _autocast(run.device, precision):
        logits = torch.cat(
            [
                net(data.pipeline.batch(indices, None)).float()
                for indices in _chunks(len(data.pipeline), run.evaluation_batch, run.device)
            ]
        )
    loss = OBJECTIVES[task.kind](logits, data.labels, 0.0).item()
    metric = score(task.metric, logits.cpu().numpy(), data.labels.cpu().numpy())
    return Evaluation(loss if math.isfinite(loss) else None, metric)


class Training:
    """One training of one network.

    ``rate_factors`` are tried before those of the recipe; parameters that need no gradient are
    left out. ``only_head`` names the head where it alone is trained: the batch statistics of the
    body then stay as they are.
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        recipe: Recipe,
        run: Execution,
        rate_factors: Sequence[RateFactor] = (),
        *,
        only_head: nn.Module | None = None,
    ) -> None:
        self.net = net
        self.task = task
        self.recipe = recipe
        self.run = run
        self.only_head = only_head
        self.forward = torch.compile(net) if run.compile else net
        self.optimizer = _optimizer(net, recipe, rate_factors, run.device)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=recipe.precision == "fp16")
        self.steps_per_epoch = max(len(task.train.pipeline) // recipe.batch_size, 1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(recipe, step, self.steps_per_epoch)
        )

    def train(
        self, *, data_seed: int, augmentation_seed: int, checkpoints: Sequence[int] = ()
    ) -> Trained:
        """Train to the end; the network holds its final state afterwards.

        ``states`` has ``init``, ``final``, ``best`` (by the validation metric at the evaluated
        epochs, the earliest of equals; the final one where nothing was held out) and
        ``epoch-T`` for each of ``checkpoints``.
        """
        order = torch.Generator().manual_seed(data_seed)
        draws = torch.Generator(self.run.device).manual_seed(augmentation_seed)
        history, states = [self._evaluate(0)], {"init": clone_state(self.net)}
        best_epoch, best = None, -math.inf
        for epoch in range(self.recipe.epochs + 1):
            if epoch > 0:
                self._epoch(order, draws)
                history.append(self._evaluate(epoch))
            if epoch in checkpoints:
                states[f"epoch-{epoch}"] = clone_state(self.net)
            validation = history[-1]["validation_metric"]
            if validation is not None and validation > best:
                best_epoch, best = epoch, validation
                states["best"] = clone_state(self.net)
        states["final"] = clone_state(self.net)
        states.setdefault("best", states["final"])
        # By what was asked for: a network that diverged has nothing finite in an evaluated epoch.
        kept = {epoch for _, schedule in self._splits().values() for epoch in schedule}
        rows = [row for row in history if row["epoch"] in kept]
        return Trained(rows, states, best_epoch)

    def _epoch(self, order: torch.Generator, draws: torch.Generator) -> None:
        self.net.train()
        if self.only_head is not None:
            body_in_eval(self.net, self.only_head)
        n = len(self.task.train.pipeline)
        # The incomplete last batch is dropped: its gradient would be noisier than the schedule
        # assumes, and batch statistics of a single image do not exist.
        permutation = torch.randperm(n, generator=order).to(self.run.device)
        for step in range(self.steps_per_epoch):
            start = step * self.recipe.batch_size
            self.step(permutation[start : start + self.recipe.batch_size], draws)

    def step(self, indices: torch.Tensor, draws: torch.Generator) -> None:
        """Take one step on the training images at ``indices`` (on the device)."""
        recipe, device = self.recipe, self.run.device
        images = self.task.train.pipeline.batch(indices, draws)
        targets = self.task.train.labels[indices]
        if recipe.mixup > 0:
            images, targets = mixup(images, self._soft(targets), recipe.mixup, draws)
        self.optimizer.zero_grad(set_to_none=True)
        size = self.run.micro_batch or len(indices)
        for x, y in zip(torch.split(images, size), torch.split(targets, size), strict=True):
            with _autocast(device, recipe.precision):
                logits = self.forward(x)
            loss = OBJECTIVES[self.task.kind](logits, y, recipe.label_smoothing)
            self.scaler.scale(loss * (len(x) / len(indices))).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if recipe.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def _soft(self, targets: torch.Tensor) -> torch.Tensor:
        if self.task.kind == "multi-label":
            return targets
        return F.one_hot(targets, self.task.classes).float()

    def _evaluate(self, epoch: int) -> dict[str, float | None]:
        """The row of an epoch, None where nothing is evaluated after it."""
        row: dict[str, float | None] = {"epoch": epoch, **dict.fromkeys(MEASURED)}
        for name, (data, epochs) in self._splits().items():
            if epoch not in epochs:
                continue
            found = evaluate(self.net, data, self.task, self.run, self.recipe.precision)
            row |= {f"{name}_loss": found.loss, f"{name}_metric": found.metric}
        return row

    def _splits(self) -> dict[str, tuple[Labelled, frozenset[int]]]:
        """The images that are evaluated, and after which epochs."""
        task, recipe = self.task, self.recipe
        train = evaluated_epochs(recipe.evaluate_train, recipe.epochs)
        test = evaluated_epochs(recipe.evaluate_test, recipe.epochs)
        splits = {"train": (task.train, train), "test": (task.test, test)}
        if task.validation is not None:
            splits["validation"] = (task.validation, test)
        return splits


def _optimizer(
    net: nn.Module, recipe: Recipe, rate_factors: Sequence[RateFactor], device: torch.device
) -> torch.optim.Optimizer:
    groups = optimizer_groups(net, [*rate_factors, *recipe.rate_factors], recipe.learning_rate)
    # One kernel for all tensors: 2.2 to 2.9 times the loop over tensors, on the CPU too.
    fused = device.type in {"cpu", "cuda"}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
        )
    return torch.optim.AdamW(
        groups, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=fused
    )


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "f32")


def _chunks(n: int, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    return iter(torch.split(torch.arange(n, device=device), size))
