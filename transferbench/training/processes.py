"""One training on several processes: each takes its share of the images of every step.

Everything is drawn in every process for the whole batch, and process ``rank`` of ``size`` computes
with the rows ``rank::size`` of it. Gradients are averaged by torch's DistributedDataParallel, and
batch statistics are those of the whole batch, so that the steps are those of one process.

Error: parameters as those of one process, after some ten steps in f32: with SGD within 1e-6, 1e-5
with batch statistics; with AdamW within 1% of the learning rate. See ``refuse_other_rounding``.

Shape letters: N images of a batch, n of a process, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from transferbench.data.pipeline import BatchDraw, MixupDraw
from transferbench.errors import SuiteError
from transferbench.training.generators import GeneratorStates
from transferbench.training.synchronised import synchronise_statistics

__all__ = [
    "ALONE",
    "Processes",
    "Share",
    "averaged",
    "gradients_kept",
    "refuse_few_images",
    "refuse_other_positions",
    "refuse_other_rounding",
    "without_draws",
]


class Processes(NamedTuple):
    """How many processes one training has, and which of them this is."""

    rank: int = 0
    size: int = 1

    def of_batches(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """Those of whole batches that this process takes."""
        return batches[self.rank :: self.size]

    def share(self, indices: Tensor) -> Share:
        """This process's share of a step on the images at ``indices``."""
        return Share(indices, torch.arange(self.rank, len(indices), self.size))

    def announced(self, batches: Sequence[Tensor], mixup: float) -> Sequence[Tensor]:
        """The images of each batch that this process will make, where they are fixed by now."""
        if self.size == 1:
            return batches
        # What they are mixed with is drawn with each step.
        return [batch[self.rank :: self.size] for batch in batches] if mixup == 0 else []

    def gathered(self, logits: Sequence[Tensor], batch: int, shape: tuple[int, int]) -> Tensor:
        """The logits (N, K) = ``shape`` of all images, from those of each process's batches."""
        if self.size == 1:
            return torch.cat(list(logits))
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        together = torch.zeros(shape, device=device)
        rows = self.of_batches(torch.split(torch.arange(shape[0], device=device), batch))
        for row, values in zip(rows, logits[: len(rows)], strict=True):
            together[row] = values
        distributed.all_reduce(together)
        return together


ALONE = Processes()


class Share(NamedTuple):
    """What one process takes of a step.

    Shapes: ``indices`` (N,), of all images of the step; ``rows`` (n,), which of them it takes.
    """

    indices: Tensor
    rows: Tensor

    def images_of(self, batch: BatchDraw, mixup: MixupDraw | None) -> BatchDraw:
        """What was drawn for its images, and after them for those that they are mixed with."""
        rows = self.rows
        return batch.chunk(rows if mixup is None else torch.cat([rows, mixup.partner[rows]]))

    def mix(self, images: Tensor, targets: Tensor, mixup: MixupDraw) -> tuple[Tensor, Tensor]:
        """As ``data.pipeline.mix``: the images of this share, and the targets of the whole batch.

        Shapes: images (2n, C, H, W), as ``images_of`` has them; targets (N, K).
        """
        own, others = images.chunk(2)
        weight, partner = mixup
        mixed = torch.lerp(others, own, weight.to(images.dtype))
        return mixed, torch.lerp(targets[partner], targets, weight.to(targets.dtype))


def averaged(net: nn.Module, forward: Callable[..., Any]) -> DistributedDataParallel:
    """``forward``, which is ``net`` or a compiled form of it, with gradients of all processes.

    They are averaged; all processes call this together.
    Raises: ``SuiteError`` for batch statistics that cannot be those of the whole batch.
    """
    synchronise_statistics(net)
    # A parameter that no output depends on has no gradient, as in one process.
    return DistributedDataParallel(cast("nn.Module", forward), find_unused_parameters=True)


def refuse_few_images(batch_size: int, processes: Processes) -> None:
    """Raise ``SuiteError`` where a process would have no image of a step."""
    if batch_size < processes.size:
        raise SuiteError(
            f"a batch of {batch_size} images cannot be shared by {processes.size} processes; give "
            f"at most --gpus-per-job {batch_size}"
        )


def refuse_other_rounding(
    network: str, optimizer: str, precision: str, *, by_batch: bool, recorded: bool = False
) -> bool:
    """Whether several processes keep no tolerance, which is ``recorded``.

    ``by_batch``: whether the network is trained with batch statistics.
    Raises: ``SuiteError`` where they keep none, and it is not recorded.
    """
    if precision != "f32":
        why = f"in {precision} each process rounds its gradients before they are averaged"
    elif optimizer == "adamw" and by_batch:
        # AdamW divides a gradient by its size, and so moves by that of one which is all rounding.
        why = ("with batch statistics (BatchNorm) some gradients are zero but for rounding, from "
               "which AdamW takes whole steps")  # fmt: skip
    else:
        return False
    if not recorded:
        raise SuiteError(
            f"--gpus-per-job cannot train {network} to the parameters that one process gives: "
            f"{why}; leave out --gpus-per-job, or accept and record it with --accept-rounding"
        )
    return True


@contextmanager
def without_draws(network: str) -> Iterator[None]:
    """A forward pass of ``network``, which draws nothing: each process would draw its own numbers.

    Raises: ``SuiteError`` where it does.
    """
    before = GeneratorStates.now()
    yield
    if not before.equals(GeneratorStates.now()):
        raise SuiteError(
            f"{network} draws random numbers as it is trained (dropout, stochastic "
            "depth), which would be others on several processes than on one; leave out "
            "--gpus-per-job, or set its rates to 0"
        )


def refuse_other_positions(position: tuple[int, int] | None) -> None:
    """Raise ``RuntimeError`` where not all processes go on from this epoch and step."""
    everywhere: list[tuple[int, int] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, position)
    if set(everywhere) != {position}:
        raise RuntimeError(f"the processes of a training would go on from {everywhere}")


def gradients_kept(forward: Callable[..., Any]) -> AbstractContextManager[None]:
    """Inside the block gradients are added up here, and averaged with those of the next pass."""
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()
