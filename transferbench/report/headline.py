"""The answer in words: what pre-training gave one entry, computed from its measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transferbench.measurements import mean_of
from transferbench.report.formats import percent, signed_percent, significant
from transferbench.report.parts import Scope
from transferbench.report.quantities import TEST, Quantity, quantities_of
from transferbench.report.question import compared_targets, question
from transferbench.report.summaries import Summary, as_summary
from transferbench.statistics import replicate_difference

__all__ = ["answer"]


def answer(scope: Scope) -> str:
    """The sentences that have data behind them."""
    gain, targets = _mean_over_targets(scope, TEST)
    a, b = scope.pair
    if gain is None:
        first = f"No replicate has finished both {a} and {b} on every target, so the gain is not"
        first += " known."
    elif scope.suite.scoring.statistics:
        first, targets = question(scope), compared_targets(scope)
    else:
        effect = _effect(gain, f"the test metric {_averaged(targets)}", TEST)
        first = f"Pre-training ({a} instead of {b}) {effect}."
    return " ".join(filter(None, [first, *_others(scope, targets), _fade_sentence(scope)]))


def _averaged(targets: Sequence[str]) -> str:
    return f"on {targets[0]}" if len(targets) == 1 else f"averaged over {len(targets)} targets"


def _others(scope: Scope, targets: Sequence[str]) -> list[str]:
    """A sentence on each other quantity that the suite's columns name.

    It says on which targets where these are not those of the first sentence.
    """
    sentences = []
    for quantity in quantities_of(scope.suite, scope.measurements):
        gain, own = _mean_over_targets(scope, quantity)
        if gain is not None:
            name = f"the {quantity.name}" + ("" if own == targets else f" {_averaged(own)}")
            sentences.append(f"It {_effect(gain, name, quantity)}.")
    return sentences


def _mean_over_targets(scope: Scope, quantity: Quantity) -> tuple[Summary | None, list[str]]:
    """The paired difference averaged over the scored targets, and those targets.

    A control, such as a target with shuffled labels, is not scored.
    Error: ``replicate_difference`` over the replicates that every one of these targets has.
    """
    scoring = scope.suite.scoring
    rows = quantity.rows(scope.measurements).select(perturbation=scoring.perturbation)
    of_arms = {
        target: quantity.of_arms(rows.select(target=target), scope.pair)
        for target in scoring.chance
    }
    arms = {target: both for target, both in of_arms.items() if both[0].keys() & both[1].keys()}
    first, second = (mean_of([both[side] for both in arms.values()]) for side in (0, 1))
    compared = rows.select(initialization=scope.pair)
    gain = replicate_difference(first, second, compared.networks, ends=compared.bounds)
    return as_summary(gain), list(arms)


def _effect(gain: Summary, name: str, quantity: Quantity) -> str:
    """Whether the difference raises or lowers ``name``, with its interval and n."""
    write, sign, unit = (
        (percent, signed_percent, "points")
        if quantity.of_fractions
        else (significant, significant, quantity.unit)
    )
    size = write(abs(gain.mean))
    if gain.low is None or gain.high is None:
        word = "higher" if gain.mean > 0 else "lower"
        return f"leaves {name} {size} {unit} {word} (n = {gain.n}: no interval)"
    bounds = f"{sign(gain.low)} to {sign(gain.high)}"
    counted = "source networks" if gain.over_networks else "paired replicates"
    error = f"95% interval {bounds}, n = {gain.n} {counted}"
    if gain.side == 0:
        return f"does not significantly change {name}: {sign(gain.mean)} {unit} ({error})"
    return f"{'raises' if gain.side > 0 else 'lowers'} {name} by {size} {unit} ({error})"


def _fade_sentence(scope: Scope) -> str:
    """Where the gain is not above zero: not different from it, or below."""
    scoring, rows = scope.suite.scoring, TEST.rows(scope.measurements)
    without: dict[int, dict[str, list[str]]] = {0: {}, -1: {}}
    count = 0
    for target in scoring.chance:
        for label in scope.suite.perturbations:
            here = rows.select(target=target, perturbation=label)
            compared = TEST.rows(here).select(initialization=scope.pair)
            gain = as_summary(replicate_difference(
                *TEST.of_arms(here, scope.pair), compared.networks, ends=compared.bounds
            ))  # fmt: skip
            if label != scoring.perturbation and gain and gain.low is not None:
                count += 1
                if gain.side < 1:
                    without[gain.side].setdefault(target, []).append(label)
    lost = sum(len(labels) for targets in without.values() for labels in targets.values())
    if not count:
        return ""
    if not lost:
        return "The gain is significant under every perturbation measured."
    words = {0: "not significantly different from zero", -1: "below zero"}
    parts = [f"{words[side]} {_where(targets)}" for side, targets in without.items() if targets]
    rest = "; elsewhere it is above zero" if lost < count else ""
    return f"The gain is {'; it is '.join(parts)}{rest}."


def _where(targets: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"on {target} under {', '.join(labels)}" for target, labels in targets.items())
