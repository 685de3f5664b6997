"""The training loop: trains a network by a recipe and returns its history and states.

Tensors stay on the device without synchronisation in a step; losses and metrics are read once per
evaluated epoch.

Shape letters: N images, K classes or labels, D features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # the usual name

from transferbench.data.pipeline import ImagePipeline, mixup
from transferbench.errors import SuiteError
from transferbench.metrics import Evaluation, score
from transferbench.networks.eager import eager
from transferbench.networks.losses import has_unknown, known_share, label_loss
from transferbench.networks.modules import (
    FeatureRecorder,
    body_in_eval,
    clone_state,
    eval_mode,
    normalises_by_batch,
    optimizer_groups,
    seeded,
)
from transferbench.specs import ImageShape, Metric, RateFactor, Task
from transferbench.suite import Recipe

__all__ = [
    "DIVERGED",
    "SPLITS",
    "UNDEFINED",
    "DataSplit",
    "Execution",
    "TaskData",
    "Training",
    "TrainingResult",
    "evaluate",
    "evaluated_epochs",
    "learning_rate_factor",
    "model_outputs",
    "random_task",
    "refuse_smaller_batches",
    "set_train_mode",
]

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

DIVERGED = "the outputs are not finite: diverged"
UNDEFINED = "not defined on these images"
"""Why a metric has no value."""

SPLITS = ("train", "test", "validation")
HISTORY_VALUES = tuple(f"{split}_{value}" for split in SPLITS for value in ("loss", "metric"))
"""The keys of a row of the history, besides ``epoch``."""


class DataSplit(NamedTuple):
    """A pipeline of images, and their labels on the same device.

    labels: int64 (N,) classes, or float32 (N, K) of 0 and 1 for multi-label tasks, NaN where
    unknown.
    """

    pipeline: ImagePipeline
    labels: torch.Tensor


class TaskData(NamedTuple):
    """A task with its metric and the splits of its dataset.

    ``test`` has no image where a learning rate is tuned.
    """

    task: Task
    metric: Metric
    classes: int
    train: DataSplit
    test: DataSplit
    validation: DataSplit | None


def random_task(
    n: int, image_shape: ImageShape, classes: int, device: torch.device, task: Task = "multi-class"
) -> TaskData:
    """``n`` images of uniform noise with random labels, to try and to time a network on."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *image_shape), dtype=torch.uint8, generator=draws)
    several = task == "multi-label"
    shape, high = ((n, classes), 2) if several else ((n,), classes)
    labels = torch.randint(0, high, shape, generator=draws)
    constants = [0.5] * image_shape[-1]
    split = DataSplit(
        ImagePipeline(images.to(device), constants, constants),
        (labels.float() if several else labels).to(device),
    )
    return TaskData(task, "auc" if several else "accuracy", classes, split, split, None)


@dataclass(frozen=True)
class Execution:
    """The settings of a machine that do not change results and are part of no id.

    ``micro_batch``: images per forward pass; gradients accumulate over the batch of a step. Only
    for networks without batch statistics: see ``refuse_smaller_batches``.
    """

    device: torch.device
    micro_batch: int | None = None
    evaluation_batch: int = 500
    compile: bool = False


def refuse_smaller_batches(network: str, batch_size: int, micro_batch: int | None) -> None:
    """Refuse gradient accumulation for a network with batch normalisation.

    Its statistics would be those of the micro-batches, which would change its numbers but no id.
    Raises: ``SuiteError``.
    """
    if micro_batch is not None and micro_batch < batch_size:
        raise SuiteError(
            f"--micro-batch {micro_batch} would change the numbers of {network}: it normalises by "
            f"statistics of its batch (BatchNorm), and the recipe's batch is of {batch_size} "
            f"images; give a micro-batch of at least {batch_size}, or leave it out"
        )


def set_train_mode(net: nn.Module, only_head: nn.Module | None) -> None:
    """Train mode, of the head alone where only the head is trained."""
    net.train()
    if only_head is not None:
        body_in_eval(net, only_head)


def _refuse_single_image(net: nn.Module, only_head: nn.Module | None, image: torch.Tensor) -> None:
    # A copy on the CPU: neither statistics nor the generators of the training change.
    copied, head = copy.deepcopy((net, only_head))
    set_train_mode(copied, head)
    try:
        with torch.no_grad(), seeded(0):
            copied.cpu()(image.cpu())
    except ValueError as error:
        raise SuiteError(
            f"batches of one image cannot train {type(net).__name__}: it normalises by statistics "
            f"of its batch (BatchNorm), and one of its layers has none ({error}); give the recipe "
            "a batch_size of at least 2, or the target more training images"
        ) from error


