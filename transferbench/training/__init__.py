"""Trains a network by a recipe, and returns its history and states.

Each step has two parts: the host draws its images, augmentations and rates (``StepDraw``), the
device computes from them alone and is never waited for. Losses and metrics are read once per
evaluated epoch.
"""

from __future__ import annotations

from transferbench.training.evaluation import evaluate, model_outputs
from transferbench.training.execution import PRECISIONS, Execution, refuse_smaller_batches
from transferbench.training.loop import DIVERGED, UNDEFINED, Training, TrainingResult
from transferbench.training.processes import refuse_other_rounding
from transferbench.training.schedule import evaluated_epochs, learning_rate_factor
from transferbench.training.step import set_train_mode
from transferbench.training.tasks import HISTORY_VALUES, SPLITS, DataSplit, TaskData, random_task

__all__ = [
    "DIVERGED",
    "HISTORY_VALUES",
    "PRECISIONS",
    "SPLITS",
    "UNDEFINED",
    "DataSplit",
    "Execution",
    "TaskData",
    "Training",
    "TrainingResult",
    "evaluate",
    "evaluated_epochs",
    "learning_rate_factor",
    "model_outputs",
    "random_task",
    "refuse_other_rounding",
    "refuse_smaller_batches",
    "set_train_mode",
]
