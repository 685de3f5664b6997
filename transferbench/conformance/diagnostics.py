"""The promises of a diagnostic: it trains nothing, leaves everything alone, and gives numbers.

It measures small finished trials of each network of ``stand_ins``, made by the engine.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from transferbench.conformance.checks import Broken, Once
from transferbench.conformance.fixture_trials import finished_trials
from transferbench.conformance.fixtures import NETWORKS
from transferbench.conformance.isolation import offline, settings_kept, untouched_randomness
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.errors import TransferbenchError
from transferbench.networks.modules import clone_state
from transferbench.records import Measurement
from transferbench.registry.discovery import cause
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject

__all__ = ["CHECKS", "DiagnosticCase"]

T = TypeVar("T")
SEED = 20
OWN = ("module", "other_module")
"""Coordinates that place a measurement in the one network and in the other."""


class DiagnosticCase:
    """A diagnostic with its parameters, and what it measured on each network."""

    def __init__(self, spec: DiagnosticSpec, params: Any, device: str) -> None:
        self.spec = spec
        self.params = params
        self.device = device
        self.measured = Once(self._measured, told_by="it-measures-finished-trials")

    def _measured(self) -> dict[str, Watched]:
        return {network: self.watch(self.subjects(network)) for network in NETWORKS}

    def subjects(self, network: str) -> list[FinishedTrial]:
        """As many trials of one network as it declares."""
        trials = finished_trials(network, self.device)
        count = {"one": 1, "pair": 2, "group": 3}[self.spec.subjects]
        return [trials.pretrained[0], trials.random[0], trials.pretrained[1]][:count]

    def measure(self, subjects: Sequence[Subject], seed: int = SEED) -> list[Any]:
        """What it yields, read to its end."""
        device = torch.device(self.device)
        context = DiagnosticContext(device, torch.Generator().manual_seed(seed), seed)
        return list(self.spec.measure(self.params, subjects, context))

    def watch(self, subjects: Sequence[FinishedTrial]) -> Watched:
        """What it yields, and what it did to what it was given."""
        seen = [WatchedTrial(subject) for subject in subjects]
        with _optimizer_steps() as stepped:
            values = self.measure(seen)
        return Watched(values, seen, stepped)

    def values(self) -> Iterator[tuple[str, list[Measurement]]]:
        """The measurements on each network; what is none is told by its own check."""
        for network, watched in self.measured().items():
            if not all(isinstance(value, Measurement) for value in watched.values):
                raise SkipTest("there are no measurements, see it-yields-measurements")
            yield network, watched.values


class Watched(NamedTuple):
    """What came out of one call; ``stepped``: the parameters that an optimizer moved, by id."""

    values: list[Any]
    subjects: list[WatchedTrial]
    stepped: set[int]


class WatchedTrial:
    """A trial that remembers what was taken of it (``specs.Subject``).

    ``taken``: the needs that reading it so amounts to. ``networks``, ``arrays``: what was handed
    out, and copies made then.
    """

    def __init__(self, trial: FinishedTrial) -> None:
        self._trial = trial
        self.taken: set[str] = set()
        self.perturbations: set[str] = set()
        self.networks: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self.arrays: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.history_then: list[dict[str, float | None]] | None = None

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
        self.taken.add("logits")
        return self._array("logits", self._trial.logits)

    @property
    def features(self) -> np.ndarray:
        self.taken.add("features")
        return self._array("features", self._trial.features)

    @property
    def history(self) -> Sequence[Mapping[str, float | None]]:
        self.taken.add("history")
        return self._trial.history

    @property
    def epochs(self) -> Sequence[int]:
        self.taken.add("trajectory")
        return self._trial.epochs

    def state(self, which: str | int = "final") -> Mapping[str, Tensor]:
        """See ``Subject``."""
        self._state_taken(which)
        return self._trial.state(which)

    def network(self, which: str | int = "final") -> nn.Module:
        """See ``Subject``."""
        self._state_taken(which)
        net = self._trial.network(which)
        self.networks.append((net, clone_state(net)))
        return net

    def _state_taken(self, which: str | int) -> None:
        if which == "init":
            self.taken.add("init_state")
        elif which != "final":
            self.taken.add("trajectory")

    def images(self, split: str, limit: int | None = None) -> Tensor:
        """See ``Subject``."""
        self.taken.add("images")
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
        self.taken.add("images")
        self.perturbations.add(name)
        return self._trial.perturbed(name, params, seed, split, limit)


@contextmanager
def _optimizer_steps() -> Iterator[set[int]]:
    """The ids of all parameters that an optimizer steps on inside the block."""
    stepped: set[int] = set()

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        stepped.update(id(one) for group in optimizer.param_groups for one in group["params"])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield stepped
    finally:
        handle.remove()


def _place(value: Measurement) -> str:
    at = ", ".join(f"{name}={found}" for name, found in value.coordinates.items())
    return f"{value.metric} at {at}" if at else value.metric


def _each(case: DiagnosticCase) -> Iterator[tuple[str, Measurement]]:
    return ((network, value) for network, values in case.values() for value in values)


# --- the checks -------------------------------------------------------------------------------


def check_it_measures_finished_trials(case: DiagnosticCase) -> None:
    """On every network it gives something, be it a flag that says why there is no number."""
    for network, watched in case.measured.told().items():
        if not watched.values:
            raise Broken(
                f"it measures nothing on trials of {network}",
                "yield a Measurement without a value and a flag that says why",
            )


def check_it_yields_measurements(case: DiagnosticCase) -> None:
    """``transferbench.records.Measurement``, whole."""
    for watched in case.measured().values():
        for value in watched.values:
            if not isinstance(value, Measurement):
                raise Broken(f"it yields {type(value).__name__}",
                             "yield transferbench.records.Measurement")  # fmt: skip
            # Again, because model_construct lets anything through.
            Measurement.model_validate(value.model_dump())


def check_values_have_a_unit_and_an_n(case: DiagnosticCase) -> None:
    """A number out of no items is none; a unit is a word."""
    for network, value in _each(case):
        if not value.unit.strip():
            raise Broken(f"{_place(value)} has no unit", "say it; 1 is a unit")
        if value.value is not None and value.n < 1:
            raise Broken(f"{_place(value)} is {value.value:.3g} out of n={value.n} on {network}",
                         "count in n what the number is made of")  # fmt: skip


def check_a_metric_has_one_unit(case: DiagnosticCase) -> None:
    """Tables and claims average over a metric's measurements."""
    units: dict[str, str] = {}
    for _, value in _each(case):
        if units.setdefault(value.metric, value.unit) != value.unit:
            raise Broken(f"{value.metric} is in {units[value.metric]!r} and in {value.unit!r}",
                         "give each unit its own metric")  # fmt: skip


