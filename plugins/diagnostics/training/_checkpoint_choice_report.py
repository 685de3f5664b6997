"""Figure 7 of the paper: how long to pre-train for what pre-training gives to the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from transferbench import reporting as rp
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics.training._earliest_checkpoint import earliest_sufficient

__all__ = ["checkpoint_arms", "checkpoints"]

SOURCE_METRIC = "source_metric"
MEASURES = {
    "target_metric": "target metric after fine-tuning",
    "speed": "speed: mean train metric",
    SOURCE_METRIC: "source metric of the checkpoint",
}
TOLERANCE = 0.01
DESCRIPTION = "target metric, speed and source metric against the epoch of the checkpoint"
PRETRAINED = "pretrained"

CAPTION = (
    "Figure 7. What fine-tuning reaches from each checkpoint of pre-training, beside the "
    "checkpoint's metric on its own task. Where the target's curve is flat while the source's "
    "still rises, further pre-training is not transferred. Dotted: the earliest checkpoint that "
    f"reaches {1 - TOLERANCE:.0%} of the last one's target metric."
)
ONCE = "In %. The source was trained once: its metric has no interval."
OF_NETWORKS = "In %. The source metric has one value for each source network."
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} DomainNet", "Figure 7", "digitised", """\
epoch of pre-training | real, % | clipart, % | quickdraw, % |\
 speed on real / clipart / quickdraw, % | ImageNet top-1, %
0  | 61.2 | below 60 | 64.3 | 70 to 73           | -
1  | 61.8 | below 60 | 64.6 | -                  | -
2  | 64.0 | 61       | 64.9 | -                  | -
5  | 69.6 | 67       | 66.0 | -                  | -
10 | 73.5 | 70.6     | 66.7 | -                  | 50
29 | 76.2 | 72.5     | 66.9 | -                  | 56
30 | 76.5 | 72.8     | 66.8 | -                  | -
31 | 76.8 | 72.8     | 66.8 | -                  | 68
59 | 78.4 | 74.2     | 67.2 | -                  | 71
60 | 78.3 | 74.1     | 67.2 | -                  | -
61 | 78.3 | 74.1     | 67.3 | -                  | -
90 | 78.4 | 73.9     | 66.9 | 93.3 / 92.5 / 86.5 | 75
""")  # fmt: skip


def checkpoints(scope: rp.Scope) -> rp.Part | None:
    """The three curves and their table, with the earliest sufficient checkpoint.

    None where no arm starts from a checkpoint.
    """
    arms = checkpoint_arms(scope)
    if not arms:
        return None
    rows = _rows(scope, arms)
    conditions = scope.conditions(rows)
    earliest = {condition: _earliest(scope, arms, condition) for condition, _ in conditions}

    def blocks(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
        del views  # there is one set of parameters
        if conditions:
            lines = [
                _panels(here, condition, earliest[condition]) for condition, here in conditions
            ]
            figure = rp.PanelFigure(DESCRIPTION, lines)
            yield rp.Drawing(figure, rp.caption(CAPTION, figure, rows, ""))
            if table := _table(scope, rows):
                yield rp.Listing("Metric by checkpoint", table)
            yield PUBLISHED.listing

    part = scope.part("Which checkpoint to start from", blocks)
    sentences = [f"{c.name}: {_sentence(interval)}" for c, interval in earliest.items()]
    return replace(part, notes=[*sentences, *part.notes]) if part.blocks else part


def _rows(scope: rp.Scope, arms: Collection[str]) -> rp.Measurements:
    """The measures of the arms that start from a checkpoint.

    Those of a source network stand once, however many trials start from it.
    """
    rows = scope.rows.select(initialization=list(arms))
    rows = rows.select(checkpoint=rows.distinct("checkpoint"))
    own = rows.select(metric=[metric for metric in MEASURES if metric != SOURCE_METRIC])
    of_source = rows.select(metric=SOURCE_METRIC)
    for here in of_source.groups("target", "perturbation", "initialization").values():
        own |= here.select(replicate=here.first_replicates)
    return own


def checkpoint_arms(scope: rp.Scope) -> dict[str, int]:
    """The arms that fine-tune a checkpoint of the scored arm's source, each with its epoch.

    Of two arms with one checkpoint the scored one, or the first of the suite, stands for it.
    """
    suite = scope.suite
    scored = suite.initializations[scope.pair[0]]
    source = suite.sources.get(scored.source)
    last = suite.recipes[source.recipe].epochs if source else 0
    arms: dict[int, str] = {}
    for arm in [scope.pair[0], *suite.initializations]:
        use = suite.initializations[arm]
        if use.name == PRETRAINED and use.source == scored.source and not use.frozen:
            epoch = use.params.get("checkpoint")
            arms.setdefault(last if epoch is None else int(epoch), arm)
    return {arm: epoch for epoch, arm in arms.items()}


def _earliest(scope: rp.Scope, arms: Mapping[str, int], condition: rp.Condition) -> Interval:
    """The earliest sufficient checkpoint, of the arms that were trained in this condition."""
    trials = condition.of(scope.trials)
    trained = trials.distinct("initialization")
    return earliest_sufficient(
        trials,
        {arm: epoch for arm, epoch in arms.items() if arm in trained},
        entry=scope.entry,
        target=condition.target,
        perturbation=condition.perturbation,
        tolerance=TOLERANCE,
    )


def _sentence(earliest: Interval) -> str:
    """The earliest sufficient checkpoint in words."""
    if earliest.value is None:
        return f"the earliest sufficient checkpoint is not known: {earliest.reason}"
    text = f"the earliest sufficient checkpoint is that of epoch {earliest.value:g}"
    if earliest.low is None or earliest.high is None:
        return f"{text} ({earliest.reason})"
    bounds = f"95% interval {earliest.low:g} to {earliest.high:g}"
    counted = "source networks" if earliest.over_networks else "paired replicates"
    return f"{text} ({bounds}, n = {earliest.n} {counted})"


def _panels(here: rp.Measurements, condition: rp.Condition, earliest: Interval) -> list[rp.Panel]:
    """The three curves of one condition."""
    curve, marks = [rp.Compared("", {})], () if earliest.value is None else (earliest.value,)
    return [
        rp.profile(f"{condition.name}: {title}, %", here.select(metric=metric), curve,
                   "checkpoint", x_label="epoch of pre-training", scale="percent", marks=marks)
        for metric, title in MEASURES.items()
    ]  # fmt: skip


def _table(scope: rp.Scope, rows: rp.Measurements) -> rp.Table | None:
    """A row for each checkpoint of each condition."""
    epochs = {epoch: f"{epoch:g}" for epoch in sorted(rows.distinct("checkpoint"))}
    lines = [
        ((*labels, ", ".join(own.distinct("initialization"))), own)
        for labels, own in scope.lines(rows, checkpoint=epochs)
    ]
    compared = [rp.Compared(name, {"metric": metric}) for metric, name in MEASURES.items()]
    return rp.comparison(("target", "epoch", "arm"), lines, compared, rp.percent_cell,
                         ONCE if rows.networks == 1 else OF_NETWORKS)  # fmt: skip
