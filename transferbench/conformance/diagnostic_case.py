"""A diagnostic called on fixture trials that record how they are used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from transferbench.conformance.cases import Case, Observation
from transferbench.conformance.checks import Violation, shared
from transferbench.conformance.fixture_trials import finished_trials
from transferbench.conformance.fixtures import NETWORKS
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.errors import StoreError
from transferbench.networks.modules import clone_state
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Memoize, uncached

__all__ = ["COUNTS", "SIDES", "DiagnosticCase", "WeightsAlone", "described", "key_of"]

SEED = 20
SIDES = ("module", "other_module")
"""The coordinates of a measurement in the first network of a pair and in the second."""
COUNTS = {"one": 1, "pair": 2, "group": 3}
READS = {
    "logits": "logits",
    "features": "features",
    "history": "history",
    "epochs": "trajectory",
    "images": "images",
}
"""What a diagnostic must declare in ``needs`` to use a member of a subject."""


class DiagnosticCase(Case[DiagnosticSpec]):
    """A diagnostic with its parameters."""

    draw_advice = "draw from context.generator"
    network_advice = "measure what the subjects hold"

    @shared(reported_by="it-measures-finished-trials")
    def calls(self) -> dict[str, RecordedCall]:
        """A call on the trials of each network, by its description."""
        return {network: self._record(self.subjects(network)) for network in NETWORKS}

    @shared(reported_by="it-yields-measurements")
    def measurements(self) -> dict[str, list[Measurement]]:
        """The measurements on each network."""
        for call in self.calls.values():
            for value in call.measurements:
                if not isinstance(value, Measurement):
                    raise Violation(f"it yields {type(value).__name__}",
                                    "yield transferbench.records.Measurement")  # fmt: skip
                # Validated again, because model_construct accepts anything.
                Measurement.model_validate(value.model_dump())
        return {network: call.measurements for network, call in self.calls.items()}

    @shared(reported_by="no-network-is-used")
    def again(self) -> Observation[dict[str, list[Any]]]:
        """The measurements on each network, a second time."""
        trials = {network: self.subjects(network) for network in self.calls}
        return self.observed(
            lambda: {network: self.measure(subjects) for network, subjects in trials.items()}
        )

    def subjects(self, network: str) -> list[FinishedTrial]:
        """As many trials of one network as it declares."""
        trials = finished_trials(network, self.device)
        subjects = [trials.pretrained[0], trials.random[0], trials.pretrained[1]]
        return subjects[: COUNTS[self.spec.subjects]]

    def measure(
        self, subjects: Sequence[Any], *, seed: int = SEED, once: Memoize = uncached
    ) -> list[Any]:
        """All measurements of the subjects."""
        device = torch.device(self.device)
        context = DiagnosticContext(device, torch.Generator().manual_seed(seed), seed, once)
        return list(self.spec.measure(self.params, subjects, context))

    def diagnoses(self) -> Iterator[tuple[str, Callable[..., list[Any]]]]:
        """What a worker may measure one after the other: a description, and the call for it."""
        for network in self.calls:
            yield f"on {network}", partial(self.measure, self.subjects(network))
        first = next(iter(self.calls))
        trials, subjects = finished_trials(first, self.device), self.subjects(first)
        others = [trials.random[1], trials.pretrained[1], trials.random[0]][: len(subjects)]
        yield f"on other trials of {first}", partial(self.measure, others)
        yield f"with another seed on {first}", partial(self.measure, subjects, seed=SEED + 1)
        for params in self._other_params():
            measure = replace(self, params=params).measure
            yield f"with {params!r} on {first}", partial(measure, subjects)
        yield f"on {first} once more", partial(self.measure, subjects)

    def _other_params(self) -> Iterator[Any]:
        """The parameters with another value of one of them, where one is found."""
        for name, info in self.spec.params.model_fields.items():
            value = getattr(self.params, name)
            candidates: Sequence[Any] = ()
            if get_origin(info.annotation) is Literal:
                candidates = get_args(info.annotation)
            elif isinstance(value, bool):
                candidates = (not value,)
            elif isinstance(value, (int, float)):
                candidates = (value // 2, value / 2, value + 1)
            for other in candidates:
                params = {**self.params.model_dump(), name: other}
                if other != value and self.spec.accepts(params):
                    yield self.spec.parse(params)
                    break

    def _record(self, subjects: Sequence[FinishedTrial]) -> RecordedCall:
        call = RecordedCall()

        def record_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                call.stepped.update(map(id, group["params"]))

        def once(key: Hashable, compute: Callable[[], Any]) -> Any:
            call.caches = True
            return uncached(key, compute)

        recorded = [RecordedTrial(subject, call) for subject in subjects]
        with register_optimizer_step_pre_hook(record_step):
            call.measurements = self.measure(recorded, once=once)
        return call

    def all_measurements(self) -> Iterator[tuple[str, Measurement]]:
        """Each measurement, and the description of its network."""
        return (
            (network, value) for network, values in self.measurements.items() for value in values
        )


@dataclass
class RecordedCall:
    """The measurements of one call, and how the subjects were used.

    ``needs``: what a diagnostic must declare to read what it read.
    ``perturbations``: the names of those applied.
    ``networks``, ``arrays``: the returned objects with copies made at that time.
    ``stepped``: ids of the parameters that an optimizer updated.
    ``caches``: whether it called ``context.once``.
    """

    measurements: list[Any] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    perturbations: set[str] = field(default_factory=set)
    networks: list[tuple[nn.Module, dict[str, Tensor]]] = field(default_factory=list)
    arrays: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)
    caches: bool = False


class RecordedTrial:
    """A trial that records how it is used (``specs.Subject``)."""

    def __init__(self, trial: FinishedTrial, call: RecordedCall) -> None:
        self._trial = trial
        self._call = call

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._trial, name)
        if name in READS:
            self._call.needs.add(READS[name])
        if isinstance(value, np.ndarray):
            self._call.arrays.append((name, value, value.copy()))
        return value

    def state(self, which: str | int = "final") -> Any:
        """See ``Subject``."""
        if which != "final":
            self._call.needs.add("init_state" if which == "init" else "trajectory")
        return self._trial.state(which)

    def network(self, which: str | int = "final") -> nn.Module:
        """See ``Subject``."""
        self.state(which)
        net = self._trial.network(which)
        self._call.networks.append((net, clone_state(net)))
        return net

    def perturbed(
        self, name: str, params: Mapping[str, Any], seed: int, split: str, limit: int | None = None
    ) -> Tensor:
        """See ``Subject``."""
        self._call.needs.add("images")
        self._call.perturbations.add(name)
        return self._trial.perturbed(name, params, seed, split, limit)


class WeightsAlone:
    """A source network as external weights are: no history, a final state, no images."""

    history = ()
    epochs = ()

    def __init__(self, source: FinishedTrial) -> None:
        self._source = source
        self.job, self.task, self.modules = source.job, source.task, source.modules
        self.head, self.fresh = source.head, source.fresh

    def state(self, which: str | int = "final") -> Any:
        """See ``Subject``."""
        if which != "final":
            raise StoreError(f"external weights have no state {which!r}: they are a final state")
        return self._source.state(which)

    def network(self, which: str | int = "final") -> nn.Module:
        """See ``Subject``."""
        self.state(which)
        return self._source.network(which)


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