def check_values_lie_within_their_intervals(case: DiagnosticCase) -> None:
    """The value lies between low and high, to rounding."""
    for _, value in _each(case):
        if value.low is None or value.high is None or value.value is None:
            continue
        slack = 1e-6 * max(1.0, abs(value.value))
        if not value.low - slack <= value.value <= value.high + slack:
            raise Broken(f"{_place(value)} is {value.value:.6g} with the interval "
                         f"{value.low:.6g}..{value.high:.6g}",
                         "put low and high around the value")  # fmt: skip


def check_a_place_is_measured_once(case: DiagnosticCase) -> None:
    """No two measurements of one metric at equal coordinates."""
    for network, values in case.values():
        places = Counter((v.metric, tuple(sorted(v.coordinates.items()))) for v in values)
        (_, place), count = max(((p, c) for p, c in places.items()), key=lambda one: one[1])
        if count > 1:
            metric = next(m for (m, p), c in places.items() if c == count and p == place)
            raise Broken(f"{metric} at {dict(place)} is measured {count} times on {network}",
                         "tell the two apart by a coordinate")  # fmt: skip


def check_coordinates_are_plain(case: DiagnosticCase) -> None:
    """Strings, integers and finite floats: they become columns, and are matched exactly."""
    for _, value in _each(case):
        for name, found in value.coordinates.items():
            plain = type(found) in {str, int, float}
            if not plain or (isinstance(found, float) and not math.isfinite(found)):
                raise Broken(f"the coordinate {name} of {value.metric} is {found!r}",
                             "give a string, an integer or a finite float")  # fmt: skip


def check_the_same_seed_gives_the_same_numbers(case: DiagnosticCase) -> None:
    """Measured again, bit for bit."""
    for network, values in case.values():
        again = case.measure(case.subjects(network))
        if again != values:
            where = next((one for one, other in zip(values, again, strict=False) if one != other),
                         values[-1])  # fmt: skip
            raise Broken(
                f"{_place(where)} is another when it is measured again on {network}",
                "draw from context.generator or context.seed alone",
            )


def check_networks_are_left_as_they_were(case: DiagnosticCase) -> None:
    """Weights, batch statistics, mode, gradients and hooks of every network it asked for."""
    for network, subject in _subjects(case):
        for net, then in subject.networks:
            now = net.state_dict()
            changed = [name for name in then if not torch.equal(now[name].cpu(), then[name])]
            if changed:
                raise Broken(f"{', '.join(changed[:3])} of {network} were changed",
                             "load the state back, or work on a copy of the network")  # fmt: skip
            if any(module.training for module in net.modules()):
                raise Broken(f"{network} is left in train mode", "call net.eval() at the end")
            if any(parameter.grad is not None for parameter in net.parameters()):
                raise Broken(f"gradients are left on {network}",
                             "use torch.autograd.grad, or set them to None")  # fmt: skip
            if any(module._forward_hooks or module._forward_pre_hooks  # noqa: SLF001  # no public list
                   for module in net.modules()):  # fmt: skip
                raise Broken(f"a hook is left on {network}", "remove its handle at the end")


