"""The loss landscape: interpolated and extrapolated weights, their batch statistics and their loss.

Images stay on the device, so the loop over states is the outer one: each state is loaded once, may
come from a generator, and only one is in memory at a time.

Rejected: loss-landscapes, which evaluates one metric at a time and takes 1.2 to 3.7 times as long
(benchmark B11).

Shape letters: N images, C channels, H height, W width, K classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the usual name
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.metrics import Evaluation, score
from transferbench.networks.conv_bn_fusion import FusedNetwork, fuse_conv_bn
from transferbench.networks.losses import has_unknown, label_loss
from transferbench.networks.modules import StateDict, clone_state, eval_mode, load_state
from transferbench.specs import Metric, Task

__all__ = [
    "Criterion",
    "Examples",
    "Precision",
    "evaluate_states",
    "has_batch_statistics",
    "lerp_state",
    "recalibrate",
]

Precision = Literal["f32", "bf16", "fast"]
"""Of a forward pass; ``fast``: bfloat16 and batch normalisations fused into convolutions."""

BATCH_SIZE = 500
FUSION_IMAGES = 8
"""Number of images on which a fused network is compared with the original."""


class Examples(NamedTuple):
    """Images (N, C, H, W), normalised, and their labels, on one device.

    targets: int64 (N,) classes, or float32 (N, K) of 0 and 1 for multi-label tasks, NaN where
    unknown.
    """

    images: Tensor
    targets: Tensor


class Criterion(NamedTuple):
    """The task, which determines the loss, and the metric."""

    task: Task
    metric: Metric


# --- weights ----------------------------------------------------------------------------------


def lerp_state(a: StateDict, b: StateDict, weight: float) -> dict[str, Tensor]:
    """``(1 - weight) * a + weight * b``, exact at both ends; beyond [0, 1] it extrapolates.

    Tensors that are not floating point (counters) are those of ``a``.
    """
    return {
        name: torch.lerp(tensor, b[name], weight) if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }


# --- batch statistics -------------------------------------------------------------------------


def has_batch_statistics(net: nn.Module) -> bool:
    """Whether ``net`` has running batch statistics, which eval mode uses."""
    return bool(_batch_norms(net))


def recalibrate(net: nn.Module, images: Tensor, batch_size: int = BATCH_SIZE) -> None:
    """Recompute the batch statistics of ``net`` in place from ``images`` (N, C, H, W).

    Needed after arithmetic on weights, for which the stored statistics are wrong. Only batch
    normalisation layers leave eval mode, so that dropout stays off. Batches have nearly equal
    sizes, as their statistics are averaged with equal weights.

    Source: Izmailov et al. 2018, arXiv 1803.05407; Jordan et al. 2022, arXiv 2211.08403.
    """
    norms = _batch_norms(net)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with eval_mode(net), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.training = True
        try:
            for batch in torch.tensor_split(images, math.ceil(len(images) / batch_size)):
                net(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _batch_norms(net: nn.Module) -> list[_BatchNorm]:
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


# --- evaluation -------------------------------------------------------------------------------


def evaluate_states(
    net: nn.Module,
    states: Iterable[StateDict],
    splits: Mapping[str, Examples],
    criterion: Criterion,
    *,
    calibration: Tensor | None = None,
    precision: Precision = "f32",
    batch_size: int = BATCH_SIZE,
) -> list[dict[str, Evaluation]]:
    """Loss and metric of each state on each split, in eval mode; ``net`` is restored afterwards.

    ``states`` may be a generator and may be on any device; they are loaded into ``net``.
    ``calibration``: images from which the batch statistics of each state are recomputed (None:
    those of the state are used).

    Units: loss in nats, metric as a fraction; None where not finite or not defined.
    Error: the loss is a mean in float64 over logits in ``precision``.
    Raises: ``DataError`` for a state that does not fit the network.
    """
    before = clone_state(net)
    fused: FusedNetwork | None = None
    evaluations: list[dict[str, Evaluation]] = []
    try:
        for state in states:
            load_state(net, state)
            if calibration is not None:
                recalibrate(net, calibration, batch_size)
            if fused is not None:
                fused.refresh()
            elif precision == "fast" and not evaluations:
                few = next(iter(splits.values())).images[:FUSION_IMAGES]
                with eval_mode(net):
                    fused = fuse_conv_bn(net, few)
            current = net if fused is None else fused.net
            evaluations.append(
                {
                    name: _evaluate(current, examples, criterion, precision, batch_size)
                    for name, examples in splits.items()
                }
            )
    finally:
        load_state(net, before)
    return evaluations


def _evaluate(
    net: nn.Module, examples: Examples, criterion: Criterion, precision: str, batch_size: int
) -> Evaluation:
    images, targets = examples
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=precision != "f32")
    with eval_mode(net), torch.inference_mode(), autocast:
        logits = torch.cat([net(batch).float() for batch in torch.split(images, batch_size)])
    if criterion.task == "multi-label":
        partly_known = has_unknown(targets)
        loss = label_loss(logits.double(), targets.double(), partly_known=partly_known).item()
    else:
        loss = F.cross_entropy(logits.double(), targets).item()
    metric = score(criterion.metric, logits.cpu().numpy(), targets.cpu().numpy())
    return Evaluation(loss if math.isfinite(loss) else None, metric)
