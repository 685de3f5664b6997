"""The answer in words: what pre-training gave one entry, computed from its measurements."""

from __future__ import annotations

from statistics import fmean

from transferbench.report.formats import number, signed
from transferbench.report.summaries import Measured, ReplicateValues, Summary, summarize
from transferbench.suite import Suite

__all__ = ["answer"]


def scored_pair(suite: Suite) -> tuple[str, str]:
    """The arm that is scored and the one it is compared with."""
    return suite.scoring.initialization, suite.scoring.baseline


def mean_over_targets(
    measured: Measured, suite: Suite, diagnostic: str, metric: str
) -> tuple[Summary | None, list[str]]:
    """The paired difference averaged over the scored targets at each replicate, and those targets.

    A control, such as a target with shuffled labels, is not scored.
    Error: Student-t over the replicates that every one of these targets has.
    """
    pair, perturbation = scored_pair(suite), suite.scoring.perturbation
    known: dict[str, ReplicateValues] = {}
    for target in suite.scoring.chance:
        where = {"target": target, "perturbation": perturbation}
        if values := measured.differences(diagnostic, metric, pair, **where):
            known[target] = values
    shared = set.intersection(*map(set, known.values())) if known else set()
    means = [fmean(values[one] for values in known.values()) for one in sorted(shared)]
    return summarize(means), list(known)


def effect(one: Summary, what: str) -> str:
    """What the difference does to ``what``, with its interval in points and its n."""
    size = number(abs(100 * one.mean))
    if one.low is None or one.high is None:
        word = "higher" if one.mean > 0 else "lower"
        return f"leaves {what} {size} points {word} (n = {one.n}: no interval)"
    low, high = signed(100 * one.low), signed(100 * one.high)
    error = f"95% interval {low} to {high}, n = {one.n} paired replicates"
    if one.side == 0:
        return f"does not measurably move {what}: {signed(100 * one.mean)} points ({error})"
    return f"{'raises' if one.side > 0 else 'lowers'} {what} by {size} points ({error})"


def gain_sentence(measured: Measured, suite: Suite) -> str:
    """The gain of the scored arm over its baseline, without perturbation."""
    one, targets = mean_over_targets(measured, suite, "trial", "test_metric")
    a, b = scored_pair(suite)
    if one is None:
        return (
            f"No replicate has finished both {a} and {b} on every target, so the gain is not known."
        )
    where = f"on {targets[0]}" if len(targets) == 1 else f"averaged over {len(targets)} targets"
    return f"Pre-training ({a} instead of {b}) {effect(one, f'the test metric {where}')}."


def speed_sentence(measured: Measured, suite: Suite) -> str:
    """The gain in optimisation speed, where speed was measured."""
    one, _ = mean_over_targets(measured, suite, "speed", "speed")
    if one is None:
        return ""
    return f"It {effect(one, 'the speed (mean train metric over the epochs)')}."


def gains_under_perturbation(measured: Measured, suite: Suite, target: str) -> dict[str, Summary]:
    """The gain under each perturbation that has an interval."""
    gains = {
        label: measured.difference(
            "trial", "test_metric", scored_pair(suite), target=target, perturbation=label
        )
        for label in suite.perturbations
        if label != suite.scoring.perturbation
    }
    return {label: one for label, one in gains.items() if one and one.low is not None}


def fade_sentence(measured: Measured, suite: Suite) -> str:
    """Where the gain can no longer be told from zero."""
    scored = suite.scoring.chance
    gains = {target: gains_under_perturbation(measured, suite, target) for target in scored}
    count = sum(map(len, gains.values()))
    faded = {
        target: [label for label, one in found.items() if one.side < 1]
        for target, found in gains.items()
    }
    lost = sum(map(len, faded.values()))
    if not count:
        return ""
    if not lost:
        return "The gain stays above zero under every perturbation measured."
    parts = [f"on {target} under {', '.join(labels)}" for target, labels in faded.items() if labels]
    rest = "; elsewhere it stays above zero" if lost < count else ""
    return f"The gain is gone or cannot be told from zero {'; '.join(parts)}{rest}."


def answer(measured: Measured, suite: Suite) -> str:
    """The sentences that have data behind them."""
    sentences = (gain_sentence, speed_sentence, fade_sentence)
    return " ".join(filter(None, (write(measured, suite) for write in sentences)))
