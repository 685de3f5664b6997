"""The checks of a diagnostic: it trains nothing, changes nothing, and yields numbers.

It measures small finished trials of each network of ``fixtures.NETWORKS``, made by the engine.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, cast
from unittest import SkipTest

import numpy as np
import pandas as pd

from transferbench.conformance import cases
from transferbench.conformance.cases import differing, is_number_from_0
from transferbench.conformance.checks import Violation, defined_in, refuse_any
from transferbench.conformance.diagnostic_case import (
    COUNTS,
    SIDES,
    DiagnosticCase,
    WeightsAlone,
    described,
    key_of,
)
from transferbench.conformance.fixture_trials import Trials, finished_trials, fixture_plan
from transferbench.conformance.fixtures import NETWORKS
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.resources import WorkerResources
from transferbench.errors import TransferbenchError
from transferbench.measurements import Measurements
from transferbench.metrics import needs_scores, predict
from transferbench.plan import Plan
from transferbench.records import Measurement
from transferbench.registry.blame import cause
from transferbench.report.comparisons import name_selves
from transferbench.report.drawing import draw
from transferbench.report.parts import Drawing, Part, Scope
from transferbench.runner.collect import collect
from transferbench.submission.diagnoses import PackedTrial
from transferbench.submission.recompute import equal_values

__all__ = ["CASE", "CHECKS"]

Answer: TypeAlias = tuple[Measurement, float | None, str]
"""A measurement, the value that the spec states for it, and the message where they differ."""


# --- the checks -------------------------------------------------------------------------------


def check_it_measures_finished_trials(case: DiagnosticCase) -> None:
    """On every network it yields at least one measurement; a flag may replace the number."""
    for network, call in case.calls.items():
        if not call.measurements:
            raise Violation(
                f"it measures nothing on trials of {network}",
                "yield a Measurement without a value and a flag that says why",
            )


def check_it_yields_measurements(case: DiagnosticCase) -> None:
    """Valid objects of ``transferbench.records.Measurement``."""
    _ = case.measurements


def check_values_have_a_unit_and_an_n(case: DiagnosticCase) -> None:
    """A value is made of at least one item, and its unit is not empty."""
    for network, value in case.all_measurements():
        if not value.unit.strip():
            raise Violation(f"{described(value)} has no unit", "state it; 1 is a unit")
        if value.value is not None and value.n < 1:
            raise Violation(
                f"{described(value)} is {value.value:.3g} out of n={value.n} on {network}",
                "count in n what the number is made of",
            )


def check_a_metric_has_one_unit(case: DiagnosticCase) -> None:
    """Tables and claims average over a metric's measurements."""
    units: dict[str, str] = {}
    for _, value in case.all_measurements():
        if units.setdefault(value.metric, value.unit) != value.unit:
            raise Violation(f"{value.metric} is in {units[value.metric]!r} and in {value.unit!r}",
                            "give each unit its own metric")  # fmt: skip


def check_values_lie_within_their_intervals(case: DiagnosticCase) -> None:
    """The value lies between low and high, to rounding."""
    for _, value in case.all_measurements():
        if value.low is None or value.high is None or value.value is None:
            continue
        slack = 1e-6 * max(1.0, abs(value.value))
        if not value.low - slack <= value.value <= value.high + slack:
            interval = f"{value.low:.6g}..{value.high:.6g}"
            raise Violation(f"{described(value)} is {value.value:.6g} with the interval {interval}",
                            "put low and high around the value")  # fmt: skip


def check_values_lie_in_their_ranges(case: DiagnosticCase) -> None:
    """Values lie in the range that ``ranges`` states, to rounding."""
    for network, value in case.all_measurements():
        low, high = case.spec.ranges.get(value.metric, (-math.inf, math.inf))
        slack = 1e-6 * max(1.0, abs(value.value or 0.0))
        if value.value is not None and not low - slack <= value.value <= high + slack:
            raise Violation(
                f"{described(value)} is {value.value:.6g} on {network}, and ranges states "
                f"{low:g}..{high:g}",
                "correct the formula or the statement",
            )


def check_a_place_is_measured_once(case: DiagnosticCase) -> None:
    """No two measurements of a metric have equal coordinates."""
    counts = Counter((network, *key_of(value)) for network, value in case.all_measurements())
    for (network, metric, coordinates), count in counts.items():
        if count > 1:
            raise Violation(
                f"{metric} at {dict(coordinates)} is measured {count} times on {network}",
                "distinguish them by a coordinate",
            )


def check_the_same_seed_gives_the_same_numbers(case: DiagnosticCase) -> None:
    """Bitwise, when they are measured again."""
    for network, values in case.measurements.items():
        if (again := case.again.result[network]) != values:
            raise Violation(
                f"{_first_change(values, again)} when it is measured again on {network}",
                "draw from context.generator or context.seed alone",
            )


