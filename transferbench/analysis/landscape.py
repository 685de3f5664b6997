"""The loss landscape: weights between and beyond two networks, and how well each point does.

Images are decoded once and held on the device, so the loop over states is the outer one: each
state is written once, may come from a generator, and no two are in memory at a time.

Rejected: loss-landscapes, which evaluates one metric at a time and takes 1.2 to 3.7 times as long
(benchmark B11).

Shape letters: N images, C channels, H height, W width, K classes or labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name everybody knows it by
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.metrics import Evaluation, score
from transferbench.networks.conv_bn_fusion import FusedNetwork, fuse_conv_bn
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
"""Of a forward pass; ``fast``: bfloat16 and batch normalisations folded into convolutions."""

BATCH = 500
FEW = 8
"""Images by which a network is compared with itself."""


class Examples(NamedTuple):
    """Images (N, C, H, W) as a network sees them, and their labels, on one device.

    targets: int64 (N,) classes, or float32 (N, K) of 0 and 1 for multi-label tasks.
    """

    images: Tensor
    targets: Tensor


class Criterion(NamedTuple):
    """What a point of the landscape is judged by: the loss of a task, and its metric."""

    task: Task
    metric: Metric


# --- weights ----------------------------------------------------------------------------------


def lerp_state(a: StateDict, b: StateDict, weight: float) -> dict[str, Tensor]:
    """``(1 - weight) * a + weight * b``, exact at both ends; beyond [0, 1] it extrapolates.

    What is not floating point (counters) is that of ``a``.
    """
    return {
        name: torch.lerp(tensor, b[name], weight) if tensor.is_floating_point() else tensor
        for name, tensor in a.items()
    }


# --- batch statistics -------------------------------------------------------------------------


def has_batch_statistics(net: nn.Module) -> bool:
    """Whether eval mode of ``net`` depends on statistics of the batches it was trained on."""
    return bool(_batch_norms(net))


def recalibrate(net: nn.Module, images: Tensor, batch_size: int = BATCH) -> None:
    """Recompute the batch statistics of ``net`` in place from ``images`` (N, C, H, W).

    After any arithmetic on weights the stored ones are those of no network. Only the batch
    normalisations leave eval mode: dropout must not disturb what they see. The batches are of
    nearly equal size, as their statistics are averaged with equal weights.

    Source: Izmailov et al. 2018, arXiv 1803.05407; Jordan et al. 2022, arXiv 2211.08403.
    """
    if has_batch_statistics(net):
        with _gathering_statistics(net), torch.no_grad():
            for batch in torch.tensor_split(images, math.ceil(len(images) / batch_size)):
                net(batch)


@contextmanager
def _gathering_statistics(net: nn.Module) -> Iterator[None]:
    """Inside the block, each forward pass is added to new statistics, their mean over passes."""
    norms = _batch_norms(net)
    momenta = [norm.momentum for norm in norms]
    with eval_mode(net):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's way to ask for a plain mean
            norm.training = True
        try:
            yield
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
    batch_size: int = BATCH,
) -> list[dict[str, Evaluation]]:
    """Loss and metric of each state on each split, in eval mode; ``net`` is left as it was.

    ``states`` may be a generator and may be on any device; they are written into ``net``.
    ``calibration``: images from which the batch statistics of each state are recomputed (None:
    they are those of the state).

    Units: loss in nats, metric as a fraction; None where not finite or not defined.
    Error: the loss is a mean in float64 over logits in ``precision``.
    Raises: ``DataError`` for a state that does not fit the network.
    """
    before = clone_state(net)
    quick = _Quick(net) if precision == "fast" else None
    found = []
    try:
        for state in states:
            load_state(net, state)
            if calibration is not None:
                recalibrate(net, calibration, batch_size)
            judged = net if quick is None else quick.up_to_date(splits)
            found.append(
                {
                    name: _evaluate(judged, examples, criterion, precision, batch_size)
                    for name, examples in splits.items()
                }
            )
    finally:
        load_state(net, before)
    return found


class _Quick:
    """A network with its batch normalisations folded, once it holds the first weights to judge."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._folded: FusedNetwork | None = None
        self._tried = False

    def up_to_date(self, splits: Mapping[str, Examples]) -> nn.Module:
        """The network to judge the weights by that ``net`` holds now."""
        if self._folded is not None:
            self._folded.refresh()
        elif not self._tried:
            images = next(iter(splits.values())).images[:FEW]
            with eval_mode(self._net):
                self._folded = fuse_conv_bn(self._net, images)
            self._tried = True
        return self._net if self._folded is None else self._folded.net


def _evaluate(
    net: nn.Module, examples: Examples, criterion: Criterion, precision: str, batch_size: int
) -> Evaluation:
    logits = _logits(net, examples.images, precision, batch_size)
    loss = float(_loss(logits, examples.targets, criterion.task))
    metric = score(criterion.metric, logits.cpu().numpy(), examples.targets.cpu().numpy())
    return Evaluation(loss if math.isfinite(loss) else None, metric)


def _logits(net: nn.Module, images: Tensor, precision: str, batch_size: int) -> Tensor:
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=precision != "f32")
    with eval_mode(net), torch.inference_mode(), autocast:
        return torch.cat([net(batch).float() for batch in torch.split(images, batch_size)])


def _loss(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    if task == "multi-label":
        return F.binary_cross_entropy_with_logits(logits.double(), targets.double())
    return F.cross_entropy(logits.double(), targets)
