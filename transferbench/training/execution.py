"""The settings of a machine that change no results."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transferbench.errors import SuiteError
from transferbench.training.processes import ALONE, Processes

__all__ = ["PRECISIONS", "Execution", "autocast", "refuse_smaller_batches"]

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """The settings of a machine that do not change results and are part of no id.

    ``micro_batch``: images per forward pass; gradients accumulate over the batch of a step. Only
    for networks without batch statistics: see ``refuse_smaller_batches``. ``captured``: steps are
    replayed by a graph, so that the host computes all that it does when it draws them.
    ``processes``: that share each step of the training; ``sharded``: and its state.
    """

    device: torch.device
    micro_batch: int | None = None
    evaluation_batch: int = 500
    compile: bool = False
    captured: bool = False
    processes: Processes = ALONE
    sharded: bool = False


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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The precision of a recipe, for the operations inside the block."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "f32")