class TrainingResult(NamedTuple):
    """A history with a row for each evaluated epoch, and the stored states by name.

    The losses and metrics of a row are None where they were not evaluated, or are not finite.
    """

    history: list[dict[str, float | None]]
    states: dict[str, dict[str, torch.Tensor]]
    best_epoch: int | None


def evaluated_epochs(schedule: str, epochs: int) -> frozenset[int]:
    """The epochs after which the network is evaluated; 0 is the initial state.

    ``sparse``: 0, 1, 2, 5, 10, 20, 50 ... and the last: about three per decade.
    """
    if schedule == "every":
        return frozenset(range(epochs + 1))
    if schedule == "last":
        return frozenset({epochs})
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return frozenset({0, epochs, *(epoch for epoch in steps if epoch < epochs)})


def learning_rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate factor of the schedule at a step, counted from 0.

    Warm-up reaches 1 at its last step; cosine then falls from 1 to 0 at the end of the training.
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


def _loss(
    task: Task,
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    *,
    partly_known: bool,
) -> torch.Tensor:
    if task == "multi-class":
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
    smooth = targets * (1 - smoothing) + 0.5 * smoothing
    return label_loss(logits.float(), smooth, partly_known=partly_known)


def model_outputs(
    net: nn.Module, head: nn.Module, pipeline: ImagePipeline, execution: Execution
) -> dict[str, torch.Tensor]:
    """``logits`` (N, K) and penultimate ``features`` (N, D) of all images, in order.

    In eval mode and float32, on the CPU.
    """
    logits, features = [], []
    with eval_mode(net), FeatureRecorder(head) as recorder, torch.no_grad():
        for images in _batches(pipeline, execution):
            logits.append(net(images).float())
            features.append(recorder.features.float())
    return {"logits": torch.cat(logits).cpu(), "features": torch.cat(features).cpu()}


