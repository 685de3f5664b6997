"""The loss of performance of a trained network when one module's weights are replaced.

Source: Zhang, Bengio, Singer 2019, arXiv 1902.01996, which calls modules robust or critical.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from transferbench.records import Measurement
from transferbench.specs import HEAD, Subject
from transferbench.statistics import wilson

if TYPE_CHECKING:
    from transferbench.metrics import Evaluation
    from transferbench.networks.modules import StateDict

__all__ = [
    "ALL",
    "NONE",
    "ModuleSwap",
    "StateKey",
    "evaluate_swaps",
    "forward_passes",
    "measure_swaps",
]

NONE, ALL = "none", "all"

CALIBRATION = 1000
"""Train images from which batch statistics are recomputed."""

TYPICAL_MODULES = 10
"""For cost estimates, which do not depend on the backbone; a swap runs half of them on average."""

UNDEFINED = "not finite, or not defined on these images"

StateKey = str | int


class ModuleSwap(NamedTuple):
    """The network evaluated with ``module`` from the state ``key``."""

    module: str
    key: StateKey
    evaluation: Evaluation


def forward_passes(states: int) -> float:
    """The cost of swapping in the modules of ``states`` states."""
    return 1 + states * (1 + TYPICAL_MODULES / 2)


def evaluate_swaps(
    subject: Subject, states: Mapping[StateKey, StateDict], limit: int | None
) -> Iterator[ModuleSwap]:
    """On test images: each state (ALL), each of its modules in turn, and the final network (NONE).

    A module's parameters and buffers are swapped together. Batch statistics are recomputed in each
    case, the final network included: a swap changes the inputs of the layers behind it.
    """
    from transferbench.analysis.landscape import Criterion, Examples
    from transferbench_plugins.diagnostics.modules._module_evaluation import ModuleEvaluator

    final = subject.state("final")
    evaluator = ModuleEvaluator(
        subject.network("final"),
        Examples(subject.images("test", limit), subject.targets("test", limit)),
        Criterion(subject.task, subject.metric),
        calibration=lambda: subject.images("train", CALIBRATION),
    )
    for key, evaluation in zip(states, evaluator.evaluate(states.values()), strict=True):
        yield ModuleSwap(ALL, key, evaluation)
    *_, last = subject.modules
    for module, names in subject.modules.items():
        with evaluator.within(names) as evaluate:
            swaps = evaluate(_swap(final, state, names) for state in states.values())
            # From the last module's inputs the final network costs next to nothing.
            unchanged = evaluate([final]) if module == last else []
        for key, evaluation in zip(states, swaps, strict=True):
            yield ModuleSwap(module, key, evaluation)
        for evaluation in unchanged:
            yield ModuleSwap(NONE, "final", evaluation)


def _swap(final: StateDict, state: StateDict, names: Sequence[str]) -> StateDict:
    return {**final, **{name: state[name] for name in names}}


# --- measurements -----------------------------------------------------------------------------


def measure_swaps(
    subject: Subject, states: Mapping[StateKey, StateDict], limit: int | None, coordinate: str
) -> Iterator[Measurement]:
    """Metric, loss and drop of each swap, and the summaries of drops outside the head.

    ``coordinate``: the name under which the key of a state is published. drop = metric of NONE -
    metric.
    """
    n = len(subject.targets("test", limit))
    # A multi-label accuracy is a mean of shares, not a share of images.
    is_share = subject.task == "multi-class" and subject.metric == "accuracy"
    *swaps, unchanged = evaluate_swaps(subject, states, limit)
    coordinates = {"module": NONE, coordinate: unchanged.key}
    yield from _levels(unchanged.evaluation, coordinates, n, is_share=is_share)
    drops: dict[StateKey, list[float | None]] = {}
    for swap in swaps:
        coordinates = {"module": swap.module, coordinate: swap.key}
        yield from _levels(swap.evaluation, coordinates, n, is_share=is_share)
        drop = _difference(unchanged.evaluation.metric, swap.evaluation.metric)
        yield _fraction("drop", drop, n, coordinates)
        if swap.module not in {ALL, HEAD}:
            drops.setdefault(swap.key, []).append(drop)
    for key, body_drops in drops.items():
        yield from _summary(body_drops, n, {coordinate: key})


def _levels(
    evaluation: Evaluation, coordinates: dict[str, StateKey], n: int, *, is_share: bool
) -> Iterator[Measurement]:
    value, loss = evaluation.metric, evaluation.loss
    bounds = wilson(round(value * n), n).fields() if is_share and value is not None else {}
    yield _fraction("metric", value, n, coordinates, **bounds)
    yield Measurement(
        metric="loss",
        value=loss,
        unit="nats",
        n=n,
        coordinates=dict(coordinates),
        flag=UNDEFINED if loss is None else None,
    )


def _summary(
    drops: Sequence[float | None], n: int, coordinates: dict[str, StateKey]
) -> Iterator[Measurement]:
    defined = [drop for drop in drops if drop is not None]
    complete = len(defined) == len(drops)
    mean, worst = (sum(defined) / len(defined), max(defined)) if complete else (None, None)
    yield _fraction("mean_body_drop", mean, n, coordinates)
    yield _fraction("worst_body_drop", worst, n, coordinates)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _fraction(
    name: str,
    value: float | None,
    n: int,
    coordinates: Mapping[str, StateKey],
    **bounds: float | str | None,
) -> Measurement:
    flag = UNDEFINED if value is None else None
    return Measurement(
        metric=name,
        value=value,
        unit="fraction",
        n=n,
        coordinates=dict(coordinates),
        flag=flag,
        **bounds,
    )
