"""Trains the networks of ``training_groups`` in each of several processes.

Written by the first: the parameters and the history of each kind of training, or its error.
"""

import torch
from torch import distributed, nn
from training_groups import FEATURES, Layers, Network, training_of

from transferbench.errors import TransferbenchError
from transferbench.training.processes import ALONE, Processes


class Plain(Network):
    """With batch statistics, and without dropout."""

    def __init__(self, seed):
        super().__init__(seed)
        self.dropout = nn.Identity()


class OwnNorm(nn.BatchNorm2d):
    """A normalisation whose code nobody knows."""


class WithOwnNorm(Plain):
    def __init__(self, seed):
        super().__init__(seed)
        self.body[1] = OwnNorm(4)


class Unused(Layers):
    """With a layer that no output depends on."""

    def __init__(self, seed):
        super().__init__(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.unused = nn.Linear(3, 3)


def exact(network):
    """A network that computes in double precision."""

    class Exact(network):
        def __init__(self, seed):
            super().__init__(seed)
            self.double()

        def forward(self, x):
            return super().forward(x.double())

    return Exact


class Convolutions(nn.Module):
    """Without batch statistics; a residual branch begins at zero, and so do its gradients."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1),
                                       nn.Conv2d(8, 8, 3, padding=1)])  # fmt: skip
            self.head = nn.Linear(8, 3)
        nn.init.zeros_(self.body[2].weight)
        nn.init.zeros_(self.body[2].bias)

    def forward(self, x):
        first, branch, last = self.body
        x = torch.relu(first(x))
        return self.head(torch.relu(x + last(torch.relu(branch(x)))).mean((2, 3)))


def kind(feature, network=Layers):
    return {**FEATURES[feature], "network": network}


WITHOUT_STATISTICS = {
    name: kind(name)
    for name in ("plain", "mixup", "smoothing", "clipping", "augmentation", "multi-label",
                 "unknown-labels", "frozen", "rate-factors", "micro-batches", "perturbed-shared",
                 "perturbed-per-image-augmented", "perturbed-transform-augmented")
} | {"unused": kind("plain", Unused)}  # fmt: skip
WITH_STATISTICS = {name: kind(name, Plain) for name in ("plain", "mixup", "augmentation", "frozen")}
ADAMW = {
    network.__name__: kind("adamw", network) for network in (Layers, Convolutions)
} | {"Clipped": kind("adamw", Convolutions) | {
    "recipe": FEATURES["adamw"]["recipe"] | FEATURES["clipping"]["recipe"]}
}  # fmt: skip
EXACT = {
    f"{name} {network.__name__}": kind(name, exact(network))
    for name in ("plain", "adamw") for network in (Layers, Convolutions, Plain)
}  # fmt: skip
REFUSED = {
    "own-norm": kind("plain", WithOwnNorm),
    "dropout": kind("plain", Network),
    "few": {"network": Layers, "recipe": {"batch_size": 1}},
}


def trained(feature, processes=ALONE):
    """The parameters after a training, and its history; or the message of what it raises."""
    try:
        training = training_of(0, feature, processes=processes)
        result = training.train(data_seed=1, augmentation_seed=2)
    except TransferbenchError as error:
        return str(error)
    return result.states["final"], result.history


def main(folder):
    """What each process that torch has launched does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    kinds = {"without": WITHOUT_STATISTICS, "with": WITH_STATISTICS, "adamw": ADAMW,
             "exact": EXACT, "refused": REFUSED}  # fmt: skip
    results = {
        group: {name: trained(feature, processes) for name, feature in features.items()}
        for group, features in kinds.items()
    }
    if processes.rank == 0:
        torch.save(results, folder / "results.pt")
    distributed.destroy_process_group()
