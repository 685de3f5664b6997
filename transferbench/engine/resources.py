"""Resources that the jobs of one worker process share: plugins, datasets, store and device."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from cachetools import LRUCache, cached
from torch import nn

from transferbench.analysis.memory import free_bytes
from transferbench.data.cache import (
    PreparedDataset,
    PreparedSplit,
    prepare,
    prepared_as,
    stored_form,
)
from transferbench.data.perturbation import CompiledPerturbation, compile_perturbation
from transferbench.data.pipeline import ImagePipeline, View
from transferbench.data.splits import planned_training, select_test, shuffled_labels
from transferbench.data.streaming import StreamedImages
from transferbench.errors import DamagedImagesError, DataError, DeviceError, PluginError
from transferbench.networks.broken_outputs import broken_outputs
from transferbench.networks.modules import (
    body_state,
    build_network,
    head_layers,
    partition,
)
from transferbench.networks.weight_paths import locate_weights
from transferbench.registry import Registry, blamed, blamed_calls
from transferbench.specs import BackboneSpec, Memoize, Spec, uncached
from transferbench.store import PAYLOAD, Store
from transferbench.suite import Augmentation
from transferbench.training import DataSplit, TaskData

__all__ = [
    "ExternalState",
    "Machine",
    "WorkerResources",
    "cuda_devices",
    "find_device",
    "lru_cache",
    "same_version",
]

AnySpec = TypeVar("AnySpec", bound=Spec)

SHARE_OF_MEMORY = 4
"""A split may take one in so many of the free bytes: there are three, and what is computed."""

SAVE_SECONDS = 600.0
"""Between two times that a training is kept, so that a restart goes on from there."""

CACHE_BYTES = 2**30
"""For results that diagnoses share: the features of a dozen small networks."""

DEVICES = ("auto", "cpu", "cuda")
"""The choices of ``--device``; CUDA_VISIBLE_DEVICES selects the GPU of ``cuda``."""


class Machine(NamedTuple):
    """The machine that runs jobs: two runs may differ in all of this and have equal numbers.

    ``weights``: the files of external weights, by their sha256. ``offline``: no network for them.
    ``group``: trainings at a time. ``fast_kernels``: instead of deterministic ones, on a card.
    ``compile``: the networks of trainings; None for those of which it pays.
    ``save_seconds``: after which an unfinished training is written each time.
    ``code``: of the plugin files, with which the run was planned, by the name of the file.
    ``states``: those that a training stores, by job; all where it is not named.
    ``image_bytes``: of the images of a split that a worker, one of ``slots``, has in memory at
    most; None for a share of what is free.
    ``versions``: of the packages where the run was planned; a worker that has others is refused,
    but where ``accept_versions``. Empty: not compared.
    ``accept_rounding``: of several processes, where they keep no tolerance. ``shard``: whether
    they have parts of a training's state; None where it would fill a card.
    ``processes``: that train a network together; ``rank``: which of them this is, None for the
    worker that starts them.
    """

    store: Path
    cache: Path
    data_root: Path | None
    device: str
    plugins: tuple[Path, ...] = ()
    plugin_variable: str = ""
    weights: Mapping[str, str] = {}
    micro_batch: int | None = None
    compile: bool | None = None
    offline: bool = False
    group: int = 1
    fast_kernels: bool = False
    save_seconds: float = SAVE_SECONDS
    code: Mapping[str, str] = {}
    states: Mapping[str, tuple[str, ...]] = {}
    image_bytes: int | None = None
    slots: int = 1
    versions: Mapping[str, str] = {}
    accept_versions: bool = False
    accept_rounding: bool = False
    shard: bool | None = None
    processes: int = 1
    rank: int | None = None


class ExternalNetwork(NamedTuple):
    """A network with external weights, and what its backbone says on their loading."""

    net: nn.Module
    remark: str


class ExternalState(NamedTuple):
    """A network's body with external weights, and what its backbone says on their loading."""

    body: Mapping[str, torch.Tensor]
    remark: str