def _subjects(case: DiagnosticCase) -> Iterator[tuple[str, WatchedTrial]]:
    for network, watched in case.measured().items():
        for subject in watched.subjects:
            yield network, subject


def check_nothing_is_trained(case: DiagnosticCase) -> None:
    """No optimizer steps on a network of a subject."""
    for network, watched in case.measured().items():
        owned = {id(parameter) for subject in watched.subjects
                 for net, _ in subject.networks for parameter in net.parameters()}  # fmt: skip
        if owned & watched.stepped:
            raise Broken(f"an optimizer stepped on the parameters of {network}",
                         "measure what training left; a diagnostic trains nothing")  # fmt: skip


def check_arrays_are_left_as_they_were(case: DiagnosticCase) -> None:
    """Logits, features and labels are read once and shared with other diagnostics."""
    for _, subject in _subjects(case):
        for name, array, then in subject.arrays:
            if not np.array_equal(array, then, equal_nan=True):
                raise Broken(f"the subject's {name} were changed", "work on a copy")


def check_what_it_reads_is_declared(case: DiagnosticCase) -> None:
    """``needs`` tells what of a trial must be there."""
    taken = set().union(*(subject.taken for _, subject in _subjects(case)))
    if undeclared := sorted(taken - case.spec.needs):
        raise Broken(f"it reads {', '.join(undeclared)} and declares needs="
                     f"{sorted(case.spec.needs)}",
                     f"add {', '.join(map(repr, undeclared))} to needs")  # fmt: skip


def check_perturbations_are_declared(case: DiagnosticCase) -> None:
    """Ids hold the versions of those that ``perturbations`` names: a new version, a new number."""
    applied = set().union(*(subject.perturbations for _, subject in _subjects(case)))
    if undeclared := sorted(applied - set(case.spec.perturbations(case.params))):
        raise Broken(f"it applies {', '.join(undeclared)}, which perturbations(params) leaves out",
                     "return the name of each perturbation that it applies")  # fmt: skip


def check_global_randomness_is_untouched(case: DiagnosticCase) -> None:
    """All draws come from the context."""
    case.measured()
    network = next(iter(NETWORKS))
    with untouched_randomness("draw from context.generator"):
        case.measure(case.subjects(network))


def check_no_network_is_used(case: DiagnosticCase) -> None:
    """All it needs are the subjects."""
    case.measured()
    with offline() as asked:
        case.measure(case.subjects(next(iter(NETWORKS))))
    if asked:
        raise Broken(f"it asked the network for {asked[0]}", "measure what the subjects hold")


def check_settings_of_torch_are_kept(case: DiagnosticCase) -> None:
    """Default type, gradient mode, threads and determinism belong to the whole process."""
    case.measured()
    with settings_kept():
        case.measure(case.subjects(next(iter(NETWORKS))))


def check_the_source_network_can_be_measured(case: DiagnosticCase) -> None:
    """A suite may put the pre-trained network itself in place of a trial, or beside it.

    What cannot be compared with a trial on other images is refused in words.
    """
    case.measured()
    for network in NETWORKS:
        trials = finished_trials(network, case.device)
        first = [] if case.spec.subjects == "one" else [trials.pretrained[0]]
        _measure_or_refuse(case, [*first, trials.source], f"the source network of {network}")


def check_a_task_of_several_labels_is_measured_or_refused(case: DiagnosticCase) -> None:
    """Labels are float32 (N, L) there: it has numbers, a flag that says why not, or a refusal."""
    case.measured()
    trials = finished_trials(next(iter(NETWORKS)), case.device, "several")
    subjects = [trials.pretrained[0], trials.random[0]]
    _measure_or_refuse(case, subjects, "trials of a task with several labels an image")


def check_a_diverged_trial_is_flagged(case: DiagnosticCase) -> None:
    """Its weights and logits are not finite: a suite goes on, with flags in place of numbers."""
    case.measured()
    for network in NETWORKS:
        trials = finished_trials(network, case.device)
        first = [] if case.spec.subjects == "one" else [trials.pretrained[0]]
        _measure_or_refuse(case, [*first, trials.diverged], f"a diverged trial of {network}")


def _measure_or_refuse(case: DiagnosticCase, subjects: Sequence[FinishedTrial], of: str) -> None:
    count = {"one": 1, "pair": 2, "group": 3}[case.spec.subjects]
    try:
        # A group repeats its last.
        values = case.measure([subjects[min(place, len(subjects) - 1)] for place in range(count)])
    except TransferbenchError:
        return
    except Exception as error:
        raise Broken(
            f"on {of} it fails: {cause(error)}",
            "yield a Measurement whose flag says why, or raise a TransferbenchError that does",
        ) from error
    if not values:
        raise Broken(f"it measures nothing on {of}", "yield a Measurement whose flag says why")


