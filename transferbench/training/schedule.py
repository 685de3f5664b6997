"""The schedules of a recipe: after which epochs it evaluates, and its learning rates."""

from __future__ import annotations

import math

from transferbench.suite import Recipe

__all__ = ["evaluated_epochs", "learning_rate_factor"]


def evaluated_epochs(schedule: str, epochs: int) -> frozenset[int]:
    """The epochs after which the network is evaluated; 0 is the initial state.

    ``sparse``: 0, 1, 2, 5, 10, 20, 50 ... and the last: about three per decade.
    """
    if schedule == "every":
        return frozenset(range(epochs + 1))
    if schedule == "last":
        return frozenset({epochs})
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return frozenset({0, epochs, *(epoch for epoch in steps if epoch < epochs)})


def learning_rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate factor of the schedule at a step, counted from 0.

    Warm-up reaches 1 at its last step; cosine then falls from 1 to 0 at the end of the training.
    """
    schedule = recipe.schedule
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "cosine":
        length = recipe.epochs * steps_per_epoch - warmup
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(length, 1), 1.0)))
    passed = sum(step >= milestone * steps_per_epoch for milestone in schedule.milestones)
    return schedule.gamma**passed
