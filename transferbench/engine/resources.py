"""What the jobs of one worker process share: plugins, decoded datasets, store and device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from cachetools import LRUCache, cached
from torch import nn

from transferbench.data.cache import PreparedDataset, prepare
from transferbench.data.perturbation import CompiledPerturbation, compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.data.splits import select_test, select_training, shuffled_labels
from transferbench.errors import DataError, DeviceError, PluginError
from transferbench.networks.modules import build_network, partition, split_state
from transferbench.registry import Registry, blamed
from transferbench.specs import BackboneSpec, Memoize, Spec, uncached
from transferbench.store import Store
from transferbench.suite import Recipe
from transferbench.training import Labelled, Task

__all__ = [
    "Machine",
    "Prepared",
    "Workbench",
    "cuda_devices",
    "find_device",
    "lru_cache",
    "same_version",
]

AnySpec = TypeVar("AnySpec", bound=Spec)
P = ParamSpec("P")
R = TypeVar("R")


MEMORY_BYTES = 2**30
"""For what diagnoses of one worker share: the features of a dozen small networks."""

DEVICES = ("auto", "cpu", "cuda")
"""What a user may ask for; which GPU ``cuda`` is, CUDA_VISIBLE_DEVICES says."""


class Machine(NamedTuple):
    """Where jobs run: everything here may differ between two runs with equal numbers."""

    store: Path
    cache: Path
    data_root: Path | None
    device: str
    plugins: tuple[Path, ...] = ()
    plugin_variable: str = ""
    weights: Mapping[str, str] = {}
    micro_batch: int | None = None
    compile: bool = False


def find_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``.

    Raises: ``DeviceError`` where it is not there.
    """
    if name not in DEVICES:
        raise DeviceError(f"no device {name!r}; use one of {', '.join(DEVICES)}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name} was asked for, but PyTorch {torch.__version__} finds no CUDA device "
            "here; use --device cpu, or install a driver and a CUDA build of PyTorch"
        )
    return torch.device(name)


def cuda_devices() -> list[str]:
    """The names of the CUDA devices that PyTorch sees."""
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def lru_cache(size_bytes: int) -> Memoize:
    """An LRU cache of ``size_bytes`` of tensors and arrays; larger results are not stored."""
    cache: LRUCache[Hashable, Any] = LRUCache(size_bytes, getsizeof=_nbytes)
    memoize: Memoize = cached(cache, key=lambda key, _: key)(uncached)
    return memoize


def _nbytes(value: Any) -> int:
    """The bytes of all tensors and arrays in ``value``."""
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(_nbytes, value))
    return int(getattr(value, "nbytes", 0))


class Prepared(NamedTuple):
    """A dataset's images as one job trains and tests on them."""

    task: Task
    items: np.ndarray
    test_labels: np.ndarray


