"""A finished trial in the store, as a diagnostic sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from transferbench.modules import clone_state, load_state
from transferbench.specs import Metric
from transferbench.specs import Task as TaskKind
from transferbench.store import Artefact
from transferbench.training import Labelled
from transferbench.workbench import Prepared, Workbench

__all__ = ["FinishedTrial"]


class FinishedTrial:
    """A trial in the store as a diagnostic sees it (``specs.Subject``)."""

    def __init__(self, bench: Workbench, job: str) -> None:
        self._bench = bench
        self.job = job

    @cached_property
    def _artefact(self) -> Artefact:
        return self._bench.store.artefact(self.job)

    @cached_property
    def _described(self) -> dict[str, Any]:
        described: dict[str, Any] = self._artefact.json("trial.json")
        return described

    @cached_property
    def _outputs(self) -> dict[str, np.ndarray]:
        found = load_file(self._artefact.path("outputs.safetensors"))
        return {name: tensor.numpy() for name, tensor in found.items()}

    @cached_property
    def _payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self._artefact.json("payload.json")
        return payload

    @cached_property
    def _prepared(self) -> Prepared:
        return self._bench.prepare(self._payload)

    @property
    def task(self) -> TaskKind:
        """The kind of task: multi-class or multi-label."""
        kind: TaskKind = self._described["task"]
        return kind

    @property
    def metric(self) -> Metric:
        """The metric: accuracy or auc."""
        metric: Metric = self._described["metric"]
        return metric

    @property
    def chance(self) -> float:
        """The metric of a network that knows only the most frequent class."""
        return float(self._described["chance"])

    @property
    def labels(self) -> np.ndarray:
        """Of the test subset: int64 (N,) or float32 (N, L)."""
        return self._outputs["labels"]

    @property
    def history(self) -> Sequence[Mapping[str, float | None]]:
        """One mapping for each evaluated epoch."""
        history: list[dict[str, float | None]] = self._artefact.json("history.json")
        return history

    @property
    def logits(self) -> np.ndarray:
        """Of the final state on the test subset, float32 (N, K)."""
        return self._outputs["logits"]

    @property
    def features(self) -> np.ndarray:
        """What the head of the final state read on the test subset, float32 (N, D)."""
        return self._outputs["features"]

    @property
    def modules(self) -> Mapping[str, Sequence[str]]:
        """The backbone's partition: module name to state names."""
        modules: dict[str, list[str]] = self._described["modules"]
        return modules

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs whose states were kept."""
        names = (name.removesuffix(".safetensors") for name in self._artefact.names)
        return sorted(int(name[6:]) for name in names if name.startswith("epoch-"))

    def state(self, which: str | int = "final") -> Mapping[str, torch.Tensor]:
        """The state dict ``init``, ``final``, ``best`` or of a kept epoch, on the CPU."""
        name = f"epoch-{which}" if isinstance(which, int) else which
        return load_file(self._artefact.path(f"{name}.safetensors"))

    def fresh(self, seed: int) -> Mapping[str, torch.Tensor]:
        """The state dict of another random draw of the whole network, on the CPU."""
        return clone_state(self._build({"init": seed, "head": seed}))

    def network(self, which: str | int = "final") -> nn.Module:
        """A network holding ``state(which)``, in eval mode on the device."""
        net = self._build(self._payload["seeds"])
        load_state(net, self.state(which))
        net.to(self._bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        return net.eval()

    def head(self, net: nn.Module) -> nn.Module:
        """The layer of a ``network`` whose input are the features."""
        spec, _ = self._bench.backbone(self._payload)
        return self._bench.head(spec, net)

    def images(self, split: str, limit: int | None = None) -> torch.Tensor:
        """Normalised, perturbed images (N, C, H, W) of ``train`` or ``test`` in fixed order."""
        pipeline = self._split(split).pipeline
        n = len(pipeline) if limit is None else min(limit, len(pipeline))
        return pipeline.batch(torch.arange(n, device=self._bench.device), None)

    def targets(self, split: str, limit: int | None = None) -> torch.Tensor:
        """The labels that belong to ``images(split, limit)``."""
        return self._split(split).labels[:limit]

    def _build(self, seeds: Mapping[str, int]) -> nn.Module:
        payload = {**self._payload, "seeds": seeds}
        spec, params = self._bench.backbone(payload)
        return self._bench.network(payload, spec, params, payload["dataset"]["classes"])

    def _split(self, split: str) -> Labelled:
        task = self._prepared.task
        return task.train if split == "train" else task.test
