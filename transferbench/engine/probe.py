"""What a captured step of a small network gains on this card."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import nn

from transferbench.engine.kernels import choose_kernels
from transferbench.suite import Recipe
from transferbench.training import Execution, Training, random_task
from transferbench.training.graph import CudaGraph, MakeGraph
from transferbench.training.group import Group

__all__ = ["probe_graph"]

STEPS, BATCH, SIDE, CLASSES, LAYERS = 100, 20, 16, 10, 12


class Probe(nn.Module):
    """Some hundred launches a step, of little work each."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(LAYERS):
            layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        logits: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return logits


def probe_graph(device: torch.device | None = None, make_graph: MakeGraph | None = None) -> str:
    """Steps a second, eager and captured, in a line; or why they cannot be captured.

    ``device``, ``make_graph``: a card and its graphs, unless others are given.
    """
    device = device or torch.device("cuda")
    choose_kernels(str(device), fast=False)
    if make_graph is None:
        make_graph = partial(CudaGraph, device, torch.cuda.graph_pool_handle())
    said: list[str] = []
    eager = _steps_a_second(Group(device, 1, make_graph, said.append, captures=False), device)
    captured = _steps_a_second(Group(device, 1, make_graph, said.append), device)
    return said[0] if said else f"{captured:.0f} steps/s, eager {eager:.0f} steps/s"


def _steps_a_second(group: Group[object], device: torch.device) -> float:
    data = random_task(STEPS * BATCH, (SIDE, SIDE, 3), CLASSES, device)
    recipe = Recipe.model_validate(
        {"optimizer": "adamw", "learning_rate": 1e-3, "batch_size": BATCH, "epochs": 1}
    )
    execution = Execution(device, captured=True)
    training = Training(Probe().to(device), data, recipe, execution, evaluated=())
    began = time.perf_counter()
    (ended,) = group.run([training.loop(0, 0)])
    if ended.error:
        raise ended.error
    return STEPS / (time.perf_counter() - began)
