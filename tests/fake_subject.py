"""A finished trial without a training: ``specs.Subject`` made of networks, images and values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transferbench.networks.modules import build_network, clone_state, partition
from transferbench_plugins.backbones import transferbench_backbones

BACKBONES = {spec.name: spec for spec in transferbench_backbones()}
CLASSES = 4
NETWORKS = {
    "norm-free": ("fixup-resnet8", {"width": 4}, 8),
    "batch-norm": ("timm", {"model": "test_resnet"}, 32),
    "vit": ("timm", {"model": "test_vit"}, 32),
}
HISTORY = (
    {"epoch": 0, "validation_metric": 0.1},
    {"epoch": 2, "validation_metric": 0.5},
    {"epoch": 4, "validation_metric": 0.5},
)


@dataclass
class FakeSubject:
    """What a test does not set is empty, and raises where a diagnostic reads it.

    ``networks``: by state: ``init``, ``final``, ``best`` or an epoch; the same object in every
    call. ``data``: images and targets by split. ``perturb``: (name, params, seed, split) to
    images. ``build``: a network from a seed. ``loaded``, ``perturbations``: the calls so far.
    """

    networks: dict[str | int, nn.Module] = field(default_factory=dict)
    modules: Mapping[str, Sequence[str]] = field(default_factory=dict)
    data: dict[str, tuple[Tensor, Any]] = field(default_factory=dict)
    job: str = "job"
    task: str = "multi-class"
    metric: str = "accuracy"
    chance: float = 0.25
    labels: np.ndarray = field(default_factory=lambda: np.zeros(100, dtype=np.int64))
    history: Sequence[Mapping[str, float | None]] = ()
    logits: np.ndarray | None = None
    features: np.ndarray | None = None
    perturb: Callable[[str, Mapping[str, Any], int, str], Tensor] | None = None
    build: Callable[[int], nn.Module] | None = None
    loaded: list[str | int] = field(default_factory=list)
    perturbations: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def net(self) -> nn.Module:
        """The final network."""
        return self.networks["final"]

    @property
    def epochs(self) -> list[int]:
        return sorted(state for state in self.networks if isinstance(state, int))

    def state(self, which: str | int = "final") -> dict[str, Tensor]:
        # Files hold their tensors sorted by name.
        return dict(sorted(clone_state(self.networks[which]).items()))

    def network(self, which: str | int = "final") -> nn.Module:
        self.loaded.append(which)
        return self.networks[which].eval()

    def fresh(self, seed: int) -> dict[str, Tensor]:
        return clone_state(self.build(seed))

    def head(self, net: nn.Module) -> nn.Module:
        return net.get_submodule(self.modules["head"][0].rpartition(".")[0])

    def images(self, split: str, limit: int | None = None) -> Tensor:
        return self.data[split][0][:limit]

    def targets(self, split: str, limit: int | None = None) -> Tensor:
        return torch.as_tensor(self.data[split][1])[:limit]

    def perturbed(
        self,
        name: str,
        params: Mapping[str, Any],
        seed: int,
        split: str,
        limit: int | None = None,
    ) -> Tensor:
        self.perturbations.append((name, dict(params), seed, split, limit))
        return self.perturb(name, params, seed, split)[:limit]

    def alter(self, which: str | int, tensors: Mapping[str, Tensor]) -> None:
        """Replace tensors of one state."""
        self.networks[which].load_state_dict({**self.state(which), **tensors})


def modules_of(net: nn.Module, head: str = "head") -> dict[str, list[str]]:
    """The names of the state by their first component; that of ``head`` is the module head."""
    modules: dict[str, list[str]] = {}
    for name in net.state_dict():
        part = name.partition(".")[0]
        modules.setdefault("head" if part == head else part, []).append(name)
    return modules


def both_splits(images: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Test images, and the same in reverse order as train images."""
    return {"test": (images, labels), "train": (images.flip(0), labels.flip(0))}


def untrained_trial(network: str = "norm-free", n: int = 24) -> FakeSubject:
    """A small network of ``NETWORKS`` on noise.

    The final state is the initial one plus noise; epoch 2 lies between, and is the best one.
    """
    backbone, params, size = NETWORKS[network]
    spec = BACKBONES[backbone]

    def build(seed: int) -> nn.Module:
        return build_network(
            spec, spec.parse(params), num_classes=CLASSES, in_chans=3, image_size=size,
            init_seed=seed, head_seed=seed,
        )  # fmt: skip

    net = build(1).eval()
    init = clone_state(net)
    middle = moved(init, 0.02, seed=1)
    states = {"init": init, 1: moved(init, 0.01, seed=1), 2: middle, "best": middle}
    states |= {3: moved(middle, 0.01, seed=2), "final": moved(middle, 0.02, seed=2)}
    networks = {which: copy.deepcopy(net) for which in states}
    for which, state in states.items():
        networks[which].load_state_dict(state)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(n, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return FakeSubject(
        networks, partition(spec, net), both_splits(images, labels), history=HISTORY, build=build
    )


def moved(state: Mapping[str, Tensor], by: float, seed: int) -> dict[str, Tensor]:
    """Every floating tensor plus positive noise: variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + by * torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
