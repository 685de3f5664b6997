"""Rewinding and re-randomisation: loss of performance when one module's weights are replaced.

Rewinding restores the initial values themselves; re-randomisation only their distribution.

Source: Zhang, Bengio, Singer 2019, "Are all layers created equal?", arXiv 1902.01996, which calls
modules robust or critical; Neyshabur et al. 2020, arXiv 2008.11687, Figure 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from transferbench.errors import StoreError
from transferbench.identity import derive_seed
from transferbench.records import Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench_plugins.diagnostics._measurement import measurement, recorded_metric

if TYPE_CHECKING:
    from transferbench.metrics import Evaluation
    from transferbench.networks.modules import StateDict

__all__ = [
    "RERANDOMISATION",
    "REWINDING",
    "TYPICAL_MODULES",
    "RerandomisationParams",
    "RewindingParams",
    "evaluate_swaps",
]

NONE, ALL = "none", "all"

CALIBRATION = 1000
"""Train images from which batch statistics are recomputed."""

TYPICAL_MODULES = 10
"""For cost estimates, which do not depend on the backbone; a swap runs half of them on average."""

UNDEFINED = "not finite, or not defined on these images"

StateKey = str | int
Checkpoint = Literal["init", "best"] | Annotated[int, Field(ge=0)]


class RewindingParams(Params):
    """``to``: states to rewind modules to: ``init``, ``best`` or a stored epoch.

    ``limit``: test images (None: all).
    """

    to: Annotated[tuple[Checkpoint, ...], Field(min_length=1)] = ("init",)
    limit: Annotated[int, Field(ge=1)] | None = None


class RerandomisationParams(Params):
    """``draws``: fresh networks to take modules from. ``limit``: test images (None: all)."""

    draws: Annotated[int, Field(ge=1, le=1000)] = 3
    limit: Annotated[int, Field(ge=1)] | None = None


def _measure_rewinding(
    params: RewindingParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module rewound, without further training.

    For a fine-tuned network ``init`` is P in the body and the random initialization of the head.
    Parameters and buffers of a module are rewound together; batch statistics are recomputed from
    train images, for ``none`` too. ``module`` is ``none`` for the final network and ``all`` for the
    complete state ``to``. drop = metric of ``none`` - metric; mean_body_drop and worst_body_drop
    are over the modules outside the head.
    Units: fraction; nats for the loss.
    Error: exact over test images for a multi-class accuracy; none for drops.
    Raises: ``StoreError`` for an epoch that was not stored.
    """
    del context  # no randomness
    (subject,) = subjects
    for to in params.to:
        if isinstance(to, int) and to not in subject.epochs:
            stored = ", ".join(map(str, subject.epochs)) or "none"
            raise StoreError(
                f"cannot rewind to epoch {to}: the trial stored no such state (stored epochs: "
                f"{stored}); rewind to 'init', or store that epoch during training"
            )
    states: dict[StateKey, StateDict] = {to: subject.state(to) for to in params.to}
    yield from _measure_swaps(subject, states, params.limit, "to")


