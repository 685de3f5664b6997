"""The outputs of a network for all images of a split, and their loss and metric.

Shape letters: N images, K classes or labels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from transferbench.data.pipeline import ImagePipeline
from transferbench.errors import is_out_of_memory
from transferbench.metrics import Evaluation, score
from transferbench.networks.losses import has_unknown
from transferbench.networks.modules import FeatureRecorder, eval_mode
from transferbench.training.execution import Execution, autocast
from transferbench.training.loss import task_loss
from transferbench.training.processes import ALONE
from transferbench.training.tasks import DataSplit, TaskData

__all__ = ["evaluate", "fitting", "model_outputs", "scored"]

ResultT = TypeVar("ResultT")


def fitting(
    execution: Execution, compute: Callable[[Execution], ResultT]
) -> tuple[ResultT, Execution]:
    """What ``compute`` gives, on half as many images at once wherever memory runs out for them.

    And the execution with which it fitted. Of several processes all would have to go back, so that
    theirs raises.
    """
    while True:
        try:
            return compute(execution), execution
        except Exception as error:
            images = execution.evaluation_batch
            if not is_out_of_memory(error) or images == 1 or execution.processes.size > 1:
                raise
        # Outside the handler, where nothing holds the tensors of the failed pass any more.
        if execution.device.type == "cuda":
            torch.cuda.empty_cache()
        execution = replace(execution, evaluation_batch=images // 2)


def model_outputs(
    net: nn.Module, head: nn.Module, pipeline: ImagePipeline, execution: Execution
) -> dict[str, torch.Tensor]:
    """``logits`` (N, K) and penultimate ``features`` (N, D) of all images, in order.

    In eval mode and float32, on the CPU.
    """

    def outputs(execution: Execution) -> dict[str, torch.Tensor]:
        logits, features = [], []
        with eval_mode(net), FeatureRecorder(head) as recorder, torch.no_grad():
            for images in _batches(pipeline, execution):
                logits.append(net(images).float())
                features.append(recorder.features.float())
        return {"logits": torch.cat(logits).cpu(), "features": torch.cat(features).cpu()}

    return fitting(replace(execution, processes=ALONE), outputs)[0]


def evaluate(
    net: nn.Module,
    split: DataSplit,
    data: TaskData,
    execution: Execution,
    precision: str = "f32",
    *,
    compiled: Callable[..., Any] | None = None,
) -> Evaluation:
    """Loss and metric over all images of ``split``, in eval mode on clean inputs.

    ``compiled``: a form of ``net``, which is used for whole batches.
    """

    def outputs(images: torch.Tensor) -> torch.Tensor:
        forward: Callable[..., torch.Tensor] = net
        # Not by its truth: that of a compiled network is its length.
        if compiled is not None and len(images) == execution.evaluation_batch:
            forward = compiled
        return forward(images).float()

    with eval_mode(net), torch.no_grad(), autocast(execution.device, precision):
        logits = [outputs(images) for images in _batches(split.pipeline, execution)]
    shape = (len(split.pipeline), data.classes)
    together = execution.processes.gathered(logits, execution.evaluation_batch, shape)
    return scored(together, split, data)


def scored(logits: torch.Tensor, split: DataSplit, data: TaskData) -> Evaluation:
    """Loss and metric of the logits (N, K) of all images of ``split``."""
    partly_known = has_unknown(split.labels)
    loss = task_loss(data.task, logits, split.labels, partly_known=partly_known).item()
    metric = score(data.metric, logits.cpu().numpy(), split.labels.cpu().numpy())
    return Evaluation(loss if math.isfinite(loss) else None, metric)


def _batches(pipeline: ImagePipeline, execution: Execution) -> Iterator[torch.Tensor]:
    """All images in order, not augmented; of several processes, the batches of this one."""
    # On the CPU, where the host looks up what belongs to the images without waiting for a card.
    indices = torch.arange(len(pipeline))
    every = torch.split(indices, execution.evaluation_batch)
    batches = execution.processes.of_batches(every)
    if execution.sharded and len(batches) * execution.processes.size < len(every):
        batches = [*batches, every[0]]  # all take part in each pass, and its outputs are left out
    pipeline.announce(batches)
    return map(pipeline.batch, batches)