def check_one_network_with_itself_gives_known_answers(case: DiagnosticCase) -> None:
    """What ``identical`` states of a pair of one and the same network."""
    wanted = case.spec.identical
    _compares(case, sorted(wanted), "identical")
    seen: set[str] = set()
    for network in NETWORKS:
        subject = case.subjects(network)[0]
        for value in case.measure([subject] * len(case.subjects(network))):
            if value.metric not in wanted or value.value is None or not _one_module(value):
                continue
            seen.add(value.metric)
            if abs(value.value - wanted[value.metric]) > case.spec.answers_within:
                raise Broken(
                    f"{network} with itself gives {_place(value)} = {value.value:.6g}, and "
                    f"identical states {wanted[value.metric]:.6g}",
                    "correct the formula, or what is stated",
                )
    _refuse_unseen(sorted(wanted.keys() - seen), "identical")


def check_symmetric_metrics_stay_when_networks_exchange(case: DiagnosticCase) -> None:
    """What ``symmetric`` states: a and b give what b and a give."""
    _compares(case, sorted(case.spec.symmetric), "symmetric")
    seen: set[str] = set()
    for network in NETWORKS:
        a, b, *rest = case.subjects(network)
        there = case.measure([a, b, *rest])
        back = {_key(value, exchanged=True): value for value in case.measure([b, a, *rest])}
        for value in there:
            other = back.get(_key(value))
            if value.metric not in case.spec.symmetric or other is None:
                continue
            seen.add(value.metric)
            if not _answers_alike(value, other, case.spec.answers_within):
                raise Broken(
                    f"{_place(value)} is {value.value} on {network}, and {other.value} when its "
                    "two trials exchange their places",
                    "correct the formula, or take the metric off symmetric",
                )
    _refuse_unseen(sorted(case.spec.symmetric - seen), "symmetric")


def _compares(case: DiagnosticCase, stated: Sequence[str], field: str) -> None:
    """Whether there is anything to compare; a diagnostic of one subject can state nothing."""
    if not stated:
        raise SkipTest(f"it states no answers ({field})")
    if case.spec.subjects == "one":
        raise Broken(f"it measures one subject and states answers for two ({field})",
                     f"drop {field}")  # fmt: skip
    case.measured()


def _refuse_unseen(unseen: Sequence[str], field: str) -> None:
    if unseen:
        raise Broken(f"{field} states {', '.join(unseen)}, which has no value on any trial",
                     "drop it, or measure it")  # fmt: skip


def _one_module(value: Measurement) -> bool:
    """Where two modules are compared, whether they are one."""
    module, other = (value.coordinates.get(name) for name in OWN)
    return other is None or module == other


def _key(value: Measurement, *, exchanged: bool = False) -> tuple[object, ...]:
    places = dict(value.coordinates)
    if exchanged and OWN[1] in places:
        places[OWN[0]], places[OWN[1]] = places[OWN[1]], places[OWN[0]]
    return value.metric, tuple(sorted(places.items()))


def _answers_alike(a: Measurement, b: Measurement, within: float) -> bool:
    if a.value is None or b.value is None:
        return a.value is b.value
    return abs(a.value - b.value) <= within


def check_the_cost_is_a_number(case: DiagnosticCase) -> None:
    """Forward passes over the evaluation subset, for the plan's hours."""
    cost = case.spec.cost(case.params)
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        raise Broken(f"cost gave {cost!r}", "return forward passes as a number")
    if not (math.isfinite(cost) and cost >= 0):
        raise Broken(f"cost gave {cost}", "return a finite number from 0")


CHECKS: tuple[Callable[[DiagnosticCase], None], ...] = (
    check_it_measures_finished_trials,
    check_it_yields_measurements,
    check_values_have_a_unit_and_an_n,
    check_a_metric_has_one_unit,
    check_values_lie_within_their_intervals,
    check_a_place_is_measured_once,
    check_coordinates_are_plain,
    check_the_same_seed_gives_the_same_numbers,
    check_networks_are_left_as_they_were,
    check_nothing_is_trained,
    check_arrays_are_left_as_they_were,
    check_what_it_reads_is_declared,
    check_perturbations_are_declared,
    check_global_randomness_is_untouched,
    check_no_network_is_used,
    check_settings_of_torch_are_kept,
    check_the_source_network_can_be_measured,
    check_a_task_of_several_labels_is_measured_or_refused,
    check_a_diverged_trial_is_flagged,
    check_one_network_with_itself_gives_known_answers,
    check_symmetric_metrics_stay_when_networks_exchange,
    check_the_cost_is_a_number,
)