def _measure_rerandomisation(
    params: RerandomisationParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module from a freshly initialized network.

    It is initialized by the backbone, for fine-tuned networks too (not from P). Coordinates,
    units, summaries and error as in rewinding; ``draw`` numbers the fresh networks.
    """
    (subject,) = subjects
    states: dict[StateKey, StateDict] = {
        draw: subject.fresh(derive_seed("re-randomisation", {"seed": context.seed, "draw": draw}))
        for draw in range(params.draws)
    }
    yield from _measure_swaps(subject, states, params.limit, "draw")


def evaluate_swaps(
    subject: Subject, states: Mapping[StateKey, StateDict], limit: int | None
) -> Iterator[tuple[str, StateKey, Evaluation]]:
    """On test images: each state (ALL), each of its modules in turn, and the final network (NONE).

    Yields the module, the key of the state that it is from, and the evaluation. A module's
    parameters and buffers are swapped together. Batch statistics are recomputed in each case, the
    final network included: a swap changes the inputs of the layers behind it.
    """
    from transferbench.analysis.landscape import Criterion, Examples
    from transferbench_plugins.diagnostics.modules._module_evaluation import ModuleEvaluator

    targets = subject.targets("test", limit)
    final, *others = (
        {name: tensor.to(targets.device) for name, tensor in state.items()}
        for state in (subject.state("final"), *states.values())
    )
    states = dict(zip(states, others, strict=True))
    evaluator = ModuleEvaluator(
        subject.network("final"),
        Examples(subject.images("test", limit), targets),
        Criterion(subject.task, subject.metric),
        calibration=lambda: subject.images("train", CALIBRATION),
    )
    for key, evaluation in zip(states, evaluator.evaluate(states.values()), strict=True):
        yield ALL, key, evaluation
    *_, last = subject.modules
    for module, names in subject.modules.items():
        with evaluator.within(names) as evaluate:
            swaps = evaluate(
                {**final, **{name: state[name] for name in names}} for state in states.values()
            )
            # From the last module's inputs the final network costs next to nothing.
            unchanged = evaluate([final]) if module == last else []
        for key, evaluation in zip(states, swaps, strict=True):
            yield module, key, evaluation
        for evaluation in unchanged:
            yield NONE, "final", evaluation


def _measure_swaps(
    subject: Subject, states: Mapping[StateKey, StateDict], limit: int | None, coordinate: str
) -> Iterator[Measurement]:
    """Metric, loss and drop of each swap, and the summaries of drops outside the head.

    ``coordinate``: the name under which the key of a state is published. drop = metric of NONE -
    metric.
    """
    n = len(subject.targets("test", limit))
    *swaps, unchanged = evaluate_swaps(subject, states, limit)
    final_metric = unchanged[2].metric
    body_drops: dict[StateKey, list[float | None]] = {}
    for module, key, (loss, metric) in (unchanged, *swaps):
        at = {"module": module, coordinate: key}
        value = recorded_metric(subject, metric, n)
        yield measurement("metric", value, "fraction", n, at, missing=UNDEFINED)
        yield measurement("loss", loss, "nats", n, at, missing=UNDEFINED)
        if module == NONE:
            continue
        drop = None if final_metric is None or metric is None else final_metric - metric
        yield measurement("drop", drop, "fraction", n, at, missing=UNDEFINED)
        if module not in {ALL, HEAD}:
            body_drops.setdefault(key, []).append(drop)
    for key, drops in body_drops.items():
        defined = [drop for drop in drops if drop is not None]
        complete = len(defined) == len(drops)
        mean, worst = (sum(defined) / len(defined), max(defined)) if complete else (None, None)
        for name, value in (("mean_body_drop", mean), ("worst_body_drop", worst)):
            yield measurement(name, value, "fraction", n, {coordinate: key}, missing=UNDEFINED)


def _cost(states: int) -> float:
    """Forward passes to swap in the modules of ``states`` states."""
    return 1 + states * (1 + TYPICAL_MODULES / 2)


METRICS = frozenset({"metric", "loss", "drop", "mean_body_drop", "worst_body_drop"})
RANGES = {
    "metric": (0, 1),
    "loss": (0, math.inf),
    **dict.fromkeys(("drop", "mean_body_drop", "worst_body_drop"), (-1, 1)),
}
REPORT = ReportPart(build=f"{__package__}._swaps_report:swaps", metrics=METRICS)

REWINDING = DiagnosticSpec(
    name="rewinding",
    version=2,
    summary="Metric and loss with each module rewound to its initial (or a stored) state",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Figure 5; Zhang et al. 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RewindingParams,
    tiny={"limit": 8},
    measure=_measure_rewinding,
    subjects="one",
    unknown_labels=True,
    metrics=METRICS,
    ranges=RANGES,
    needs=frozenset({"init_state", "images"}),
    states=lambda params: [which for which in params.to if isinstance(which, str)],
    cost=lambda params: _cost(len(params.to)),
    epochs=lambda params: [to for to in params.to if isinstance(to, int)],
    limit=lambda params: params.limit,
    report=REPORT,
)

RERANDOMISATION = DiagnosticSpec(
    name="re-randomisation",
    version=2,
    summary="Metric and loss with each module resampled from its initial distribution",
    source="Zhang, Bengio, Singer 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RerandomisationParams,
    tiny={"draws": 1, "limit": 8},
    measure=_measure_rerandomisation,
    subjects="one",
    unknown_labels=True,
    metrics=METRICS,
    ranges=RANGES,
    needs=frozenset({"images"}),
    cost=lambda params: _cost(params.draws),
    limit=lambda params: params.limit,
    report=REPORT,
)
