"""What a trained network loses when one module takes its weights from another state.

Source: Zhang, Bengio, Singer 2019, arXiv 1902.01996: robust modules hardly care, critical ones do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from transferbench.records import Measurement
from transferbench.specs import HEAD, Subject
from transferbench.statistics import wilson

if TYPE_CHECKING:
    from torch import Tensor

    from transferbench.metrics import Evaluation

__all__ = ["ALL", "NONE", "Swap", "cost_of", "measurements", "swapped"]

NONE, ALL = "none", "all"

BATCH = 250
"""Images at once."""

CALIBRATION = 1000
"""Train images from which batch statistics are recomputed."""

TYPICAL_MODULES = 10
"""For the plan's estimate, which knows no backbone; on average half of one is run for a module."""

UNDEFINED = "not finite, or not defined on these images"

Key = str | int
State = Mapping[str, "Tensor"]


class Swap(NamedTuple):
    """How the network does with ``module`` of the state named ``key``."""

    module: str
    key: Key
    found: Evaluation


def cost_of(states: int) -> float:
    """Forward passes for so many states."""
    return 1 + states * (1 + TYPICAL_MODULES / 2)


def swapped(subject: Subject, states: Mapping[Key, State], limit: int | None) -> Iterator[Swap]:
    """Each state whole (ALL), each state's modules one by one, and the final network (NONE).

    A module's parameters and buffers are taken together. Batch statistics are recomputed, of the
    final network too: those of layers that saw the weights of another module are of no network.
    Test images.
    """
    from transferbench.analysis.landscape import (
        Criterion,
        Examples,
        evaluate_states,
        has_batch_statistics,
    )
    from transferbench.networks.prefix_cache import PrefixCache

    net, final = subject.network("final"), subject.state("final")
    images, targets = subject.images("test", limit), subject.targets("test", limit)
    criterion = Criterion(subject.task, subject.metric)
    calibration = subject.images("train", CALIBRATION) if has_batch_statistics(net) else None
    # Statistics are of a pass through the whole network.
    prefix = PrefixCache(net, images, BATCH) if calibration is None else None

    def evaluated(inputs: Tensor, given: Iterable[State]) -> list[Evaluation]:
        found = evaluate_states(
            net,
            given,
            {"test": Examples(inputs, targets)},
            criterion,
            calibration=calibration,
            batch_size=BATCH,
        )
        return [evaluation["test"] for evaluation in found]

    for key, found in zip(states, evaluated(images, states.values()), strict=True):
        yield Swap(ALL, key, found)
    *_, last = subject.modules
    for module, names in subject.modules.items():
        with prefix.inputs_of(names) if prefix else nullcontext(images) as inputs:
            given = (_with(final, state, names) for state in states.values())
            swaps = evaluated(inputs, given)
            # Behind the last module's input the final network costs next to nothing.
            whole = evaluated(inputs, [final]) if module == last else []
        for key, found in zip(states, swaps, strict=True):
            yield Swap(module, key, found)
        for found in whole:
            yield Swap(NONE, "final", found)


def _with(final: State, state: State, names: Sequence[str]) -> State:
    return {**final, **{name: state[name] for name in names}}


# --- what is published ------------------------------------------------------------------------


def measurements(
    swaps: Iterable[Swap], place: str, subject: Subject, n: int
) -> Iterator[Measurement]:
    """Metric, loss and drop of each swap (NONE is the last), and the drops outside the head.

    ``place`` names the coordinate of a state's key. drop = metric of NONE - metric.
    """
    # Of several labels an image an accuracy is a mean of shares: no count of images.
    counts = subject.task == "multi-class" and subject.metric == "accuracy"
    *others, whole = swaps
    yield from _levels(whole, {"module": NONE, place: whole.key}, n, counts=counts)
    drops: dict[Key, list[float | None]] = {}
    for swap in others:
        coordinates = {"module": swap.module, place: swap.key}
        yield from _levels(swap, coordinates, n, counts=counts)
        drop = _difference(whole.found.metric, swap.found.metric)
        yield _fraction("drop", drop, n, coordinates)
        if swap.module not in {ALL, HEAD}:
            drops.setdefault(swap.key, []).append(drop)
    for key, found in drops.items():
        yield from _summary(found, n, {place: key})


def _levels(
    swap: Swap, coordinates: dict[str, Key], n: int, *, counts: bool
) -> Iterator[Measurement]:
    value, loss = swap.found.metric, swap.found.loss
    bounds = wilson(round(value * n), n).fields() if counts and value is not None else {}
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
    drops: Sequence[float | None], n: int, coordinates: dict[str, Key]
) -> Iterator[Measurement]:
    known = [drop for drop in drops if drop is not None]
    complete = len(known) == len(drops)
    mean, worst = (sum(known) / len(known), max(known)) if complete else (None, None)
    yield _fraction("mean_body_drop", mean, n, coordinates)
    yield _fraction("worst_body_drop", worst, n, coordinates)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _fraction(
    name: str,
    value: float | None,
    n: int,
    coordinates: Mapping[str, Key],
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
