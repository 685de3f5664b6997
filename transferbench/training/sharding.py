"""Weights, gradients and the optimizer's state in parts, one for each process of a training.

torch's fully_shard does it: a process has the whole of a block's weights while it computes that
block. An optimizer changes each element by itself, and so works on the parts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.errors import SuiteError
from transferbench.suite import Recipe
from transferbench.training.synchronised import synchronise_statistics

__all__ = ["Shards", "fills_a_card", "state_bytes"]

CARD_SHARE = 0.5
"""Of a card's memory that the state of a training may take whole: activations need the rest."""


def state_bytes(net: nn.Module, recipe: Recipe) -> int:
    """The bytes of weights, gradients, their sums and the optimizer's moments on one process."""
    moments = 2 if recipe.optimizer == "adamw" else int(recipe.momentum > 0)
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in net.parameters()]
    # DistributedDataParallel sums gradients in memory of its own.
    return sum(size * (3 + moments if trained else 1) for size, trained in sizes)


def fills_a_card(net: nn.Module, recipe: Recipe, memory_bytes: int) -> bool:
    """Whether the state of a training leaves a card too little memory to compute with."""
    return state_bytes(net, recipe) > CARD_SHARE * memory_bytes


class Shards:
    """The parts that this process has of the parameters of ``net``, which is changed in place.

    ``parts``: of each parameter the part that the optimizer changes. All processes call each
    method together.
    Raises: ``SuiteError`` where a network, or a recipe, cannot be spread.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        name = type(net).__name__
        if recipe.precision == "fp16":
            raise _refusal(name, "the scale of an fp16 loss would not be the same in all parts")
        synchronise_statistics(net)
        mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
        # What is in another layout cannot be spread.
        net.to(memory_format=torch.contiguous_format)
        try:
            for module in [*_blocks(net), net]:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
        except (NotImplementedError, ValueError) as error:
            raise _refusal(name, str(error)) from error
        net.to(device)  # the rest, which is not spread
        self._net: Any = net
        with torch.no_grad():
            self.parts = {each: _of(each).to_local().detach() for each in net.parameters()}

    @contextmanager
    def gradients_kept(self) -> Iterator[None]:
        """Inside the block gradients are added up here, and averaged with those of the next."""
        self._net.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._net.set_requires_gradient_sync(True)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Move the gradients, which are averaged by now, to the parts."""
        for parameter, part in self.parts.items():
            gradient, parameter.grad = parameter.grad, None
            part.grad = None if gradient is None else _of(gradient).to_local()

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole, as ``clone_state``; of the first process alone."""
        state = {}
        for name, tensor in self._net.state_dict().items():
            full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            if distributed.get_rank() == 0:
                state[name] = full.cpu().clone(memory_format=torch.contiguous_format)
        return state

    @torch.no_grad()
    def gathered(self, parameter: nn.Parameter, value: Any) -> Any:
        """A value of all elements of a parameter, on the CPU, from that of each part."""
        part = self.parts[parameter]
        if value is None or value.shape != part.shape:
            return value
        from torch.distributed.tensor import DTensor

        like = _of(parameter)
        spread = DTensor.from_local(value, like.device_mesh, like.placements, run_check=False,
                                    shape=like.shape, stride=like.stride())  # fmt: skip
        return spread.full_tensor().cpu()

    @torch.no_grad()
    def part(self, parameter: nn.Parameter, value: Any) -> Any:
        """The part of a value that ``gathered`` has put together."""
        if value is None or value.shape != parameter.shape:
            return value
        from torch.distributed.tensor import distribute_tensor

        like = _of(parameter)
        spread = distribute_tensor(value.to(like.device), like.device_mesh, like.placements,
                                   src_data_rank=None)  # fmt: skip
        return spread.to_local()

    def agreed(self, flags: Sequence[bool]) -> list[bool]:
        """What the first process says, in all of them."""
        device = next(iter(self.parts.values())).device
        of_first = torch.tensor(flags, dtype=torch.int32, device=device)
        distributed.broadcast(of_first, 0)
        return [bool(flag) for flag in of_first.tolist()]


def _blocks(net: nn.Module) -> list[nn.Module]:
    """What is computed one after another, inner ones first; batch statistics need their class."""
    sequences = [module for module in net.modules() if isinstance(module, nn.Sequential)]
    blocks = [
        child
        for sequence in reversed(sequences)
        for child in sequence.children()
        if not isinstance(child, _BatchNorm) and any(True for _ in child.parameters())
    ]
    return [block for block in dict.fromkeys(blocks) if block is not net]


def _of(tensor: Tensor) -> Any:
    """A DTensor, whose module is not imported where nothing is spread."""
    return tensor


def _refusal(network: str, why: str) -> SuiteError:
    return SuiteError(
        f"{network} cannot be spread over GPUs: {why}; give --no-shard where it fits one GPU, or "
        "leave out --gpus-per-job"
    )