def check_results_in_the_cache_are_what_their_keys_say(case: DiagnosticCase) -> None:
    """Bitwise the same numbers with one ``context.once`` for all diagnoses, as in a worker.

    Other trials, another seed, and other values of numbers, choices and switches among its
    parameters are tried; not seen are results that diagnostics of other names share.
    """
    if not any(call.caches for call in case.calls.values()):
        raise SkipTest("it caches nothing")
    results: dict[Hashable, Any] = {}
    reused: list[Hashable] = []

    def once(key: Hashable, compute: Callable[[], Any]) -> Any:
        if key in results:
            reused.append(key)
        else:
            results[key] = compute()
        return results[key]

    for description, measure in case.diagnoses():
        reused.clear()
        cached = _outcome(partial(measure, once=once))
        alone = _outcome(measure) if reused else cached
        if cached != alone and not isinstance(alone, str):  # what fails alone may fail in any words
            raise Violation(
                f"{_first_change(alone, cached)} {description} where context.once holds results "
                "of other diagnoses",
                "put all that a result depends on into its key, such as subject.job and the "
                "parameters, and leave the result as it is",
            )


def _outcome(measure: Callable[[], list[Measurement]]) -> list[Measurement] | str:
    """What it yields, or why it fails, as it may on other trials or with other parameters."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001  # a plugin's
        return cause(error)


def _first_change(values: Sequence[Measurement], others: Sequence[Measurement] | str) -> str:
    if isinstance(others, str):
        return f"it fails ({others})"
    changed = (a for a, b in zip(values, others, strict=False) if a != b)
    return f"{next(map(described, changed), 'the number of measurements')} differs"


def check_networks_are_left_as_they_were(case: DiagnosticCase) -> None:
    """Weights, batch statistics, mode, gradients and hooks of all networks that it used."""
    for network, call in case.calls.items():
        for net, before in call.networks:
            refuse_any(differing(net.state_dict(), before), f"of {network} were changed",
                       "load the state back, or work on a copy of the network")  # fmt: skip
            if any(module.training for module in net.modules()):
                raise Violation(f"{network} is left in train mode", "call net.eval() at the end")
            if any(parameter.grad is not None for parameter in net.parameters()):
                raise Violation(f"gradients are left on {network}",
                                "use torch.autograd.grad, or set them to None")  # fmt: skip
            hooks = [{**m._forward_hooks, **m._forward_pre_hooks} for m in net.modules()]  # noqa: SLF001  # no public list
            if any(hooks):
                raise Violation(f"a hook is left on {network}", "remove its handle at the end")


def check_nothing_is_trained(case: DiagnosticCase) -> None:
    """No optimizer steps on a network of a subject."""
    for network, call in case.calls.items():
        owned = {id(parameter) for net, _ in call.networks for parameter in net.parameters()}
        if owned & call.stepped:
            raise Violation(
                f"an optimizer stepped on the parameters of {network}",
                "measure the trained networks; a diagnostic trains nothing",
            )


def check_arrays_are_left_as_they_were(case: DiagnosticCase) -> None:
    """Logits, features and labels are read once and shared with other diagnostics."""
    for call in case.calls.values():
        for name, array, before in call.arrays:
            if not np.array_equal(array, before, equal_nan=True):
                raise Violation(f"the subject's {name} were changed", "work on a copy")


def check_what_it_reads_is_declared(case: DiagnosticCase) -> None:
    """``needs`` names all artefacts of a trial that it reads."""
    needs = set().union(*(call.needs for call in case.calls.values()))
    if undeclared := sorted(needs - case.spec.needs):
        raise Violation(
            f"it reads {', '.join(undeclared)} and declares needs={sorted(case.spec.needs)}",
            f"add {', '.join(map(repr, undeclared))} to needs",
        )


def check_perturbations_are_declared(case: DiagnosticCase) -> None:
    """``perturbations`` names all that it applies, so that ids hold their versions."""
    applied = set().union(*(call.perturbations for call in case.calls.values()))
    refuse_any(applied - set(case.spec.perturbations(case.params)),
               "is applied, but left out by perturbations(params)",
               "return the name of each perturbation that it applies")  # fmt: skip


def check_the_source_network_can_be_measured(case: DiagnosticCase) -> None:
    """A suite may use the pre-trained network in place of a trial, or beside it.

    What cannot be compared with a trial on other images is refused with a message.
    """
    for network in case.calls:
        trials = finished_trials(network, case.device)
        _measure_or_refuse(case, trials, trials.source, f"the source network of {network}")


def check_external_weights_can_be_measured(case: DiagnosticCase) -> None:
    """Where ``needs_of_source`` says so: they have a final state and, for ``head``, its head."""
    if case.spec.needs_of_source == "training":
        return
    for network in case.calls:
        trials = finished_trials(network, case.device)
        weights = cast("FinishedTrial", WeightsAlone(trials.source))
        _measure_or_refuse(case, trials, weights, f"external weights of {network}", refuse=False)


def check_a_task_of_several_labels_is_measured_or_refused(case: DiagnosticCase) -> None:
    """With labels float32 (N, L) it yields numbers or flags, or refuses with a message."""
    trials = finished_trials(next(iter(case.calls)), case.device, "several")
    description = "trials of a task with several labels an image"
    _measure_or_refuse(case, trials, trials.random[0], description)


def check_a_diverged_trial_is_flagged(case: DiagnosticCase) -> None:
    """If weights and logits are not finite, flags replace the numbers and a suite continues."""
    for network in case.calls:
        trials = finished_trials(network, case.device)
        _measure_or_refuse(case, trials, trials.diverged, f"a diverged trial of {network}")


def _measure_or_refuse(
    case: DiagnosticCase,
    trials: Trials,
    subject: FinishedTrial,
    description: str,
    *,
    refuse: bool = True,
) -> None:
    """Measure the subject, beside a trial from pre-trained weights where it takes several.

    ``refuse``: whether the diagnostic may raise an error that says why it does not.
    """
    count = COUNTS[case.spec.subjects]
    subjects = [trials.pretrained[0], *[subject] * (count - 1)] if count > 1 else [subject]
    try:
        values = case.measure(subjects)
    except Exception as error:
        if refuse and isinstance(error, TransferbenchError):
            return
        raise Violation(
            f"on {description} it fails: {cause(error)}",
            "yield a Measurement whose flag says why, or raise a TransferbenchError that does",
        ) from error
    if not values:
        raise Violation(f"it measures nothing on {description}",
                        "yield a Measurement whose flag says why")  # fmt: skip


def check_one_network_with_itself_gives_known_answers(case: DiagnosticCase) -> None:
    """A pair of a network and itself has the values that ``identical`` states."""
    _check_answers(case, "identical", _of_one_network(case), "correct the formula or the statement")


def _of_one_network(case: DiagnosticCase) -> Iterator[Answer]:
    for network in NETWORKS:
        subjects = case.subjects(network)
        for value in case.measure(subjects[:1] * len(subjects)):
            expected = case.spec.identical.get(value.metric)
            module, other = (value.coordinates.get(name) for name in SIDES)
            if expected is None or value.value is None or other not in {None, module}:
                continue
            observed = f"{network} with itself gives {described(value)} = {value.value:.6g}"
            yield value, expected, f"{observed}, and identical states {expected:.6g}"


def check_symmetric_metrics_stay_when_networks_exchange(case: DiagnosticCase) -> None:
    """The metrics in ``symmetric`` are equal for (a, b) and for (b, a)."""
    advice = "correct the formula, or take the metric off symmetric"
    _check_answers(case, "symmetric", _of_exchanged_networks(case), advice)


def _of_exchanged_networks(case: DiagnosticCase) -> Iterator[Answer]:
    for network in NETWORKS:
        a, b, *rest = case.subjects(network)
        swapped = {key_of(value, exchanged=True): value for value in case.measure([b, a, *rest])}
        for value in case.measure([a, b, *rest]):
            other = swapped.get(key_of(value))
            if value.metric in case.spec.symmetric and other is not None:
                observed = f"{described(value)} is {value.value} on {network}, and {other.value}"
                yield value, other.value, f"{observed} when its two trials are exchanged"


def _check_answers(
    case: DiagnosticCase,
    field: Literal["identical", "symmetric"],
    answers: Iterable[Answer],
    advice: str,
) -> None:
    """The answers that ``field`` of the spec states; each metric in it has one at least."""
    if not (stated := set(getattr(case.spec, field))):
        raise SkipTest(f"it states no answers ({field})")
    if case.spec.subjects == "one":
        raise Violation(f"it measures one subject and states answers for two ({field})",
                        f"drop {field}")  # fmt: skip
    _ = case.measurements
    for value, expected, observed in answers:
        stated.discard(value.metric)
        if not _close(value.value, expected, case.spec.answers_within):
            raise Violation(observed, advice)
    if stated:
        raise Violation(
            f"{field} states {', '.join(sorted(stated))}, which has no value on any trial",
            "drop it, or measure it",
        )


def _close(a: float | None, b: float | None, within: float) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= within


def check_the_cost_is_a_number(case: DiagnosticCase) -> None:
    """Forward passes over the evaluation subset, for the plan's hours."""
    cost = case.spec.cost(case.params)
    if not is_number_from_0(cost):
        raise Violation(f"cost returned {cost!r}", "return forward passes: a finite number from 0")


