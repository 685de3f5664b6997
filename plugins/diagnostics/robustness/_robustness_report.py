"""What is left of the metric on perturbed test images, and which cue a network follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from transferbench import reporting as rp
from transferbench.specs import ReportPart

__all__ = ["ROBUSTNESS_PART", "SHAPE_BIAS_PART"]

LEFT = {
    "mean_metric": "mean metric",
    "relative_metric": "share of the clean metric",
    "corrected_relative_metric": "share above chance",
}
SHAPE = {
    "shape_bias": "shape bias",
    "shape_answers": "answers that name the shape",
    "texture_answers": "answers that name the texture",
}
CLEAN = "none"
COLUMNS = 4

CAPTION = (
    "Test metric on images that were perturbed at test time alone, by severity; 0: the images as "
    "trained on. The slower a curve falls, the more robust the network; compare what is left, not "
    "the height of the start. Dotted: chance."
)
NOTE = (
    "In %, differences in points. Mean metric: over all severities of a perturbation; share of the "
    "clean metric: the mean divided by the metric on unperturbed images; share above chance: the "
    "same of what exceeds chance."
)
SHAPE_NOTE = (
    "In %, differences in points. Images with the shape of one class and the texture of another. "
    "Shape bias: of the answers that name either class, the share that name the shape; 50% where a "
    "network uses neither cue."
)


def robustness_part(scope: rp.Scope) -> rp.Part:
    """Metric against severity, and what is left of it."""
    return scope.part_by_view("Robustness", _blocks)


def _blocks(scope: rp.Scope, view: rp.View) -> Iterator[rp.Block | None]:
    """A figure for each condition, then the table."""
    rows = view.rows.select(metric="test_metric")
    for condition, here in scope.conditions(rows):
        names = [name for name in here.distinct("test_perturbation") if name != CLEAN]
        panels = [_severities(scope, condition, here, name) for name in names]
        figure = rp.PanelFigure(
            f"test metric by severity on {condition.name}", rp.in_rows(panels, COLUMNS)
        )
        yield view.drawing(figure, f"{condition.name}. {CAPTION}", rows, "test images")
    left = view.rows.select(metric=list(LEFT))
    lines = scope.lines(left, test_perturbation=None, metric=LEFT)
    compared = [*scope.arms(left), scope.difference()]
    head = ("target", "perturbation", "measure")
    table = rp.comparison(head, lines, compared, rp.percent_cell, NOTE)
    yield view.listing("What is left of the metric", table)


def _severities(
    scope: rp.Scope, condition: rp.Condition, here: rp.Measurements, name: str
) -> rp.Panel:
    """One perturbation of the test images, from the clean images on."""
    rows = here.select(test_perturbation=(CLEAN, name))
    panel = rp.profile(name, rows, scope.arms(here), "severity")
    return replace(panel, x_label="severity", scale="percent", chance=condition.chance)


def shape_bias_part(scope: rp.Scope) -> rp.Part:
    """A table of the answers to images whose cues are in conflict."""
    return scope.part_by_view("Shape bias", _answers)


def _answers(scope: rp.Scope, view: rp.View) -> Iterator[rp.Block | None]:
    lines = scope.lines(view.rows, metric=SHAPE)
    compared = [*scope.arms(view.rows), scope.difference()]
    head = ("target", "measure")
    table = rp.comparison(head, lines, compared, rp.percent_cell, SHAPE_NOTE)
    yield view.listing("Shape against texture", table)


ROBUSTNESS_PART = ReportPart(
    build=robustness_part, metrics=frozenset({"test_metric", "test_loss", *LEFT})
)
SHAPE_BIAS_PART = ReportPart(build=shape_bias_part, metrics=frozenset(SHAPE))