def find_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``.

    Raises: ``DeviceError`` where it is not available.
    """
    if name not in DEVICES:
        raise DeviceError(f"no device {name!r}; use one of {', '.join(DEVICES)}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name} was requested, but PyTorch {torch.__version__} finds no CUDA device "
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


class WorkerResources:
    """Builds the networks and datasets that a payload names; each dataset is loaded once."""

    def __init__(self, registry: Registry, store: Store, machine: Machine) -> None:
        self.registry = registry
        self.store = store
        self.machine = machine
        self.device = find_device(machine.device)
        self.memoize = lru_cache(CACHE_BYTES)
        self._datasets: dict[str, PreparedDataset] = {}

    def payload(self, job: str) -> dict[str, Any]:
        """What a finished job computed; {} where an older version has not written it."""
        artefact = self.store.artefact(job)
        payload: dict[str, Any] = {}
        if PAYLOAD in artefact.names:
            payload = artefact.json(PAYLOAD)
        return payload

    def backbone(self, payload: Mapping[str, Any]) -> tuple[BackboneSpec, Any]:
        planned = payload["backbone"]
        spec = self.registry.backbone(planned["name"])
        return same_version(spec, planned), spec.parse(planned["params"])

    def network(self, payload: Mapping[str, Any]) -> nn.Module:
        spec, params = self.backbone(payload)
        image, seeds = payload["image"], payload["seeds"]
        # External weights name no dataset; without a known head, theirs is never looked at.
        classes = payload["dataset"]["classes"] if "dataset" in payload else payload["classes"] or 1
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
        """The final layer of ``net``, or a list of several. Raises: ``PluginError`` for others."""
        with blamed(f"backbone {spec.name!r}"):
            head = spec.head(net)
        if not isinstance(head, nn.Module) or not head_layers(head):
            raise PluginError(
                f"backbone {spec.name!r}: head(net) gave {type(head).__name__}; it must give the "
                "layer of net that makes the logits, or several in an nn.ModuleList"
            )
        return head

    def external_state(
        self, payload: Mapping[str, Any], *, evaluate: bool = False
    ) -> ExternalState:
        """The body of the entry's network with the external weights that a trial names.

        ``evaluate``: look at the outputs for a few images too.

        Raises: as ``external_network``; ``DataError`` where they are broken.
        """
        spec, _ = self.backbone(payload)
        net, remark = self.external_network(payload, payload["initialization"]["weights"])
        with blamed(f"backbone {spec.name!r}"):
            body = body_state(net.state_dict(), partition(spec, net))
        if evaluate:
            image, weights = payload["image"], payload["initialization"]["weights"]
            with blamed(f"backbone {spec.name!r}"):
                head = self.head(spec, net)
                broken = broken_outputs(net, head, image["channels"], image["size"])
            if broken:
                file = self.machine.weights.get(weights["sha256"])
                raise DataError(
                    f"with the weights {file or weights['tag']} {broken}, in eval mode and for"
                    " different images of noise: nothing can be learnt from them, so give other"
                    " weights"
                )
        return ExternalState(body, remark)

    def external_network(
        self, payload: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> ExternalNetwork:
        """The network of ``payload`` with external ``weights``, a tag and a sha256.

        Raises: ``DataError`` where they cannot be loaded, do not fit, are not finite, or have
        changed since the run was planned.
        """
        spec, params = self.backbone(payload)
        tag, sha256 = weights["tag"], weights["sha256"]
        if spec.load_weights is None:
            raise PluginError(
                f"backbone {spec.name!r} can load no external weights; use --weights suite"
            )
        net = self.network(payload)
        file = self.machine.weights.get(sha256)
        with (
            blamed(f"backbone {spec.name!r}"),
            _unchanged(file, sha256),
            _network_refused() if self.machine.offline else nullcontext(),
        ):
            if sha256 and not file and all(tag != each.tag for each in spec.weights(params)):
                # Its tag is the name of a file, and another one here may have that name.
                raise DataError(f"no file of the weights {tag} ({sha256[:12]}) is here: pass"
                                " --weights FILE")  # fmt: skip
            remark = spec.load_weights(params, net, file or tag)
        self._refuse_not_finite(net, payload, file or tag)
        return ExternalNetwork(net, remark if isinstance(remark, str) else "")

    def _refuse_not_finite(self, net: nn.Module, payload: Mapping[str, Any], source: str) -> None:
        """Raise an error where weights are NaN or infinite that a new network has finite."""
        broken = {name: tensor for name, tensor in net.state_dict().items() if not _finite(tensor)}
        if not broken:
            return
        fresh = self.network(payload).state_dict()  # masks of some networks are infinite
        for name, tensor in broken.items():
            if _finite(fresh[name]):
                count = int((~torch.isfinite(tensor)).sum())
                raise DataError(
                    f"the weights {source} are not finite: {count} of {tensor.numel()} values of"
                    f" {name} are NaN or infinite; the training that wrote them diverged or the"
                    " file is damaged, so give other weights"
                )

    def _dataset(self, payload: Mapping[str, Any]) -> PreparedDataset:
        planned, image = payload["dataset"], payload["image"]
        key = planned["fingerprint"]
        if key not in self._datasets:
            spec = same_version(self.registry.dataset(planned["name"]), planned)
            params = spec.parse(planned["params"])
            spec = spec.with_params(params)
            dataset = prepared_as(spec, key, self.machine.cache) or prepare(
                spec,
                params,
                stored_form(image),
                cache=self.machine.cache,
                data_root=self.machine.data_root,
                code=self.registry.file_code("dataset", spec.name),
            )
            if dataset.fingerprint != key:
                raise DataError(
                    f"dataset {planned['name']!r} has other pixels or labels than when the run was "
                    f"planned (fingerprint {dataset.fingerprint[:12]}, planned {key[:12]}); "
                    "plan again"
                )
            self._datasets[key] = dataset
        return self._datasets[key]

    def task_data(self, payload: Mapping[str, Any], *, test: bool = True) -> TaskData:
        """The images that a job trains and validates on, and with ``test`` those it tests on."""
        try:
            return self._task_data(payload, test=test)
        except DamagedImagesError:
            # The dataset is decoded again, in place of what was damaged.
            self._datasets.pop(payload["dataset"]["fingerprint"])
            return self._task_data(payload, test=test)

    def _task_data(self, payload: Mapping[str, Any], *, test: bool) -> TaskData:
        dataset = self._dataset(payload)
        selection = payload["selection"]
        train, tested = dataset.splits["train"], dataset.splits["test"]
        positions = planned_training(train, selection, dataset.classes)
        limit = selection.get("test_limit") if test else 0
        stratify = selection.get("stratify")
        test_positions = select_test(tested.labels, limit, tested.fingerprint, stratify)
        labels = train.labels
        if payload["shuffle_labels"]:
            labels = shuffled_labels(labels, payload["seeds"]["labels"])
        validation = None
        if len(positions.validation):
            validation = self._split(payload, train, labels, positions.validation)
        planned = payload["dataset"]
        return TaskData(
            planned["task"],
            planned["metric"],
            planned["classes"],
            train=self._split(payload, train, labels, positions.train, training=True),
            test=self._split(payload, tested, tested.labels, test_positions),
            validation=validation,
        )

    def test_examples(self, payload: Mapping[str, Any], count: int) -> np.ndarray:
        """What a network sees of test images, of as many classes as there are.

        Shapes: uint8 (N, H, W, C) with N at most ``count``.
        """
        dataset, selection, image = self._dataset(payload), payload["selection"], payload["image"]
        tested = dataset.splits["test"]
        limit, stratify = selection.get("test_limit"), selection.get("stratify")
        positions = select_test(tested.labels, limit, tested.fingerprint, stratify)
        labels = tested.labels[positions]
        if labels.ndim == 1:
            _, firsts = np.unique(labels, return_index=True)
            positions = positions[firsts]
        spread = np.linspace(0, len(positions) - 1, min(count, len(positions)))
        chosen = positions[spread.round().astype(np.int64)]
        pipeline = self._split(payload, tested, tested.labels, chosen).pipeline
        batch = pipeline.batch(torch.arange(len(chosen))).cpu().permute(0, 2, 3, 1)
        pixels = (batch * torch.tensor(image["std"]) + torch.tensor(image["mean"])) * 255
        return pixels.round().clamp(0, 255).to(torch.uint8).numpy()

    def _split(
        self,
        payload: Mapping[str, Any],
        split: PreparedSplit,
        labels: np.ndarray,
        positions: np.ndarray,
        *,
        training: bool = False,
    ) -> DataSplit:
        """The images at ``positions`` on the device, with the pipeline of this payload."""
        augmentation = Augmentation.model_validate(payload["recipe"]["augmentation"])
        image, planned = payload["image"], payload.get("perturbation")
        if planned is not None and training and planned["apply"] == "test-only":
            planned = None
        pipeline = ImagePipeline(
            self._images(split, positions),
            image["mean"],
            image["std"],
            perturbation=None if planned is None else self._perturbation(planned, image),
            augmentation=augmentation if training else None,
            view=View(image["size"], _aspects(split, positions)),
            image_ids=positions,
        )
        pipeline.precompute()
        return DataSplit(pipeline, torch.from_numpy(labels[positions]).to(self.device))

    def _images(self, split: PreparedSplit, positions: np.ndarray) -> torch.Tensor | StreamedImages:
        """The stored images, on the device, or on the disk where they are too many."""
        shape = split.images.shape[1:]
        limit = self.machine.image_bytes
        if limit is None:
            free = free_bytes(self.device)
            limit = free // (SHARE_OF_MEMORY * self.machine.slots) if free is not None else None
        if limit is not None and len(positions) * math.prod(shape) > limit:
            return StreamedImages(split.read, positions, shape, self.device)
        return torch.from_numpy(split.read(positions)).to(self.device)

    def _perturbation(
        self, planned: Mapping[str, Any], image: Mapping[str, Any]
    ) -> CompiledPerturbation:
        spec = same_version(self.registry.perturbation(planned["name"]), planned)
        shape = (image["size"], image["size"], image["channels"])
        plugin = f"perturbation {spec.name!r}"
        with blamed(plugin):
            params = spec.parse(planned["params"])
            perturbation = compile_perturbation(spec, params, shape, planned["seed"])
        # The plugin is also named in the errors of later calls.
        per_image, transform = perturbation.per_image, perturbation.transform
        return replace(
            perturbation,
            per_image=per_image and blamed_calls(plugin, per_image),
            transform=transform and blamed_calls(plugin, transform),
        )


def _aspects(split: PreparedSplit, positions: np.ndarray) -> torch.Tensor | None:
    if split.aspects is None:
        return None
    return torch.from_numpy(split.aspects[positions].astype(np.float64))


@contextmanager
def _unchanged(file: str | None, sha256: str | None) -> Iterator[None]:
    """Raise ``DataError`` where a file of weights is not, or not any more, that of the plan."""
    _refuse_changed(file, sha256)
    yield
    _refuse_changed(file, sha256)


def _refuse_changed(file: str | None, sha256: str | None) -> None:
    located = locate_weights(file) if file else None
    if file and (located is None or located.sha256 != sha256):
        raise DataError(
            f"the weights {file} have changed since the run was planned (sha256"
            f" {str(sha256)[:12]}); run again, and they are another entry"
        )


@contextmanager
def _network_refused() -> Iterator[None]:
    """Inside the block plugins find the environment variable that refuses them the network."""
    name, before = "HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE")
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite; a sum is NaN or infinite where one of them is."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all())


def same_version(spec: AnySpec, planned: Mapping[str, Any]) -> AnySpec:
    """``spec``; raises ``PluginError`` unless its version is that of the plan."""
    if spec.version != planned["version"]:
        raise PluginError(
            f"{spec.name!r} is version {spec.version} here, but the job was planned with version "
            f"{planned['version']}; plan again"
        )
    return spec
