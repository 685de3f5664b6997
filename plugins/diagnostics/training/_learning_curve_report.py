"""Figure 2 of the paper: the learning curves of the scored pair."""

from __future__ import annotations

from dataclasses import replace

from transferbench import reporting as rp

__all__ = ["curves"]

COLUMNS = 3
CAPTION = (
    "Figure 2. Metric after each evaluated epoch on clean images in eval mode. Thick: mean test "
    "metric over replicates; thin: single replicates; dashed: mean train metric. Dotted: chance."
)
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert, DomainNet", "Figure 2", "digitised", """\
target                   | P-T, rate 0.02 | P-T, rate 0.1 | RI-T, rate 0.02 | RI-T, rate 0.1
CheXpert, AUC, best      | .787           | diverged      | .77             | .77
CheXpert, AUC, final     | .735           | diverged      | .70             | .70
real, accuracy in %      | 78.4           | 76            | 49              | 61.5
clipart, accuracy in %   | 74             | 73            | 38              | 58
quickdraw, accuracy in % | 67             | 54            | 56.5            | 64
""")  # fmt: skip


@rp.part_by_view("Learning curves")
def curves(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Test and train metric of the scored pair, a panel for each target."""
    scored = view.rows.select(
        metric=("test_metric", "train_metric"),
        perturbation=scope.suite.scoring.perturbation,
        initialization=scope.pair,
    )
    panels = [
        rp.Panel(
            condition.name,
            [_line(arm, here, split) for arm in scope.arms(here) for split in ("test", "train")],
            x_label="epoch",
            y_label="metric, %",
            scale="percent",
            chance=condition.chance,
        )
        for condition, here in scope.conditions(scored.valued())
    ]
    if panels:
        figure = rp.PanelFigure("learning curves", rp.in_rows(panels, COLUMNS), height=2.2)
        yield view.drawing(figure, CAPTION, scored.select(metric="test_metric"), "test images")
        yield PUBLISHED.listing


def _line(arm: rp.Compared, here: rp.Measurements, split: str) -> rp.Series:
    """The test metric with its band and single runs; of the train metric the mean alone."""
    rows = here.select(metric=f"{split}_metric", initialization=arm.name)
    epochs = sorted(rows.distinct("epoch"))
    values = arm.along(rows, "epoch", epochs)
    style = arm.style._replace(marker="")
    if split == "test":
        runs = arm.runs(rows, "epoch", epochs)
        return rp.Series(f"{arm.name}, test", epochs, values, style, runs)
    means = [value and replace(value, low=None, high=None) for value in values]
    return rp.Series(f"{arm.name}, train", epochs, means, style._replace(dash="--"))