def check_recomputed_values_are_those_measured(case: DiagnosticCase) -> None:
    """``recompute`` gives the values of ``measure`` from predictions and history alone.

    Of a metric it gives all or none: a submission with others of it is refused.
    """
    if case.spec.recompute is None:
        raise SkipTest("it recomputes nothing")
    for network, values in case.measurements.items():
        measured = {key_of(value): value for value in values}
        trials = [_submitted(trial) for trial in case.subjects(network)]
        recomputed = list(case.spec.recompute(case.params, trials))
        if not recomputed:
            raise Violation(f"it recomputes nothing of trials of {network}",
                            "yield values of measure again, or leave recompute out")  # fmt: skip
        for value in recomputed:
            expected = measured.get(key_of(value))
            if expected is None:
                raise Violation(f"{described(value)} is recomputed, but not measured, on {network}",
                                "yield metrics and coordinates of measure alone")  # fmt: skip
            if not equal_values(value.value, expected.value) or value.n != expected.n:
                raise Violation(
                    f"{described(value)} is {expected.value} (n={expected.n}) on {network}, and "
                    f"{value.value} (n={value.n}) when it is recomputed",
                    "use one function of predictions and history in both, or leave the metric out",
                )
        keys, metrics = set(map(key_of, recomputed)), {value.metric for value in recomputed}
        for value in values:
            if value.metric in metrics and key_of(value) not in keys:
                raise Violation(
                    f"{described(value)} is measured, but not recomputed, on {network}",
                    "recompute a metric at all of its coordinates, or leave it out",
                )
        # A submission has no history of a trial whose history no diagnosis records.
        list(case.spec.recompute(case.params, [replace(trial, history=None) for trial in trials]))


