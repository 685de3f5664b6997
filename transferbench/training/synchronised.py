"""Batch normalisation by the statistics of the whole batch, of which each process has a share.

On a card torch's SyncBatchNorm does it, which has no kernels for the CPU: there ``_OnCpu`` does.

Shape letters: N images of this process, C channels, P processes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.errors import SuiteError

__all__ = ["synchronise_statistics"]

WITH_ACTIVATION = "timm.layers.norm_act.BatchNormAct2d"
"""By name: timm, which is slow to import, is there already where a network has one."""
SYNCHRONISED = {f"torch.nn.modules.batchnorm.BatchNorm{d}d" for d in (1, 2, 3)} | {WITH_ACTIVATION}
"""The types of which the code is known; a type derived from them may do anything with its batch."""


def synchronise_statistics(net: nn.Module) -> None:
    """Let the batch normalisations in ``net`` use the whole batch; weights keep their names.

    Raises: ``SuiteError`` for one of another type.
    """
    norms = {name: module for name, module in net.named_modules() if isinstance(module, _BatchNorm)}
    for name, module in norms.items():
        if _type_name(module) not in SYNCHRONISED:
            raise SuiteError(
                f"{type(net).__name__} cannot be trained on several processes: its {name} is a "
                f"{type(module).__name__}, which normalises by statistics of its batch and has no "
                "synchronised form; leave out --gpus-per-job, or build it with nn.BatchNorm2d"
            )
    if distributed.get_backend() == "nccl":
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]  # timm leaves it untyped
        return
    for module in norms.values():
        module.forward = partial(_forward, module)  # type: ignore[method-assign]  # of this one alone


def _type_name(module: nn.Module) -> str:
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    normalised, mean_C, variance_C = _OnCpu.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats and norm.running_mean is not None:
        _track(norm, mean_C, variance_C)
    if _type_name(norm) == WITH_ACTIVATION:
        rest: Any = norm
        normalised = rest.act(rest.drop(normalised))
    return cast("Tensor", normalised)


@torch.no_grad()
def _track(norm: _BatchNorm, mean_C: Tensor, variance_C: Tensor) -> None:
    """Update the running statistics, as ``torch.nn.BatchNorm2d`` does."""
    tracked, running_mean, running_var = (
        cast("Tensor", getattr(norm, name))
        for name in ("num_batches_tracked", "running_mean", "running_var")
    )
    tracked.add_(1)
    momentum = 1 / float(tracked) if norm.momentum is None else norm.momentum
    running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
    running_var.lerp_(variance_C.to(running_var.dtype), momentum)


class _OnCpu(torch.autograd.Function):
    """Normalised ``x`` (N, C, ...), with the mean and unbiased variance (C,) of the whole batch.

    Sums are of double precision, as those of torch on the CPU.
    Source: Ioffe and Szegedy 2015, section 3; moments are joined as in Chan et al. 1979.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = x.double().transpose(0, 1).flatten(1)
        moments = torch.stack([own.new_full((len(own),), own.shape[1]), own.mean(1),
                               own.var(1, correction=0) * own.shape[1]])  # fmt: skip
        of_each = [torch.empty_like(moments) for _ in range(distributed.get_world_size())]
        distributed.all_gather(of_each, moments)
        count_PC, mean_PC, squares_PC = torch.stack(of_each, dim=1)
        count_C = count_PC.sum(0)
        mean_C = (count_PC * mean_PC).sum(0) / count_C
        squares_C = (squares_PC + count_PC * (mean_PC - mean_C) ** 2).sum(0)
        scale_C = (squares_C / count_C + eps).rsqrt()
        ctx.save_for_backward(x, weight_C, mean_C, scale_C, count_C)
        out = (x - _of_channels(mean_C, x)) * _of_channels(scale_C, x)
        if weight_C is not None:
            out = out * _of_channels(weight_C, x)
        if bias_C is not None:
            out = out + _of_channels(bias_C, x)
        unbiased_C = squares_C / (count_C - 1)
        ctx.mark_non_differentiable(mean_C, unbiased_C)
        return out.to(x.dtype), mean_C, unbiased_C

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight_C, mean_C, scale_C, count_C = ctx.saved_tensors
        normalised = (x - _of_channels(mean_C, x)) * _of_channels(scale_C, x)
        others = [dim for dim in range(x.dim()) if dim != 1]
        sums = torch.stack([grad.double().sum(others), (grad * normalised).sum(others)])
        # Of the parameters each process has its share, which is averaged with their gradients.
        grad_bias, grad_weight = sums.clone()
        distributed.all_reduce(sums)
        mean_grad, mean_along = (_of_channels(each / count_C, x) for each in sums)
        factor_C = scale_C if weight_C is None else scale_C * weight_C
        grad_x = (grad - mean_grad - normalised * mean_along) * _of_channels(factor_C, x)
        dtype = None if weight_C is None else weight_C.dtype
        return (
            grad_x.to(x.dtype),
            None if weight_C is None else grad_weight.to(dtype),
            grad_bias.to(dtype) if ctx.needs_input_grad[2] else None,
            None,
        )


def _of_channels(values_C: Tensor, x: Tensor) -> Tensor:
    """Values of channels, to be broadcast over ``x`` (N, C, ...)."""
    return values_C.view(1, -1, *[1] * (x.dim() - 2))
