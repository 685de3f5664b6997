"""How many images an evaluation takes at once on a card."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from transferbench.networks.modules import eval_mode
from transferbench.training.execution import Execution
from transferbench.training.generators import GeneratorStates

__all__ = ["evaluation_batch"]

SHARE = 64
"""One layer takes at most one in so many bytes: eight trainings, each with several tensors."""
LEAST = Execution.evaluation_batch
MOST = 16 * LEAST
"""From here on launches are no part of the time, also of the smallest networks."""


def evaluation_batch(net: nn.Module, images: Tensor, memory_bytes: int) -> int:
    """From ``LEAST`` doubled while the largest layer, with its inputs, takes a small share.

    ``images`` (N, C, H, W): some that the network is tried on; it and all generators stay as they
    are. ``memory_bytes``: of the whole card. What is free of it depends on what else runs, and
    batches of another size may round otherwise: equal jobs on equal cards take equal batches.
    """
    fitting = memory_bytes // (SHARE * max(_largest_layer(net, images), 1))
    batch = LEAST
    while 2 * batch <= min(fitting, MOST):
        batch *= 2
    return batch


def _largest_layer(net: nn.Module, images: Tensor) -> int:
    """The most bytes an image that the inputs and outputs of one module take."""
    largest = 0

    def measure(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        outputs = output if isinstance(output, tuple | list) else (output,)
        tensors = [each for each in (*inputs, *outputs) if isinstance(each, Tensor)]
        largest = max(largest, sum(each.nbytes for each in tensors))

    before = GeneratorStates.now()
    with ExitStack() as stack:
        stack.callback(before.restore)
        stack.enter_context(eval_mode(net))
        stack.enter_context(torch.no_grad())
        for module in net.modules():
            stack.enter_context(module.register_forward_hook(measure))
        net(images)
    return largest // len(images)