def _submitted(trial: FinishedTrial) -> PackedTrial:
    """The trial as a submission holds it."""
    items, labels = np.arange(len(trial.labels)), trial.labels.astype(np.int32)
    ranked = needs_scores(trial.metric)
    outputs = trial.logits if ranked else predict(trial.logits, labels).astype(np.int32)
    return PackedTrial(trial.job, trial.task, trial.metric, trial.logits.shape[1], trial.history,
                       items, labels, outputs)  # fmt: skip


def check_metrics_are_declared(case: DiagnosticCase) -> None:
    """What it measures with the tiny parameters is in ``metrics``, where those are declared."""
    if not case.spec.metrics:
        raise SkipTest("it declares no metrics, so that a suite's names are not checked")
    _ = case.calls
    planned, resources = fixture_plan(case.spec, case.params, case.device)
    measured = {row["metric"] for row in _rows(case, planned, resources)}
    refuse_any(measured - case.spec.metrics, "is measured, but not in metrics",
               "declare all that measure yields")  # fmt: skip


def check_the_report_shows_its_measurements(case: DiagnosticCase) -> None:
    """The part of ``report`` has figures or tables, and names only metrics that it measures."""
    report = case.spec.report
    if report is None:
        raise SkipTest("it brings no part of the report")
    _ = case.calls
    planned, resources = fixture_plan(case.spec, case.params, case.device)
    trials = [record.row() for record in collect(planned, resources.store).records]
    measured = list(_rows(case, planned, resources))
    refuse_any(report.metrics - {row["metric"] for row in measured},
               "is named in report.metrics, but not measured",
               "name metrics that it yields with the tiny parameters")  # fmt: skip
    measurements = Measurements(name_selves(pd.DataFrame([*trials, *measured])))
    scope = Scope(planned.suite, trials[0]["entry"], measurements, frozenset({case.spec.name}))
    part = report.build(scope)
    if part is None:
        raise SkipTest("its part has nothing to show of the kit's trials")
    if not isinstance(part, Part):
        raise Violation(f"report.build returned {type(part).__name__} for measured trials",
                        "return transferbench.reporting.Part")  # fmt: skip
    if not part.blocks:
        notes = f" ({'; '.join(part.notes)})" if part.notes else ""
        raise Violation(f"the part {part.title!r} shows nothing of measured trials{notes}",
                        "give it a figure or a table")  # fmt: skip
    for block in part.blocks:
        if isinstance(block, Drawing):
            draw(block.figure, case.spec.name)


def _rows(
    case: DiagnosticCase, planned: Plan, resources: WorkerResources
) -> Iterator[dict[str, Any]]:
    """Its measurements, as rows of the run's table."""
    for cell in planned.measured:
        jobs = planned.jobs[cell.job].payload["subjects"]
        # It may refuse a comparison with the source, and few take references beside a pair.
        refusal = Exception if len(jobs) > COUNTS[case.spec.subjects] else TransferbenchError
        with suppress(refusal):
            for value in case.measure([FinishedTrial(resources, job) for job in jobs]):
                fields = value.model_dump(exclude={"coordinates"})
                yield {**cell.axes, **fields, **value.coordinates}


CASE = DiagnosticCase
CHECKS = (*defined_in(__name__), *cases.CHECKS)
