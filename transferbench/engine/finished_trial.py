"""A finished trial in the store, as a diagnostic sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from transferbench.data.perturbation import CompiledPerturbation, compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.engine.resources import Prepared, Workbench
from transferbench.networks.modules import clone_state, load_state
from transferbench.registry import blamed, parse_params
from transferbench.specs import Metric
from transferbench.specs import Task as TaskKind
from transferbench.store import Artefact
from transferbench.training import Labelled

__all__ = ["FinishedTrial"]

# Images perturbed at once.
PIECE = 64


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

    @cached_property
    def _plain(self) -> Prepared:
        """The same images without the trial's perturbation."""
        if self._payload.get("perturbation") is None:
            return self._prepared
        return self._bench.prepare({**self._payload, "perturbation": None})

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

    def perturbed(
        self,
        name: str,
        params: Mapping[str, Any],
        seed: int,
        split: str,
        limit: int | None = None,
    ) -> torch.Tensor:
        """``images(split, limit)`` under a registered perturbation instead of the trial's own.

        Raises: ``UnknownNameError`` for a name that nothing offers, ``PluginError`` for parameters
        it does not take, ``SuiteError`` for those that do not fit the images.
        """
        spec = self._bench.registry.perturbation(name)
        chosen = parse_params(spec, params, where=self.job)
        size, channels = self._payload["image"]["size"], self._payload["image"]["channels"]
        plain = _part(self._plain, split).pipeline
        with blamed(f"perturbation {name!r}"):
            compiled = compile_perturbation(spec, chosen, (size, size, channels), seed)
            # In pieces: what a transform needs beside its images is many times their size.
            indices = torch.split(torch.arange(len(plain))[:limit], PIECE)
            return torch.cat([self._under(compiled, plain, piece) for piece in indices])

    def _under(
        self, perturbation: CompiledPerturbation, plain: ImagePipeline, indices: torch.Tensor
    ) -> torch.Tensor:
        """Images of a pipeline that has no perturbation under this one."""
        mean, std = self._payload["image"]["mean"], self._payload["image"]["std"]
        images = plain.batch(indices).permute(0, 2, 3, 1)
        pixels = (images * images.new_tensor(std) + images.new_tensor(mean)) * 255
        ids = plain.image_ids[indices.numpy()]
        decoded = pixels.round_().clamp_(0, 255).to(torch.uint8)
        pipeline = ImagePipeline(decoded, mean, std, perturbation, image_ids=ids)
        return pipeline.batch(torch.arange(len(ids)))

    def targets(self, split: str, limit: int | None = None) -> torch.Tensor:
        """The labels that belong to ``images(split, limit)``."""
        return self._split(split).labels[:limit]

    def _build(self, seeds: Mapping[str, int]) -> nn.Module:
        payload = {**self._payload, "seeds": seeds}
        spec, params = self._bench.backbone(payload)
        return self._bench.network(payload, spec, params, payload["dataset"]["classes"])

    def _split(self, split: str) -> Labelled:
        return _part(self._prepared, split)


def _part(prepared: Prepared, split: str) -> Labelled:
    return prepared.task.train if split == "train" else prepared.task.test