def evaluate(
    net: nn.Module, split: DataSplit, data: TaskData, execution: Execution, precision: str = "f32"
) -> Evaluation:
    """Loss and metric over all images of ``split``, in eval mode on clean inputs."""
    with eval_mode(net), torch.no_grad(), _autocast(execution.device, precision):
        logits = torch.cat([net(images).float() for images in _batches(split.pipeline, execution)])
    partly_known = has_unknown(split.labels)
    loss = _loss(data.task, logits, split.labels, partly_known=partly_known).item()
    metric = score(data.metric, logits.cpu().numpy(), split.labels.cpu().numpy())
    return Evaluation(loss if math.isfinite(loss) else None, metric)


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
        self._partly_known = has_unknown(data.train.labels)
        device = execution.device
        if min(recipe.batch_size, len(data.train.pipeline)) == 1 and normalises_by_batch(net):
            image = data.train.pipeline.batch(torch.zeros(1, dtype=torch.int64))
            _refuse_single_image(net, only_head, image)
        self.forward = torch.compile(net) if execution.compile else net
        self.optimizer = _optimizer(net, recipe, rate_factors, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.steps_per_epoch = max(len(data.train.pipeline) // recipe.batch_size, 1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(recipe, step, self.steps_per_epoch)
        )

    def train(
        self, *, data_seed: int, augmentation_seed: int, checkpoints: Sequence[int] = ()
    ) -> TrainingResult:
        """Train to the end; the network then holds its final state.

        ``states`` has ``init``, ``final``, ``best`` (by the validation metric at the evaluated
        epochs, the earliest of equals; the final state without a validation split) and
        ``epoch-T`` for each of ``checkpoints``.
        """
        order = torch.Generator().manual_seed(data_seed)
        augmentation = torch.Generator(self.execution.device).manual_seed(augmentation_seed)
        history, states = [self._evaluate(0)], {"init": clone_state(self.net)}
        best_epoch, best = None, -math.inf
        for epoch in range(self.recipe.epochs + 1):
            if epoch > 0:
                self._train_epoch(order, augmentation)
                history.append(self._evaluate(epoch))
            if epoch in checkpoints:
                states[f"epoch-{epoch}"] = clone_state(self.net)
            validation = history[-1]["validation_metric"]
            if validation is not None and validation > best:
                best_epoch, best = epoch, validation
                states["best"] = clone_state(self.net)
        states["final"] = clone_state(self.net)
        states.setdefault("best", states["final"])
        # Selected by schedule: a diverged network has no finite value in an evaluated epoch.
        evaluated = {epoch for _, schedule in self._splits().values() for epoch in schedule}
        rows = [row for row in history if row["epoch"] in evaluated]
        return TrainingResult(rows, states, best_epoch)

    def _train_epoch(self, order: torch.Generator, augmentation: torch.Generator) -> None:
        set_train_mode(self.net, self.only_head)
        n = len(self.data.train.pipeline)
        # The incomplete last batch is dropped: its gradient would be noisier than the schedule
        # assumes, and a single image has no batch statistics.
        permutation = torch.randperm(n, generator=order).to(self.execution.device)
        for step in range(self.steps_per_epoch):
            start = step * self.recipe.batch_size
            self.step(permutation[start : start + self.recipe.batch_size], augmentation)

    def step(self, indices: torch.Tensor, augmentation: torch.Generator) -> None:
        """Train one step on the images at ``indices`` (on the device)."""
        recipe = self.recipe
        images = self.data.train.pipeline.batch(indices, augmentation)
        targets = self.data.train.labels[indices]
        if recipe.mixup > 0:
            images, targets = mixup(images, self._soft(targets), recipe.mixup, augmentation)
        self.optimizer.zero_grad(set_to_none=True)
        size = self.execution.micro_batch or len(indices)
        for x, y in zip(torch.split(images, size), torch.split(targets, size), strict=True):
            with _autocast(self.execution.device, recipe.precision):
                logits = self.forward(x)
            loss = _loss(self.data.task, logits, y, recipe.label_smoothing,
                         partly_known=self._partly_known)  # fmt: skip
            share = known_share(y, targets) if self._partly_known else len(x) / len(indices)
            self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if recipe.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def _soft(self, targets: torch.Tensor) -> torch.Tensor:
        if self.data.task == "multi-label":
            return targets
        return F.one_hot(targets, self.data.classes).float()

    def _evaluate(self, epoch: int) -> dict[str, float | None]:
        """The history row of an epoch, None for splits not evaluated after it."""
        row: dict[str, float | None] = {"epoch": epoch, **dict.fromkeys(HISTORY_VALUES)}
        for name, (split, epochs) in self._splits().items():
            if epoch not in epochs:
                continue
            loss, metric = evaluate(
                self.net, split, self.data, self.execution, self.recipe.precision
            )
            row |= {f"{name}_loss": loss, f"{name}_metric": metric}
        return row

    def _splits(self) -> dict[str, tuple[DataSplit, frozenset[int]]]:
        """The splits, each with the epochs after which it is evaluated."""
        data, recipe = self.data, self.recipe
        train = evaluated_epochs(recipe.evaluate_train, recipe.epochs)
        test = evaluated_epochs(recipe.evaluate_test, recipe.epochs)
        splits = {"train": (data.train, train), "test": (data.test, test)}
        if data.validation is not None:
            splits["validation"] = (data.validation, test)
        return {name: split for name, split in splits.items() if name in self.evaluated}


def _optimizer(
    net: nn.Module, recipe: Recipe, rate_factors: Sequence[RateFactor], device: torch.device
) -> torch.optim.Optimizer:
    if recipe.learning_rate is None:
        raise ValueError("the learning rate of the recipe has not been chosen from its grid yet")
    groups = optimizer_groups(net, [*rate_factors, *recipe.rate_factors], recipe.learning_rate)
    # Fused kernels are 2.2 to 2.9 times faster than the loop over tensors, on the CPU too.
    fused = device.type in {"cpu", "cuda"}
    if recipe.optimizer == "sgd":
        return eager(torch.optim.SGD)(
            groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
        )
    return eager(torch.optim.AdamW)(
        groups, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=fused
    )


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "f32")


def _batches(pipeline: ImagePipeline, execution: Execution) -> Iterator[torch.Tensor]:
    """All images in order, not augmented."""
    indices = torch.arange(len(pipeline), device=execution.device)
    return map(pipeline.batch, torch.split(indices, execution.evaluation_batch))
