"""What is left of the metric on perturbed test images, and which cue a network follows."""

from __future__ import annotations

from transferbench import reporting as rp

__all__ = ["robustness", "shape_bias"]

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


@rp.part_by_view("Robustness")
def robustness(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Metric against severity, a figure for each condition, and what is left of it."""
    rows = view.rows.select(metric="test_metric")
    for condition, here in scope.conditions(rows):
        panels = [
            rp.profile(name, here.select(test_perturbation=(CLEAN, name)), scope.arms(here),
                       "severity", x_label="severity", scale="percent", chance=condition.chance)
            for name in here.distinct("test_perturbation") if name != CLEAN
        ]  # fmt: skip
        description = f"test metric by severity on {condition.name}"
        figure = rp.PanelFigure(description, rp.in_rows(panels, COLUMNS))
        yield view.drawing(figure, f"{condition.name}. {CAPTION}", rows, "test images")
    left = view.rows.select(metric=list(LEFT))
    lines = scope.lines(left, test_perturbation=None, metric=LEFT)
    compared = [*scope.arms(left), scope.difference()]
    head = ("target", "perturbation", "measure")
    table = rp.comparison(head, lines, compared, rp.percent_cell, NOTE)
    yield view.listing("What is left of the metric", table)


@rp.part_by_view("Shape bias")
def shape_bias(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """A table of the answers to images whose cues are in conflict."""
    lines = scope.lines(view.rows, metric=SHAPE)
    compared = [*scope.arms(view.rows), scope.difference()]
    head = ("target", "measure")
    table = rp.comparison(head, lines, compared, rp.percent_cell, SHAPE_NOTE)
    yield view.listing("Shape against texture", table)