class Workbench:
    """Turns what a payload names into networks and images; each dataset is loaded once."""

    def __init__(self, registry: Registry, store: Store, machine: Machine) -> None:
        self.registry = registry
        self.store = store
        self.machine = machine
        self.device = find_device(machine.device)
        self.memoize = lru_cache(MEMORY_BYTES)
        self._datasets: dict[str, PreparedDataset] = {}

    def backbone(self, payload: Mapping[str, Any]) -> tuple[BackboneSpec, Any]:
        used = payload["backbone"]
        spec = self.registry.backbone(used["name"])
        return same_version(spec, used), spec.parse(used["params"])

    def network(
        self, payload: Mapping[str, Any], spec: BackboneSpec, params: Any, classes: int
    ) -> nn.Module:
        image, seeds = payload["image"], payload["seeds"]
        with blamed(f"backbone {spec.name!r}"):
            return build_network(
                spec,
                params,
                num_classes=classes,
                in_chans=image["channels"],
                image_size=image["size"],
                init_seed=seeds["init"],
                head_seed=seeds["head"],
            )

    def head(self, spec: BackboneSpec, net: nn.Module) -> nn.Module:
        """The layer of ``net`` that makes the logits. Raises: ``PluginError`` for anything else."""
        with blamed(f"backbone {spec.name!r}"):
            head = spec.head(net)
        if not isinstance(head, nn.Module):
            raise PluginError(
                f"backbone {spec.name!r}: head(net) gave {type(head).__name__}; it must give the "
                "layer of net that makes the logits"
            )
        return head

    def external_state(self, payload: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
        """The body of the entry's network with the weights from outside that a trial names.

        Raises: ``DataError`` where they cannot be had or do not fit.
        """
        spec, params = self.backbone(payload)
        tag = payload["initialization"]["weights"]["tag"]
        if spec.load_weights is None:
            raise PluginError(
                f"backbone {spec.name!r} can load no external weights; use --weights suite"
            )
        net = self.network(payload, spec, params, payload["dataset"]["classes"])
        with blamed(f"backbone {spec.name!r}"):
            spec.load_weights(params, net, self.machine.weights.get(tag, tag))
            body, _ = split_state(net.state_dict(), partition(spec, net))
        return body

    def _dataset(self, payload: Mapping[str, Any]) -> PreparedDataset:
        used, image = payload["dataset"], payload["image"]
        key = used["fingerprint"]
        if key not in self._datasets:
            spec = same_version(self.registry.dataset(used["name"]), used)
            found = prepare(
                spec,
                spec.parse(used["params"]),
                image_size=image["size"],
                channels=image["channels"],
                cache=self.machine.cache,
                data_root=self.machine.data_root,
            )
            if found.fingerprint != key:
                raise DataError(
                    f"dataset {used['name']!r} has other pixels or labels than when the run was "
                    f"planned (fingerprint {found.fingerprint[:12]}, planned {key[:12]}); "
                    "plan again"
                )
            self._datasets[key] = found
        return self._datasets[key]

    def prepare(self, payload: Mapping[str, Any]) -> Prepared:
        data = self._dataset(payload)
        selection = payload["selection"]
        train, test = data.splits["train"], data.splits["test"]
        chosen = select_training(
            train.labels,
            train.groups,
            seed=selection["seed"],
            labels_per_class=selection.get("labels_per_class"),
            validation=selection["validation"],
            validation_limit=selection.get("validation_limit"),
            task=data.task,
        )
        items = select_test(test.labels, selection.get("test_limit"), test.fingerprint)
        labels = train.labels
        if payload["shuffle_labels"]:
            labels = shuffled_labels(labels, payload["seeds"]["labels"])
        learned = self._labelled(payload, train.images, labels, chosen.train, training=True)
        validation = None
        if len(chosen.validation):
            validation = self._labelled(payload, train.images, labels, chosen.validation)
        tested = self._labelled(payload, test.images, test.labels, items)
        dataset = payload["dataset"]
        task = Task(
            dataset["task"], dataset["metric"], dataset["classes"], learned, tested, validation
        )
        return Prepared(task, items, test.labels[items])

    def _labelled(
        self,
        payload: Mapping[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        items: np.ndarray,
        *,
        training: bool = False,
    ) -> Labelled:
        """The chosen items as uint8 on the device, behind the pipeline of this payload."""
        recipe, image = Recipe.model_validate(payload["recipe"]), payload["image"]
        used = payload.get("perturbation")
        if used is not None and training and used["apply"] == "test-only":
            used = None
        augmentation = recipe.augmentation if training and recipe.augmentation.active else None
        pipeline = ImagePipeline(
            torch.from_numpy(images[items]).to(self.device),
            image["mean"],
            image["std"],
            perturbation=None if used is None else self._perturbation(used, image),
            augmentation=augmentation,
            image_ids=items,
        )
        if augmentation is None:
            pipeline.materialise()
        return Labelled(pipeline, torch.from_numpy(labels[items]).to(self.device))

    def _perturbation(
        self, used: Mapping[str, Any], image: Mapping[str, Any]
    ) -> CompiledPerturbation:
        spec = same_version(self.registry.perturbation(used["name"]), used)
        shape = (image["size"], image["size"], image["channels"])
        plugin = f"perturbation {spec.name!r}"
        with blamed(plugin):
            found = compile_perturbation(spec, spec.parse(used["params"]), shape, used["seed"])
        return replace(
            found,
            per_image=_blaming(plugin, found.per_image),
            transform=_blaming(plugin, found.transform),
        )


def _blaming(plugin: str, called: Callable[P, R] | None) -> Callable[P, R] | None:
    """``called``, naming the plugin in what it raises."""
    if called is None:
        return None

    def call(*given: P.args, **named: P.kwargs) -> R:
        with blamed(plugin):
            return called(*given, **named)

    return call


def same_version(spec: AnySpec, used: Mapping[str, Any]) -> AnySpec:
    """``spec``, if it is of the version that a payload was planned with."""
    if spec.version != used["version"]:
        raise PluginError(
            f"{spec.name!r} is version {spec.version} here, but the job was planned with version "
            f"{used['version']}; plan again"
        )
    return spec
