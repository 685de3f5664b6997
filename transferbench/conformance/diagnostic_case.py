"""A diagnostic called on fixture trials that record how they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from transferbench.conformance.checks import LazyResult
from transferbench.conformance.fixture_trials import finished_trials
from transferbench.conformance.fixtures import NETWORKS
from transferbench.conformance.isolation import Observation, observe
from transferbench.conformance.side_effects import Advice
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.networks.modules import clone_state
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject

__all__ = ["COUNTS", "SIDES", "DiagnosticCase", "RecordedTrial", "described", "key_of"]

SEED = 20
SIDES = ("module", "other_module")
"""The coordinates of a measurement in the first network of a pair and in the second."""
COUNTS = {"one": 1, "pair": 2, "group": 3}


class DiagnosticCase:
    """A diagnostic with its parameters.

    ``measured``, ``again``: its measurements of the trials of each network, computed twice.
    """

    advice = Advice(draw="draw from context.generator", network="measure what the subjects hold")

    def __init__(self, spec: DiagnosticSpec, params: Any, device: str) -> None:
        self.spec = spec
        self.params = params
        self.device = device
        self.measured = LazyResult(self._measured, reported_by="it-measures-finished-trials")
        self.again = LazyResult(self._again, reported_by="no-network-is-used")

    def _measured(self) -> dict[str, RecordedCall]:
        return {network: self.record(self.subjects(network)) for network in NETWORKS}

    def _again(self) -> Observation[dict[str, list[Any]]]:
        trials = {network: self.subjects(network) for network in self.measured()}
        return observe(
            lambda: {network: self.measure(subjects) for network, subjects in trials.items()}
        )

    def subjects(self, network: str) -> list[FinishedTrial]:
        """As many trials of one network as it declares."""
        trials = finished_trials(network, self.device)
        subjects = [trials.pretrained[0], trials.random[0], trials.pretrained[1]]
        return subjects[: COUNTS[self.spec.subjects]]

    def measure(self, subjects: Sequence[Subject]) -> list[Any]:
        """All measurements of the subjects."""
        device = torch.device(self.device)
        context = DiagnosticContext(device, torch.Generator().manual_seed(SEED), SEED)
        return list(self.spec.measure(self.params, subjects, context))

    def record(self, subjects: Sequence[FinishedTrial]) -> RecordedCall:
        """The measurements, and how the subjects were used."""
        recorded = [RecordedTrial(subject) for subject in subjects]
        with _optimizer_steps() as stepped:
            values = self.measure(recorded)
        return RecordedCall(values, recorded, stepped)

    def values(self) -> Iterator[tuple[str, list[Measurement]]]:
        """The measurements on each network. Raises: ``SkipTest`` where they are something else."""
        for network, call in self.measured().items():
            if not all(isinstance(value, Measurement) for value in call.values):
                raise SkipTest("there are no measurements, see it-yields-measurements")
            yield network, call.values


class RecordedCall(NamedTuple):
    """The result of one call; ``stepped``: ids of the parameters that an optimizer updated."""

    values: list[Any]
    subjects: list[RecordedTrial]
    stepped: set[int]


class RecordedTrial:
    """A trial that records how it is used (``specs.Subject``).

    ``used``: the needs that the reads amount to. ``perturbations``: the names of those applied.
    ``networks``, ``arrays``: the returned objects with copies made at that time.
    """

    def __init__(self, trial: FinishedTrial) -> None:
        self._trial = trial
        self.used: set[str] = set()
        self.perturbations: set[str] = set()
        self.networks: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self.arrays: list[tuple[str, np.ndarray, np.ndarray]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def _array(self, name: str, array: np.ndarray) -> np.ndarray:
        self.arrays.append((name, array, array.copy()))
        return array

    @property
    def labels(self) -> np.ndarray:
        return self._array("labels", self._trial.labels)

    @property
    def logits(self) -> np.ndarray:
        self.used.add("logits")
        return self._array("logits", self._trial.logits)

    @property
    def features(self) -> np.ndarray:
        self.used.add("features")
        return self._array("features", self._trial.features)

    @property
    def history(self) -> Sequence[Mapping[str, float | None]]:
        self.used.add("history")
        return self._trial.history

    @property
    def epochs(self) -> Sequence[int]:
        self.used.add("trajectory")
        return self._trial.epochs

    def state(self, which: str | int = "final") -> Mapping[str, Tensor]:
        """See ``Subject``."""
        self._use_state(which)
        return self._trial.state(which)

    def network(self, which: str | int = "final") -> nn.Module:
        """See ``Subject``."""
        self._use_state(which)
        net = self._trial.network(which)
        self.networks.append((net, clone_state(net)))
        return net

    def _use_state(self, which: str | int) -> None:
        if which == "init":
            self.used.add("init_state")
        elif which != "final":
            self.used.add("trajectory")

    def images(self, split: str, limit: int | None = None) -> Tensor:
        """See ``Subject``."""
        self.used.add("images")
        return self._trial.images(split, limit)

    def perturbed(
        self,
        name: str,
        params: Mapping[str, Any],
        seed: int,
        split: str,
        limit: int | None = None,
    ) -> Tensor:
        """See ``Subject``."""
        self.used.add("images")
        self.perturbations.add(name)
        return self._trial.perturbed(name, params, seed, split, limit)


@contextmanager
def _optimizer_steps() -> Iterator[set[int]]:
    """The ids of all parameters that an optimizer steps on inside the block."""
    stepped: set[int] = set()

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            stepped.update(map(id, group["params"]))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield stepped
    finally:
        handle.remove()


def described(value: Measurement) -> str:
    """The metric with its coordinates, for messages."""
    coordinates = ", ".join(f"{name}={position}" for name, position in value.coordinates.items())
    return f"{value.metric} at {coordinates}" if coordinates else value.metric


def key_of(
    value: Measurement, *, exchanged: bool = False
) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """The metric and the coordinates; ``exchanged``: with the modules of a pair swapped."""
    coordinates = dict(value.coordinates)
    first, second = SIDES
    if exchanged and second in coordinates:
        coordinates[first], coordinates[second] = coordinates[second], coordinates[first]
    return value.metric, tuple(sorted(coordinates.items()))
