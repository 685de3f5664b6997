"""The loss landscape: interpolated and extrapolated weights, their batch statistics and their loss.

Images stay on the device, so the loop over states is the outer one: each state is loaded once, may
come from a generator, and only one is in memory at a time.

Rejected: loss-landscapes, which evaluates one metric at a time and takes 1.2 to 3.7 times as long
(benchmark B11).

Shape letters: N images, C channels, H height, W width, K classes or labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the usual name
from torch.nn.modules.batchnorm import _BatchNorm

from transferbench.metrics import Evaluation, score
from transferbench.networks.conv_bn_fusion import FusedNetwork, fuse_conv_bn
from transferbench.networks.losses import has_unknown, label_loss
from transferbench.networks.modules import StateDict, eval_mode, load_state
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
PENDING_BYTES = 2**26
"""Of logits that are kept on the device until they are scored together."""
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
    with eval_mode(net), torch.no_grad(), _cumulative_averages(norms):
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        for batch in torch.tensor_split(images, math.ceil(len(images) / batch_size)):
            net(batch)


@contextmanager
def _cumulative_averages(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Inside the block running statistics are averages over calls.

    As with a momentum of None, but that the host counts the calls: torch would ask the device.
    """
    calls: Counter[nn.Module] = Counter()

    def weigh(norm: nn.Module, _: object) -> None:
        calls[norm] += 1
        norm.momentum = 1.0 / calls[norm]  # type: ignore[assignment]  # of a normalisation

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.enter_context(norm.register_forward_pre_hook(weigh))
        yield


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
    before = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    fused: FusedNetwork | None = None
    scores = _Scores(splits, criterion)
    try:
        for index, state in enumerate(states):
            load_state(net, state)
            if calibration is not None:
                recalibrate(net, calibration, batch_size)
            if fused is not None:
                fused.refresh()
            elif precision == "fast" and index == 0:
                few = next(iter(splits.values())).images[:FUSION_IMAGES]
                with eval_mode(net):
                    fused = fuse_conv_bn(net, few)
            current = net if fused is None else fused.net
            scores.add({name: _logits(current, examples.images, precision, batch_size)
                        for name, examples in splits.items()})  # fmt: skip
    finally:
        load_state(net, before)
    return scores.evaluations()


def _logits(net: nn.Module, images: Tensor, precision: Precision, batch_size: int) -> Tensor:
    """Those of all images, float32 (N, K), in eval mode."""
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=precision != "f32")
    with eval_mode(net), torch.inference_mode(), autocast:
        return torch.cat([net(batch).float() for batch in torch.split(images, batch_size)])


class _Scores:
    """Losses and metrics of states, for many of which a card is waited for once."""

    def __init__(self, splits: Mapping[str, Examples], criterion: Criterion) -> None:
        self._targets = {name: examples.targets for name, examples in splits.items()}
        self._on_host = {name: targets.cpu().numpy() for name, targets in self._targets.items()}
        self._partly_known = {name: has_unknown(each) for name, each in self._targets.items()}
        self._criterion = criterion
        self._pending: list[dict[str, Tensor]] = []
        self._bytes = 0
        self._evaluations: list[dict[str, Evaluation]] = []

    def add(self, logits: dict[str, Tensor]) -> None:
        """The logits (N, K) of each split of the next state."""
        self._pending.append(logits)
        self._bytes += sum(each.nbytes for each in logits.values())
        if self._bytes > PENDING_BYTES:
            self._score()

    def evaluations(self) -> list[dict[str, Evaluation]]:
        """Of each state."""
        self._score()
        return self._evaluations

    def _score(self) -> None:
        pairs = [pair for by_split in self._pending for pair in by_split.items()]
        if pairs:
            losses = iter(torch.stack([self._loss(*pair) for pair in pairs]).tolist())
            together = torch.cat([logits for _, logits in pairs]).cpu().numpy()
            ends = np.cumsum([len(logits) for _, logits in pairs])
            parts = iter(np.split(together, ends[:-1]))
            self._evaluations += [
                {name: self._evaluation(name, next(losses), next(parts)) for name in by_split}
                for by_split in self._pending
            ]
        self._pending, self._bytes = [], 0

    def _loss(self, split: str, logits: Tensor) -> Tensor:
        targets = self._targets[split]
        if self._criterion.task == "multi-label":
            partly_known = self._partly_known[split]
            return label_loss(logits.double(), targets.double(), partly_known=partly_known)
        return F.cross_entropy(logits.double(), targets)

    def _evaluation(self, split: str, loss: float, logits: np.ndarray) -> Evaluation:
        metric = score(self._criterion.metric, logits, self._on_host[split])
        return Evaluation(loss if math.isfinite(loss) else None, metric)
