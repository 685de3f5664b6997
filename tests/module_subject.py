"""A finished trial without a training: a small network, states that differ, images of noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transferbench.networks.modules import build_network, clone_state, load_state, partition
from transferbench_plugins.backbones import transferbench_backbones

BACKBONES = {spec.name: spec for spec in transferbench_backbones()}
CLASSES = 4
NETWORKS = {
    "norm-free": ("fixup-resnet8", {"width": 4}, 8),
    "batch-norm": ("timm", {"model": "test_resnet"}, 32),
    "vit": ("timm", {"model": "test_vit"}, 32),
}


class UntrainedTrial:
    """What module diagnostics ask of a subject (``specs.Subject``).

    The final state is the initial one, moved; epoch 2 lies between, and is the best one.
    """

    job = "job"
    task = "multi-class"
    metric = "accuracy"
    history = (
        {"epoch": 0, "validation_metric": 0.1},
        {"epoch": 2, "validation_metric": 0.5},
        {"epoch": 4, "validation_metric": 0.5},
    )

    def __init__(self, network: str = "norm-free", n: int = 24) -> None:
        backbone, params, self.size = NETWORKS[network]
        self.spec = BACKBONES[backbone]
        self.params = self.spec.parse(params)
        net = self.built = self._build(1).eval()
        self.modules = partition(self.spec, net)
        init = clone_state(net)
        middle = moved(init, 0.02, seed=1)
        self.states = {"init": init, 1: moved(init, 0.01, seed=1), 2: middle, "best": middle}
        self.states |= {3: moved(middle, 0.01, seed=2), "final": moved(middle, 0.02, seed=2)}
        generator = torch.Generator().manual_seed(3)
        self._images = torch.randn(n, 3, self.size, self.size, generator=generator)
        self.labels = torch.randint(CLASSES, (n,), generator=generator)

    def _build(self, seed: int) -> nn.Module:
        return build_network(
            self.spec,
            self.params,
            num_classes=CLASSES,
            in_chans=3,
            image_size=self.size,
            init_seed=seed,
            head_seed=seed,
        )

    @property
    def epochs(self):
        return [state for state in self.states if isinstance(state, int)]

    def state(self, which="final"):
        return dict(self.states[which])

    def fresh(self, seed):
        return clone_state(self._build(seed))

    def network(self, which="final"):
        net = copy.deepcopy(self.built)
        load_state(net, self.states[which])
        return net

    def images(self, split, limit=None):
        """Train and test images differ: the one are the other, backwards."""
        return (self._images if split == "test" else self._images.flip(0))[:limit]

    def targets(self, split, limit=None):
        return (self.labels if split == "test" else self.labels.flip(0))[:limit]


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
