"""Figure 7: how long pre-training has to be for what it gives to the target."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.analysis.checkpoints import earliest_sufficient
from transferbench.measurements import Measurements
from transferbench.report.aggregates import Place, aggregate, ordered, places_of
from transferbench.report.drawing import INK
from transferbench.report.panels import Panel, panel_figure
from transferbench.report.parts.networks import Compared, series_of
from transferbench.report.parts.part import (
    OVER_NETWORKS,
    Block,
    Drawing,
    Listing,
    Part,
    Scope,
    counted,
    missing_part,
    paper,
    percent_cell,
    view_notes,
)
from transferbench.report.published import CHECKPOINTS
from transferbench.report.tables import Cell, Table
from transferbench.statistics import Interval

__all__ = ["METRICS", "checkpoint_part"]

MEASURES = {
    "target_metric": "target metric after fine-tuning",
    "speed": "speed: mean train metric",
    "source_metric": "source metric of the checkpoint",
}
METRICS = {"checkpoint-choice": frozenset({"checkpoint", *MEASURES})}
TOLERANCE = 0.01
PRETRAINED = "pretrained"

CAPTION = (
    "Figure 7. What fine-tuning reaches from each checkpoint of pre-training, beside what the "
    "checkpoint knew of its own task. Where the target's curve is flat while the source's still "
    "rises, further pre-training is not transferred. Dotted: the earliest checkpoint that reaches "
    f"{1 - TOLERANCE:.0%} of the last one's target metric."
)


def checkpoint_part(scope: Scope) -> Part | None:
    """The three curves and their table, with the earliest sufficient checkpoint."""
    title, slug = "Which checkpoint to start from", "checkpoints"
    if not scope.has("checkpoint-choice"):
        return None
    views = scope.views("checkpoint-choice", "checkpoint")
    epochs = checkpoint_arms(scope)
    rows = pd.concat([view.rows for view in views])
    rows = rows[rows["initialization"].isin(epochs) & rows["checkpoint"].notna()]
    # The source was trained once, however many trials start from it.
    rows = rows[
        (rows["metric"] != "source_metric") | (rows["replicate"] == rows["replicate"].min())
    ]
    if rows.empty:
        return missing_part(title, slug, views)
    earliest = {place: sufficient(scope, place, epochs) for place in places_of(rows, scope.suite)}
    drawing = Drawing(
        panel_figure(
            f"{scope.anchor}-checkpoints",
            "target metric, speed and source metric against the epoch of the checkpoint",
            [panels(rows, place, found) for place, found in earliest.items()],
        ),
        f"{CAPTION} Bands: {OVER_NETWORKS}; {counted(rows, '')}.",
    )
    listing = Listing("Metric by checkpoint", checkpoint_table(rows, earliest))
    notes = [f"{place.name}: {words(found)}" for place, found in earliest.items()]
    blocks: list[Block] = [drawing, listing, paper(CHECKPOINTS)]
    return Part(title, slug, blocks, [*notes, *view_notes(views)])


def checkpoint_arms(scope: Scope) -> dict[str, int]:
    """The arms that fine-tune a checkpoint of the scored arm's source, each with its epoch.

    Of two arms with one checkpoint the scored one, or the first of the suite, stands for it.
    """
    suite = scope.suite
    scored = suite.initializations[scope.pair[0]]
    last = suite.recipes[suite.sources[scored.source].recipe].epochs
    found: dict[int, str] = {}
    for arm in [scope.pair[0], *suite.initializations]:
        use = suite.initializations[arm]
        if use.name == PRETRAINED and use.source == scored.source and not use.frozen:
            chosen = use.params.get("checkpoint")
            found.setdefault(last if chosen is None else int(chosen), arm)
    return {arm: epoch for epoch, arm in found.items()}


def sufficient(scope: Scope, place: Place, epochs: dict[str, int]) -> Interval:
    """The earliest sufficient checkpoint, of the arms that were trained here."""
    frame = scope.measured.frame
    trials = place.of(frame[frame["diagnostic"] == "trial"])
    trained = set(trials["initialization"])
    return earliest_sufficient(
        Measurements(trials),
        {arm: epoch for arm, epoch in epochs.items() if arm in trained},
        entry=scope.entry,
        target=place.target,
        perturbation=place.perturbation,
        tolerance=TOLERANCE,
    )


def words(found: Interval) -> str:
    """The earliest sufficient checkpoint as a sentence."""
    if found.value is None:
        return f"the earliest sufficient checkpoint is not known: {found.reason}"
    text = f"the earliest sufficient checkpoint is that of epoch {found.value:g}"
    if found.low is None or found.high is None:
        return f"{text} ({found.reason})"
    return f"{text} (95% interval {found.low:g} to {found.high:g}, n = {found.n} paired replicates)"


def panels(rows: pd.DataFrame, place: Place, earliest: Interval) -> Sequence[Panel | None]:
    """The three curves of one place."""
    here = place.of(rows)
    known = sorted(ordered(here, "checkpoint"))
    found = aggregate(here, ["metric", "checkpoint"])
    return [
        Panel(
            title=f"{place.name}: {title}, %",
            series=series_of(
                [Compared((metric,), "", INK, "o")], found, [(at,) for at in known], known
            ),
            x_label="epoch of pre-training",
            percent=True,
            marks=() if earliest.value is None else (earliest.value,),
        )
        for metric, title in MEASURES.items()
    ]


def checkpoint_table(rows: pd.DataFrame, earliest: dict[Place, Interval]) -> Table:
    """A row for each checkpoint of each place."""
    lines = []
    for place in earliest:
        here = place.of(rows)
        found = aggregate(here, ["checkpoint", "metric"])
        for checkpoint in sorted(ordered(here, "checkpoint")):
            arms = ordered(here[here["checkpoint"] == checkpoint], "initialization")
            cells = [percent_cell(found.get((checkpoint, metric))) for metric in MEASURES]
            lines.append((Cell(place.name), Cell(f"{checkpoint:g}"), Cell(", ".join(arms)), *cells))
    note = f"In %. Brackets: {OVER_NETWORKS}; the source was trained once: its metric has none."
    return Table(("target", "epoch", "arm", *MEASURES.values()), tuple(lines), note)
