"""A task with its data: the images and labels of its splits, on one device.

Shape letters: N images, K classes or labels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from transferbench.data.pipeline import ImagePipeline
from transferbench.specs import ImageShape, Metric, Task

__all__ = ["HISTORY_VALUES", "SPLITS", "DataSplit", "TaskData", "random_task"]

SPLITS = ("train", "test", "validation")
HISTORY_VALUES = tuple(f"{split}_{value}" for split in SPLITS for value in ("loss", "metric"))
"""The keys of a row of the history, besides ``epoch``."""


class DataSplit(NamedTuple):
    """A pipeline of images, and their labels on the same device.

    labels: int64 (N,) classes, or float32 (N, K) of 0 and 1 for multi-label tasks, NaN where
    unknown.
    """

    pipeline: ImagePipeline
    labels: torch.Tensor


class TaskData(NamedTuple):
    """A task with its metric and the splits of its dataset.

    ``test`` has no image where a learning rate is tuned.
    """

    task: Task
    metric: Metric
    classes: int
    train: DataSplit
    test: DataSplit
    validation: DataSplit | None


def random_task(
    n: int, image_shape: ImageShape, classes: int, device: torch.device, task: Task = "multi-class"
) -> TaskData:
    """``n`` images of uniform noise with random labels, to try and to time a network on."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *image_shape), dtype=torch.uint8, generator=draws)
    several = task == "multi-label"
    shape, high = ((n, classes), 2) if several else ((n,), classes)
    labels = torch.randint(0, high, shape, generator=draws)
    constants = [0.5] * image_shape[-1]
    split = DataSplit(
        ImagePipeline(images.to(device), constants, constants),
        (labels.float() if several else labels).to(device),
    )
    return TaskData(task, "auc" if several else "accuracy", classes, split, split, None)
