"""A training step in two parts: what the host draws, and what the device computes from it.

The second part waits for nothing and draws nothing from the host, so that it can be captured.

Shape letters: N images, K classes or labels, G groups of parameters with a rate of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from transferbench.data.pipeline import BatchDraw, MixupDraw, draw_mixup, mix
from transferbench.errors import SuiteError, is_out_of_memory
from transferbench.networks.losses import has_unknown, known_share
from transferbench.networks.modules import (
    body_in_eval,
    clone_state,
    normalises_by_batch,
    seeded,
)
from transferbench.specs import RateFactor
from transferbench.suite import Recipe
from transferbench.training.execution import Execution, autocast
from transferbench.training.loss import task_loss
from transferbench.training.optimizer import make_optimizer
from transferbench.training.processes import (
    Share,
    averaged,
    gradients_kept,
    refuse_few_images,
    without_draws,
)
from transferbench.training.schedule import learning_rate_factor
from transferbench.training.sharding import Shards
from transferbench.training.tasks import TaskData

__all__ = ["StepDraw", "TrainingStep", "on_each_tensor", "set_train_mode"]

DrawT = TypeVar("DrawT")


class StepDraw(NamedTuple):
    """All that a step needs from the host. ``rates``: of each group of parameters, (G,).

    ``share``: of one of several processes; ``batch`` then has its images alone, and then those
    that they are mixed with.
    """

    batch: BatchDraw
    mixup: MixupDraw | None
    rates: Tensor
    share: Share | None = None


def on_each_tensor(draw: DrawT, change: Callable[[Tensor], Tensor]) -> DrawT:
    """``draw``, a tensor or nested tuples of them, with each of its tensors changed."""
    nested: Any = draw
    if isinstance(nested, Tensor):
        return change(nested)  # type: ignore[return-value]  # a tensor for a tensor
    if not isinstance(nested, tuple):
        return draw
    changed = [on_each_tensor(member, change) for member in nested]
    return type(nested)(*changed) if hasattr(nested, "_fields") else tuple(changed)  # type: ignore[return-value]  # of the same type


def set_train_mode(net: nn.Module, only_head: nn.Module | None) -> None:
    """Train mode, of the head alone where only the head is trained."""
    net.train()
    if only_head is not None:
        body_in_eval(net, only_head)


class TrainingStep:
    """The steps of one network: ``draw`` on the host, ``compute`` on the device.

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
    ) -> None:
        self.net, self.data, self.recipe, self.execution = net, data, recipe, execution
        self._name, self._micro_batch = type(net).__name__, execution.micro_batch
        self._partly_known = has_unknown(data.train.labels)
        device = execution.device
        if min(recipe.batch_size, len(data.train.pipeline)) == 1 and normalises_by_batch(net):
            image = data.train.pipeline.batch(torch.zeros(1, dtype=torch.int64))
            _refuse_single_image(net, only_head, image)
        # Compiled for whole batches alone: another shape would be compiled for itself.
        self.network: Callable[..., Any] = (
            torch.compile(net, dynamic=False) if execution.compile else net
        )
        self.forward = self.network
        if execution.processes.size > 1:
            size = min(recipe.batch_size, len(data.train.pipeline))
            refuse_few_images(size, execution.processes)
            if not execution.sharded:
                self.forward = averaged(net, self.network)
        self.shards = Shards(net, recipe, device) if execution.sharded else None
        parts = self.shards.parts if self.shards else None
        self.optimizer = make_optimizer(net, recipe, rate_factors, device, parts)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.per_epoch = max(len(data.train.pipeline) // recipe.batch_size, 1)
        self._initial = [group["lr"] for group in self.optimizer.param_groups]
        # In a tensor that each step fills. The kernels of CUDA read single precision; those of the
        # CPU read double precision, as they do from a number.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._rates = torch.tensor(self._initial, dtype=dtype, device=device)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    def draw(self, indices: Tensor, augmentation: torch.Generator, step: int) -> StepDraw:
        """What the step number ``step``, counted from 0, on the images at ``indices`` needs."""
        pipeline, recipe = self.data.train.pipeline, self.recipe
        batch = pipeline.draw(indices, augmentation)
        mixup = None
        if recipe.mixup > 0:
            mixup = draw_mixup(len(indices), recipe.mixup, augmentation)
        share = None
        if self.execution.processes.size > 1:
            share = self.execution.processes.share(indices)
            batch = share.images_of(batch, mixup)
        if self.execution.captured or self.execution.device.type == "cuda":
            batch = pipeline.for_device(batch)
        factor = learning_rate_factor(recipe, step, self.per_epoch)
        rates = [rate * factor for rate in self._initial]
        return StepDraw(batch, mixup, torch.tensor(rates, dtype=self._rates.dtype), share)

    def compute_in_parts(self, draw: StepDraw) -> None:
        """As ``compute``, in micro-batches of half the size wherever memory runs out for them.

        They are no smaller than the batch where its images are normalised by each other. An update
        that memory runs out for is not tried again: a part of it may have been done.
        """
        while True:
            rewind = _rewind_of(self.execution.device)
            try:
                self._take_gradients(draw)
            except Exception as error:
                count = len(draw.batch.indices)
                size = min(self._micro_batch or count, count)
                if not is_out_of_memory(error) or size == 1 or normalises_by_batch(self.net):
                    raise
                if self.execution.processes.size > 1:
                    raise  # the others would wait for the gradients of this step
                self._micro_batch = size // 2
                rewind()
            else:
                self._update()
                return

    def compute(self, draw: StepDraw) -> None:
        """Take the step."""
        self._take_gradients(draw)
        self._update()

    def _take_gradients(self, draw: StepDraw) -> None:
        device = self.execution.device
        draw = on_each_tensor(draw, lambda tensor: tensor.to(device, non_blocking=True))
        images, targets, of_step = self._examples(draw)
        self._rates.copy_(draw.rates)
        self.optimizer.zero_grad(set_to_none=True)
        size = self._micro_batch or len(images)
        parts = list(zip(torch.split(images, size), torch.split(targets, size), strict=True))
        for x, y in parts[:-1]:
            with self.shards.gradients_kept() if self.shards else gradients_kept(self.forward):
                self._add_gradients(x, y, of_step)
        self._add_gradients(*parts[-1], of_step)

    def _update(self) -> None:
        recipe = self.recipe
        if recipe.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.gradient_clip)
        if self.shards:
            self.shards.take_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Tensor]:
        """A copy of all parameters and buffers, on the CPU; empty where another process has it."""
        return self.shards.state() if self.shards else clone_state(self.net)

    def _examples(self, draw: StepDraw) -> tuple[Tensor, Tensor, Tensor]:
        """Images and targets of this process, and the targets of the whole step."""
        images, labels = self.data.train.pipeline.make(draw.batch), self.data.train.labels
        share = draw.share
        targets = labels[draw.batch.indices if share is None else share.indices]
        if draw.mixup is not None:
            mixed = mix if share is None else share.mix
            images, targets = mixed(images, self._soft(targets), draw.mixup)
        return images, targets if share is None else targets[share.rows], targets

    def _add_gradients(self, x: Tensor, y: Tensor, of_step: Tensor) -> None:
        """Those of images and their targets, by their share of the targets of the whole step."""
        recipe, processes = self.recipe, self.execution.processes.size
        with (
            autocast(self.execution.device, recipe.precision),
            without_draws(self._name) if processes > 1 else nullcontext(),
        ):
            logits = self.forward(x)
        loss = task_loss(self.data.task, logits, y, recipe.label_smoothing,
                         partly_known=self._partly_known)  # fmt: skip
        share = known_share(y, of_step) if self._partly_known else len(x) / len(of_step)
        if processes > 1:
            share = share * processes  # the mean of the gradients is to be their sum
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _soft(self, targets: Tensor) -> Tensor:
        if self.data.task == "multi-label":
            return targets
        # Not one_hot, which on the CPU waits to check them.
        return (targets[:, None] == torch.arange(self.data.classes, device=targets.device)).float()


def _rewind_of(device: torch.device) -> Callable[[], None]:
    """What sets torch's generators, from which dropout draws, to their states of now."""
    host = torch.get_rng_state()
    card = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind() -> None:
        torch.set_rng_state(host)
        if card is not None:
            torch.cuda.set_rng_state(card, device)

    return rewind


def _refuse_single_image(net: nn.Module, only_head: nn.Module | None, image: Tensor) -> None:
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
