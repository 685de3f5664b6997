"""Finished trials in the store, as the subjects of diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from transferbench.data.image_view import ImageView
from transferbench.data.perturbation import CompiledPerturbation, compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.engine.resources import WorkerResources
from transferbench.errors import StoreError
from transferbench.networks.modules import clone_state, load_state
from transferbench.registry import blamed, blamed_calls, parse_params
from transferbench.specs import Metric, Task
from transferbench.store import PAYLOAD, Artefact
from transferbench.training import DataSplit, TaskData

__all__ = ["FinishedTrial"]

PERTURBED_BATCH = 64
FLOAT_BYTES = 4
WHOLE_BYTES = 2**28
"""Images that take more as float32 are made batch by batch."""


class FinishedTrial:
    """A trial in the store, as a ``specs.Subject``, which documents the attributes."""

    def __init__(self, resources: WorkerResources, job: str) -> None:
        self._resources = resources
        self.job = job

    @cached_property
    def _artefact(self) -> Artefact:
        return self._resources.store.artefact(self.job)

    @cached_property
    def _described(self) -> dict[str, Any]:
        described: dict[str, Any] = self._artefact.json("trial.json")
        return described

    @cached_property
    def _outputs(self) -> dict[str, np.ndarray]:
        outputs = self._artefact.read("outputs.safetensors", load_file)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    @cached_property
    def _payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self._artefact.json(PAYLOAD)
        return payload

    @cached_property
    def _data(self) -> TaskData:
        return self._resources.task_data(self._payload)

    @cached_property
    def _unperturbed_data(self) -> TaskData:
        """The same images without the trial's perturbation."""
        if self._payload.get("perturbation") is None:
            return self._data
        return self._resources.task_data({**self._payload, "perturbation": None})

    @property
    def task(self) -> Task:
        task: Task = self._described["task"]
        return task

    @property
    def metric(self) -> Metric:
        metric: Metric = self._described["metric"]
        return metric

    @property
    def chance(self) -> float:
        return float(self._described["chance"])

    @property
    def labels(self) -> np.ndarray:
        return self._outputs["labels"]

    @property
    def history(self) -> Sequence[Mapping[str, float | None]]:
        history: list[dict[str, float | None]] = self._artefact.json("history.json")
        return history

    @property
    def logits(self) -> np.ndarray:
        return self._outputs["logits"]

    @property
    def features(self) -> np.ndarray:
        return self._outputs["features"]

    @property
    def modules(self) -> Mapping[str, Sequence[str]]:
        modules: dict[str, list[str]] = self._described["modules"]
        return modules

    @property
    def epochs(self) -> Sequence[int]:
        names = (name.removesuffix(".safetensors") for name in self._artefact.names)
        return sorted(int(name[6:]) for name in names if name.startswith("epoch-"))

    def state(self, which: str | int = "final") -> Mapping[str, torch.Tensor]:
        """The state dict ``init``, ``final``, ``best``, or that of a stored epoch, on the CPU."""
        name = f"epoch-{which}" if isinstance(which, int) else which
        file = f"{name}.safetensors"
        if file not in self._artefact.names and not self.history:
            raise StoreError(f"external weights have no state {name!r}: they are a final state")
        return self._artefact.read(file, load_file)

    def fresh(self, seed: int) -> Mapping[str, torch.Tensor]:
        """The state dict of a new random initialization of the whole network, on the CPU."""
        return clone_state(self._build({"init": seed, "head": seed}))

    def network(self, which: str | int = "final") -> nn.Module:
        net = self._build(self._payload["seeds"])
        load_state(net, self.state(which))
        net.to(self._resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        return net.eval()

    def head(self, net: nn.Module) -> nn.Module:
        spec, _ = self._resources.backbone(self._payload)
        return self._resources.head(spec, net)

    def images(self, split: str, limit: int | None = None) -> torch.Tensor:
        pipeline = _split(self._data, split).pipeline
        n = len(pipeline) if limit is None else min(limit, len(pipeline))
        # On the CPU, where the host looks up what belongs to them without waiting for a card.
        return self._images(pipeline.batch, torch.arange(n))

    def _images(
        self, make: Callable[[torch.Tensor], torch.Tensor], indices: torch.Tensor
    ) -> torch.Tensor:
        """The images at ``indices``, as a view that makes batches where they take much memory."""
        image = self._payload["image"]
        image_bytes = image["size"] ** 2 * image["channels"] * FLOAT_BYTES
        if len(indices) * image_bytes <= WHOLE_BYTES:
            return make(indices)
        return cast("torch.Tensor", ImageView([(make, indices)]))

    def perturbed(
        self,
        name: str,
        params: Mapping[str, Any],
        seed: int,
        split: str,
        limit: int | None = None,
    ) -> torch.Tensor:
        """As ``Subject.perturbed``.

        Raises: ``UnknownNameError`` for an unknown perturbation, ``PluginError`` for invalid
        parameters, ``SuiteError`` for parameters that do not fit the images.
        """
        spec = self._resources.registry.perturbation(name)
        parsed = parse_params(spec, params, origin=self.job)
        size, channels = self._payload["image"]["size"], self._payload["image"]["channels"]
        clean = _split(self._unperturbed_data, split).pipeline
        with blamed(f"perturbation {name!r}"):
            compiled = compile_perturbation(spec, parsed, (size, size, channels), seed)
        make = blamed_calls(f"perturbation {name!r}", partial(self._perturb_all, compiled, clean))
        return self._images(make, torch.arange(len(clean))[:limit])

    def _perturb_all(
        self, perturbation: CompiledPerturbation, clean: ImagePipeline, indices: torch.Tensor
    ) -> torch.Tensor:
        """Images of an unperturbed pipeline under ``perturbation``."""
        mean, std = self._payload["image"]["mean"], self._payload["image"]["std"]
        scale, shift = (torch.tensor(each, device=self._resources.device) for each in (std, mean))

        def decoded(batch: torch.Tensor) -> torch.Tensor:
            pixels = (clean.batch(batch).permute(0, 2, 3, 1) * scale + shift) * 255
            return pixels.round_().clamp_(0, 255).to(torch.uint8)

        # In batches: the intermediate tensors of a transform are many times its images' size.
        images = torch.cat([decoded(batch) for batch in torch.split(indices, PERTURBED_BATCH)])
        ids = clean.image_ids[indices.numpy()]
        pipeline = ImagePipeline(images, mean, std, perturbation, image_ids=ids)
        batches = torch.split(torch.arange(len(ids)), PERTURBED_BATCH)
        return torch.cat([pipeline.batch(batch) for batch in batches])

    def targets(self, split: str, limit: int | None = None) -> torch.Tensor:
        return _split(self._data, split).labels[:limit]

    def _build(self, seeds: Mapping[str, int]) -> nn.Module:
        return self._resources.network({**self._payload, "seeds": seeds})


def _split(data: TaskData, split: str) -> DataSplit:
    return data.train if split == "train" else data.test
