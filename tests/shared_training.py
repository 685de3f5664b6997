"""Trains the networks of ``training_groups`` in each of several processes.

Written by the first: the parameters and the history of each kind of training, or its error.
"""

import math
from contextlib import suppress

import torch
from torch import distributed, nn
from training_groups import FEATURES, Layers, Network, training_of

from transferbench.errors import TransferbenchError
from transferbench.training.loop import run_alone
from transferbench.training.processes import ALONE, Processes
from transferbench.training.resume import Unfinished


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


class Scalar(Layers):
    """With a parameter that cannot be divided."""

    def __init__(self, seed):
        super().__init__(seed)
        self.scale = nn.Parameter(torch.ones(()))


def trained(feature, processes=ALONE, *, sharded=False):
    """The parameters after a training, and its history; or the message of what it raises."""
    try:
        training = training_of(0, feature, processes=processes, sharded=sharded)
        result = training.train(data_seed=1, augmentation_seed=2)
    except TransferbenchError as error:
        return str(error)
    return result.states["final"], result.history


SHARDED = {
    "sharded without": {
        name: WITHOUT_STATISTICS[name]
        for name in ("plain", "mixup", "clipping", "frozen", "rate-factors", "micro-batches",
                     "unused")
    },
    "sharded with": WITH_STATISTICS,
    "sharded adamw": ADAMW, "sharded exact": EXACT,
    "sharded refused": {"scalar": kind("plain", Scalar), "dropout": kind("plain", Network)},
}  # fmt: skip


def interrupted(processes, folder):
    """States of a sharded training that goes on from where it was kept, and of one that was not.

    And how far each process had a part of the weights and of the moments.
    """

    class EarlyEndError(Exception):
        pass

    class StopsEarly(Unfinished):
        steps = 0

        def visit(self, training, progress):
            super().visit(training, progress)
            self.steps += 1
            if self.steps == 5:
                raise EarlyEndError

    def loop(unfinished):
        training = training_of(0, kind("adamw", Plain), processes=processes, sharded=True)
        steps = training.loop(1, 2, (), unfinished)
        return training, run_alone(steps)

    path = folder / "training.pt"
    with suppress(EarlyEndError):
        loop(StopsEarly(path, "key", 0.0))
    distributed.barrier()
    training, resumed = loop(Unfinished(path, "key", math.inf))
    content = torch.load(path, weights_only=True)
    parts = training.stepping.shards.parts
    share = [part.numel() / full.numel() for full, part in parts.items()]
    shapes = [[tuple(value.shape) for value in moments.values()] for moments in content["moments"]]
    return {
        "resumed": resumed.states.get("final"), "whole": loop(None)[1].states.get("final"),
        "share": share, "shapes": shapes, "epoch": content["progress"]["epoch"],
    }  # fmt: skip


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
    for group, features in SHARDED.items():
        results[group] = {
            name: trained(feature, processes, sharded=True) for name, feature in features.items()
        }
    results["interrupted"] = interrupted(processes, folder)
    if processes.rank == 0:
        torch.save(results, folder / "results.pt")
    distributed.destroy_process_group()
