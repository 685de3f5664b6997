"""The parts of the report that open the networks: numbers against scipy, what is shown and when."""

import base64
import html as markup
import io
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import numpy as np
import pandas as pd
import pytest
from handmade_diagnostics import ENTRY, FLAG, MODULES, SCORES, SUITE, Opened, opened_suite
from html_page import Page
from PIL import Image
from scipy import stats
from t_intervals import OF_SHARES, of_difference, of_level

from transferbench.measurements import Measurements
from transferbench.registry import load_registry
from transferbench.report import ReportInput, render_report
from transferbench.report.comparisons import STUDENT, difference, name_selves
from transferbench.report.drawing import draw
from transferbench.report.figures import Heat, HeatFigure, Panel, PanelFigure, Series, mosaic
from transferbench.report.formats import ABSENT, label_text
from transferbench.report.layout import Layout
from transferbench.report.page import diagnostic_parts
from transferbench.report.parts import Listing, Scope, caption
from transferbench.report.styles import PALETTE, LineStyle
from transferbench.report.summaries import Aggregate, Summary, aggregate, flag_notes
from transferbench.report.tables import count_cell
from transferbench.report.trials import arms_part
from transferbench_plugins import diagnostics
from transferbench_plugins.diagnostics.modules._criticality_report import path_map
from transferbench_plugins.diagnostics.training._checkpoint_choice_report import checkpoint_arms
from transferbench_plugins.diagnostics.training._relative_drop_report import PUBLISHED as DROPS
from transferbench_plugins.diagnostics.weights._spectrum_report import states_in

TITLES = [
    "Optimisation speed",
    "Similarity of features",
    "Distance of weights",
    "Barriers between solutions",
    "Basins",
    "Modules rewound and re-randomised",
    "Module criticality",
    "Which checkpoint to start from",
    "Spectra of weights",
    "Misalignment of the first filters",
    "Transferability scores",
    "Robustness",
    "Shape bias",
]
DIAGNOSTICS = load_registry().diagnostics
MINUS, NARROW = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def frame():
    return Opened().everything()


@pytest.fixture(scope="module")
def results(frame):
    return ReportInput(
        suite=opened_suite(),
        entries=[ENTRY],
        measurements=frame,
        verdicts={},
        statuses=pd.DataFrame(),
        provenance={},
        changed=(),
        diagnostics=DIAGNOSTICS,
    )


def write(results, folder):
    path = folder / "report.html"
    render_report(results, path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def html(results, tmp_path_factory):
    return write(results, tmp_path_factory.mktemp("opened"))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def scope_of(results, *plugins):
    """What the page's parts are made from, without a page."""
    measurements = Measurements(name_selves(results.measurements)).select(entry=ENTRY)
    return Scope(results.suite, ENTRY, measurements, frozenset(plugins))


def parts_of(results):
    """The parts that the diagnostics of the suite bring."""
    parts = diagnostic_parts(results.suite, DIAGNOSTICS)
    return [build(scope_of(results, *labels.values())) for build, labels in parts.items()]


def part_of(results, plugin):
    """The part of one diagnostic alone."""
    return DIAGNOSTICS[plugin].report.build(scope_of(results, plugin))


def only(results, *labels):
    """The same run of a suite with these diagnostics alone."""
    uses = {label: SUITE["diagnostics"][label] for label in labels}
    rows = results.measurements
    rows = rows[rows["diagnostic"].isin([*labels, "trial"])]
    return replace(results, suite=opened_suite(diagnostics=uses), measurements=rows)


def values_of(rows, **labels):
    """The values with these labels, in order of replicate, picked without the report's code."""
    for name, value in labels.items():
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    return rows.sort_values(["replicate", "other_replicate"])


COUNT, DROP = (0.0, np.inf), (-np.inf, 1.0)
"""Ranges of distances and losses, and of relative drops and barriers."""


def jackknife(rows, ends=None, statistic=lambda rows: rows["value"].mean()):
    """The estimate and its interval from pseudo-values, leaving one replicate out at a time."""
    replicates = sorted({*rows["replicate"], *rows["other_replicate"].dropna()})
    n, whole = len(replicates), statistic(rows)
    left = [
        statistic(rows[(rows["replicate"] != k) & (rows["other_replicate"] != k)])
        for k in replicates
    ]
    return of_level([n * whole - (n - 1) * estimate for estimate in left], ends)


def fixed(numbers, scale=100.0, digits=1, n=3):
    mean, low, high = (scale * number for number in numbers)
    text = f"{mean:.{digits}f} | [{low:.{digits}f}, {high:.{digits}f}] n{NARROW}{n}"
    return re.sub(r"-(0\.0+\b)", r"\1", text).replace("-", MINUS)


def read(cell):
    """The three numbers of a cell of any size."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", cell.replace(MINUS, "-"))
    return [float(number) for number in numbers[:3]]


def row_of(table, *begin):
    return next(row for row in table if row[: len(begin)] == list(begin))


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "label", "metric", "begin", "labels"),
    [
        ("Table 1: CKA of each module", "alike", "cka", ["stem"],
         {"module": "stem", "other_module": "stem"}),
        ("Table 2: distance of the whole body", "apart", "l2", ["l2 distance", "body"],
         {"module": "body"}),
        ("Distance of each module", "apart", "cosine", [
            "cosine of the displacements", "stage1"],
         {"module": "stage1"}),
    ],
)  # fmt: skip
def test_tables_of_pairs_hold_means_and_jackknife_intervals(
    page, frame, caption, label, metric, begin, labels
):
    table = page.tables[caption]
    row = row_of(table, "real", *begin)
    for a, b in (("P-T", "P-T"), ("RI-T", "RI-T"), ("P-T", "RI-T"), ("P-T", "P")):
        rows = values_of(
            frame,
            diagnostic=label,
            metric=metric,
            initialization=a,
            other_initialization=b,
            **labels,
        )
        values = read(row[table[0].index(f"{a} & {b}")])
        np.testing.assert_allclose(
            values,
            jackknife(rows, (-1.0, 1.0) if metric in {"cka", "cosine"} else COUNT),
            rtol=6e-3,
        )


def test_height_of_barriers_and_midpoints(page, frame):
    rows = values_of(frame, diagnostic="line", initialization="RI-T", other_initialization="RI-T")
    row = row_of(page.tables["line: Height of the barriers"], "real", "RI-T & RI-T", "test")
    middle = values_of(rows, metric="metric", **{"lambda": 0.5})
    assert row[3] == fixed(jackknife(middle, OF_SHARES))
    assert row[4] == fixed(jackknife(values_of(rows, metric="barrier_metric_sup"), (0.0, 1.0)))
    assert row[7] == fixed(jackknife(values_of(rows, metric="barrier_metric_relative_mid"), DROP))
    values = read(row[8])
    np.testing.assert_allclose(
        values, jackknife(values_of(rows, metric="barrier_loss_sup"), COUNT), rtol=6e-3
    )


def test_a_network_with_itself_is_no_pair_of_networks(page, frame, results):
    table = page.tables["ends (endpoints best and final): Height of the barriers"]
    assert [row[1] for row in table[1:]] == ["P-T & itself"]
    twice = frame.assign(diagnostic=frame["diagnostic"].replace({"ends": "line"}))
    suite = opened_suite()
    uses = {label: use for label, use in suite.diagnostics.items() if label != "ends"}
    suite = suite.model_copy(update={"diagnostics": uses})
    (view,) = scope_of(replace(results, suite=suite, measurements=twice), "barrier").views()
    own = view.rows.select(initialization="P-T")
    assert set(own.distinct("other_initialization")) == {"P-T", "RI-T", "itself"}


def test_basin_numbers_and_what_is_missing_there(page, frame):
    table = page.tables["(ε, δ) of the basin around each pair"]
    inside, outside = table[1:]
    rows = values_of(frame, diagnostic="valley", initialization="P-T", metric="delta_excess")
    np.testing.assert_allclose(read(inside[7]), jackknife(rows), rtol=6e-3)
    assert outside[4] == f"\N{EN DASH} | {FLAG}"
    assert f"Flagged: {FLAG} (" in page.words
    assert "epsilon, 3 of 6, 3 without a value" in page.words


def test_differences_of_drops_are_paired(page, frame):
    rows = values_of(frame, diagnostic="back", metric="drop", module="stem")
    a, b = (values_of(rows, initialization=arm)["value"].to_numpy() for arm in ("P-T", "RI-T"))
    row = row_of(page.tables["Drop by module"], "real", "rewound to init", "stem")
    ends = (-1.0, 1.0)
    expected = of_level(a, ends), of_level(b, ends), of_difference(a, b, ends)
    assert row[3:] == [fixed(numbers) for numbers in expected]


def test_draws_are_averaged_before_replicates(page, frame):
    rows = values_of(frame, diagnostic="anew", metric="drop", module="stage1", initialization="P-T")
    means = rows.groupby("replicate")["value"].mean()
    row = row_of(page.tables["Drop by module"], "real", "re-randomised", "stage1")
    assert row[3] == fixed(of_level(means.tolist(), (-1.0, 1.0)))


def test_criticality_says_what_has_no_feasible_point(page, frame):
    table = page.tables["Criticality of each module, end point: final"]
    stem = row_of(table, "real", "direct, 0.1", "stem")
    rows = values_of(
        frame,
        diagnostic="critical",
        metric="mu",
        module="stem",
        path="direct",
        initialization="RI-T",
    )
    np.testing.assert_allclose(read(stem[4]), of_level(rows["value"].tolist(), COUNT), rtol=6e-3)
    head = row_of(table, "real", "direct, 0.1", "head")
    assert head[4] == "\N{EN DASH} | infeasible: no cell"
    totals = page.tables["Total criticality \N{GREEK SMALL LETTER MU}, end point: final"]
    total = row_of(totals, "real", "direct, 0.1", "total of the body")
    rows = values_of(
        frame, diagnostic="critical", metric="mu_total", modules="body", path="direct",
        initialization="P-T",
    )  # fmt: skip
    np.testing.assert_allclose(read(total[3]), of_level(rows["value"].tolist(), COUNT), rtol=6e-3)
    assert len(total) == len(table[0]) - 6  # no distance, way back or noise of several modules


def test_criticality_maps_hold_the_means_over_replicates(results, frame):
    (view,) = scope_of(results, "criticality").views()
    rows = view.rows.select(module="stage1", path="optimisation", initialization="RI-T")
    heat = path_map(rows)
    own = values_of(frame, diagnostic="critical", metric="metric", module="stage1",
                    path="optimisation", initialization="RI-T")  # fmt: skip
    expected = [
        [own[(own["alpha"] == alpha) & (own["sigma"] == sigma)]["value"].mean()
         for alpha in (0.0, 0.5, 1.0)]
        for sigma in (0.0, 0.1, 1.0)
    ]  # fmt: skip
    np.testing.assert_allclose(heat.values, expected, rtol=1e-12)
    assert heat.y_ticks == ["0", "0.1", "1"]


def test_heat_maps_are_small_pictures_with_a_pixel_a_cell(html):
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'href="data:image/png;base64,([^"]+)"', html)
    ]
    sizes = [picture.size for picture in pictures]
    assert sizes.count((3, 3)) == 4  # criticality of the first module: two arms, two paths
    assert sizes.count((15, 4 * (len(MODULES) - 1) - 1)) == 1  # of the others, with gaps
    assert sizes.count((2, 2)) == 4  # CKA: four pairs


def test_the_earliest_sufficient_checkpoint_is_named(page):
    assert re.search(r"real: the earliest sufficient checkpoint is that of epoch \d", page.words)
    table = page.tables["Metric by checkpoint"]
    assert [row[1:3] for row in table[1:]] == [
        ["0", "P0-T"], ["1", "P1-T"], ["2", "P2-T"], ["4", "P-T"]
    ]  # fmt: skip


def test_no_checkpoint_of_equal_trials_is_certain(results):
    rows = results.measurements.copy()
    trial = (rows["diagnostic"] == "trial") & (rows["metric"] == "test_metric")
    rows.loc[trial, "value"] = rows["initialization"].map({"P0-T": 0.5}).fillna(0.9)[trial]
    part = part_of(replace(results, measurements=rows), "checkpoint-choice")
    assert part.notes[0] == (
        "real: the earliest sufficient checkpoint is that of epoch 1 "
        "(95% interval 0 to 4, n = 3 paired replicates)"
    )


def test_a_frozen_arm_is_no_checkpoint(results):
    assert checkpoint_arms(scope_of(results)) == {
        "P-T": 4, "P0-T": 0, "P1-T": 1, "P2-T": 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "metric", "name"),
    [("by-leep", "leep", "leep"), ("by-h-score", "regularised_h_score", "regularised h score")],
)
def test_scores_are_correlated_with_the_truth(page, frame, label, metric, name):
    score = values_of(frame, diagnostic=label, metric=metric)
    score = score.groupby("initialization")["value"].mean()
    truth = values_of(frame, diagnostic="trial", metric="test_metric")
    truth = truth.groupby("initialization")["value"].mean()[score.index]
    row = row_of(page.tables["Rank correlation of scores with fine-tuning"], "real", name, "4")
    correlations = [float(cell.split(" | ")[0].replace(MINUS, "-")) for cell in row[3:]]
    tau, pearson = stats.kendalltau(score, truth).statistic, stats.pearsonr(score, truth).statistic
    weighted = stats.weightedtau(score, truth).statistic
    np.testing.assert_allclose(correlations, [tau, weighted, pearson], atol=0.006)


def test_each_k_of_knn_is_a_score(page):
    names = [row[1] for row in page.tables["Rank correlation of scores with fine-tuning"][1:]]
    assert names[-2:] == ["knn accuracy, k = 1", "knn accuracy, k = 5"]
    assert len(names) == len(SCORES) + 2


FEW = "20 Gaussians for 30 images: too few"


def without_values(results, chosen):
    """The same run where the chosen measurements have no value."""
    rows = results.measurements.copy()
    rows.loc[chosen(rows), ["value", "low", "high"]] = None
    rows.loc[chosen(rows), "flag"] = FEW
    return replace(results, measurements=rows)


def nleep_lines(results):
    """Place -> the cells of NLEEP's line, and the whole part."""
    part = DIAGNOSTICS["nleep"].report.build(scope_of(results, *SCORES))
    (table,) = [block.table for block in part.blocks if hasattr(block, "table")]
    cells_of = {line[0].text: line[2:] for line in table.rows if line[1].text == "nleep"}
    texts = {name: [(c.text, c.detail) for c in cells] for name, cells in cells_of.items()}
    return texts, part


NOTHING = [("0", ""), *[(ABSENT, f"not measured: {FEW}")] * 3]


def test_a_score_without_values_anywhere_is_not_measured(results):
    lines, part = nleep_lines(without_values(results, lambda rows: rows["metric"] == "nleep"))
    assert lines == {"real": NOTHING}
    assert any(note.startswith(f"Flagged: {FEW}") for note in part.notes)


def test_a_score_without_values_at_a_place_is_not_measured_there(results):
    rows = results.measurements
    there = rows[rows["metric"].isin(["test_metric", "nleep", "leep"])].assign(target="small")
    suite = opened_suite(targets=SUITE["targets"] | {"small": {"dataset": {"name": "toy"}}})
    rows = pd.concat([rows, there], ignore_index=True)
    both = replace(results, suite=suite, measurements=rows)
    lines, part = nleep_lines(
        without_values(both, lambda r: (r["metric"] == "nleep") & (r["target"] == "small"))
    )
    assert lines["small"] == NOTHING
    assert lines["real"] == nleep_lines(results)[0]["real"]
    figure = next(block for block in part.blocks if block.caption.startswith("small"))
    # The scores that nobody measured there, nleep among them, have an empty panel that says so.
    empty = [panel for row in figure.figure.rows for panel in row if not panel.series]
    assert {panel.remark for panel in empty} == {"not measured"}
    assert len(empty) == len(SCORES) + 2 - 1
    assert draw(figure.figure, "scores").count("not measured") == len(empty)


def test_an_arm_without_a_score_is_left_out_and_not_counted(results):
    lines, _ = nleep_lines(
        without_values(
            results, lambda rows: (rows["metric"] == "nleep") & (rows["initialization"] == "P0-T")
        )
    )
    count, kendall, *_ = lines["real"]
    assert (count[0], kendall[0]) == ("3", "1.00")


def test_robustness_and_shape_bias(page, frame):
    rows = values_of(frame, diagnostic="bent", metric="relative_metric", test_perturbation="fog")
    a, b = (values_of(rows, initialization=arm)["value"].to_numpy() for arm in ("P-T", "RI-T"))
    row = row_of(
        page.tables["What is left of the metric"], "real", "fog", "share of the clean metric"
    )
    assert row[3:] == [
        fixed(of_level(a, COUNT)),
        fixed(of_level(b, COUNT)),
        fixed(of_difference(a, b, COUNT)),
    ]
    rows = values_of(frame, diagnostic="cues", metric="shape_bias", initialization="RI-T")
    table = page.tables["Shape against texture"]
    assert row_of(table, "real", "shape bias")[3] == fixed(
        of_level(rows["value"].tolist(), OF_SHARES)
    )


def test_a_share_of_a_speed_gain_that_three_replicates_do_not_show_is_told_as_such(page, frame):
    rows = values_of(frame, diagnostic="pace", metric="speed")
    table = rows.pivot_table(index="replicate", columns="initialization", values="value")
    gain = of_difference(table["P-T"].tolist(), table["RI-T"].tolist(), OF_SHARES)
    assert gain[1] < 0 < gain[0]
    row = row_of(page.tables["Initializations compared"], "real", "none", "MV-T", "mean-var")
    assert row[7] == "\N{EN DASH} | the denominator's 95% interval includes 0"
    assert row[6] == fixed(of_level(table["MV-T"].tolist(), OF_SHARES))


def test_no_share_is_claimed_of_a_gain_that_is_not_shown(results):
    rows = results.measurements.copy()
    slow = (rows["diagnostic"] == "pace") & (rows["initialization"] == "P-T")
    rows.loc[slow, "value"] = [0.1, 0.9, 0.5]
    part = arms_part(scope_of(replace(results, measurements=rows)))
    (table,) = [block.table for block in part.blocks if block.caption == "Initializations compared"]
    shares = {row[2].text: row[-1] for row in table.rows}
    assert shares["MV-T"].text == ABSENT
    assert shares["MV-T"].detail == "the denominator's 95% interval includes 0"
    assert shares["P-T"].text == shares["RI-T"].text == ""
    assert shares["P1-T"].detail == "not measured"


def test_the_source_is_one_network_and_its_head_another(results):
    scope = scope_of(results, "spectrum")
    (view,) = scope.views()
    states = states_in(scope, view.rows)
    assert [state.name for state in states] == ["P-T", "P", "RI-T", "RI"]
    source = view.rows.select(**states[1].labels)
    assert source.distinct("replicate") == [0]
    assert source.distinct("module") == ["stem", "stage1"]


def of_two_networks(results):
    """The same run, in which replicate k starts from network k % 2 of the source."""
    rows = results.measurements
    return replace(results, measurements=rows.assign(network=rows["replicate"] % 2))


def test_of_several_source_networks_each_counts_once(results):
    run = of_two_networks(results)
    scope = scope_of(run, "spectrum")
    labels = {"metric": "stable_rank", "module": "stem", "layer": "stem.w"}
    source = states_in(scope, scope.rows)[1].of(scope.rows.select(**labels)).summary
    own = values_of(run.measurements, initialization="P-T", of="init", **labels)
    assert source.mean == pytest.approx(own["value"].iloc[:2].mean())
    assert (source.n, source.over_networks) == (2, True)


def test_figure_7_has_every_source_network(results):
    run = of_two_networks(results)
    # The first replicate of one arm is lost: its network is that of the third.
    rows = run.measurements
    lost = (rows["diagnostic"] == "start") & (rows["replicate"] == 0)
    rows = rows[~(lost & (rows["initialization"] == "P1-T"))]
    part = part_of(replace(run, measurements=rows), "checkpoint-choice")
    panel = part.blocks[0].figure.rows[0][2]
    for arm, point in zip(("P0-T", "P1-T", "P2-T", "P-T"), panel.series[0].y, strict=True):
        own = values_of(rows, metric="source_metric", initialization=arm)["value"]
        assert point.mean == pytest.approx(own.iloc[:2].mean(), abs=1e-12), arm
        assert point.n == 2
    assert "one value for each source network. Brackets" in part.blocks[1].table.note
    assert "trained once" in part_of(results, "checkpoint-choice").blocks[1].table.note


NAMES = ("$a_$", "$5-$10", r"\$b", PALETTE[0], 'id="c', "url(#d)", "_e")


def texts_of(figure):
    return [markup.unescape(text) for text in re.findall("<text[^>]*>([^<]*)", draw(figure, "x"))]


def test_names_are_neither_formulas_nor_markup_nor_hidden():
    heat = Heat("map", np.eye(len(NAMES)), x_ticks=NAMES, y_ticks=NAMES)
    assert set(NAMES) <= set(texts_of(HeatFigure("maps", [[heat]], "share", numbers=True)))
    points = [Summary(mean, None, None, 3, "ranged-t-95") for mean in (0.01, 1.0)]
    for bars in (False, True):
        lines = [Series(name, [0.0, 1.0], points, LineStyle()) for name in NAMES]
        texts = texts_of(PanelFigure("lines", [[Panel("panel", lines, log="y", bars=bars)]]))
        assert {*NAMES, "10\u207b\u00b9"} <= {*texts}


def texts_outside(figure):
    """The horizontal texts that begin or end beyond the edges, with letters of half their size."""
    svg = draw(figure, "x")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    style = r"<text[^>]*font-size: ([\d.]+)px[^>]*text-anchor: (\w+)"
    position = r'[^>]* x="([-\d.]+)"[^>]*rotate\((-?\d+) [^>]*>([^<]+)</text>'
    outside = []
    for size, anchor, x, angle, text in re.findall(style + position, svg):
        length = len(text) * float(size) / 2
        left = float(x) - length * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if angle in {"0", "-0"} and not 0 <= left <= left + length <= width:
            outside.append(text)
    return outside


LONG = "pretrained-on-images-with-a-label-of-sixty-letters-and-no-mo"
POINT = Summary(0.5, 0.4, 0.6, 3, "ranged-t-95")


@pytest.mark.parametrize("columns", [1, 4, 5, 9])
@pytest.mark.parametrize("name", ["P-T", LONG, " & ".join([LONG] * 4)])
def test_long_names_leave_room_for_panels(columns, name, monkeypatch):
    drawn = []
    monkeypatch.setattr(Layout, "cells", lambda self, canvas: drawn.append(self) or ())
    across = Panel("a target: a metric", [Series("", [0], [POINT], LineStyle())],
                   ticks=[name], bars=True, across=True)  # fmt: skip
    upright = replace(across, across=False, ticks=[name] * 6)
    heat = Heat("a map", np.eye(2), [name] * 2, [name] * 2, x_label=name, y_label=name)
    draw(PanelFigure("rows", [[across] * columns]), "x")
    draw(PanelFigure("ticks", [[upright] * columns]), "x")
    draw(HeatFigure("maps", [[heat] * columns], "share"), "x")
    assert min(layout.panel_width for layout in drawn) > 0.9
    assert [sum(map(len, layout.rows)) for layout in drawn] == [columns] * 3


def test_long_names_stay_inside_the_figure():
    styles = [LineStyle(color) for color in PALETTE]
    names = [f"{LONG[:-2]}-{k}" for k in range(len(styles))]
    lines = [
        Series(name, [0, 1], [POINT, POINT], style)
        for name, style in zip(names, styles, strict=True)
    ]
    row = Panel(f"{LONG}: of every arm", lines[:1], ticks=names, bars=True, across=True)
    long = [f"{LONG} {LONG}"] * 2
    heat = Heat(f"{LONG} & {LONG}", np.eye(2), long, long, names[0], names[1])
    for figure in (
        PanelFigure("legend", [[Panel("panel", lines)]]),
        PanelFigure("rows", [[row] * 4]),
        HeatFigure("maps", [[heat, heat]], "share"),
    ):
        assert not texts_outside(figure), figure.description
    squeezed = PanelFigure("legend", [[Panel("panel", [replace(lines[0], label=LONG * 4)])]])
    assert texts_outside(squeezed) == [LONG * 4]  # the check sees what is outside


def test_numbers_in_maps_keep_their_digits():
    heat = Heat("map", np.array([[10.53, 0.25], [-0.5, -20.4]]), "ab", "ab")
    texts = texts_of(HeatFigure("maps", [[heat]], "nats", numbers=True))
    assert {"10.53", ".25", f"{MINUS}.50", f"{MINUS}20.40"} <= {*texts}


def test_small_maps_are_joined_from_top_to_bottom_with_gaps():
    def heat(*rows):
        return Heat("", np.array(rows, dtype=float), [], [])

    wide, narrow = heat([1, 2], [3, 4]), heat([5], [6])
    joined = mosaic({"up": {"a": wide, "b": narrow}, "down": {"a": None, "b": wide}}, "title")
    nan = np.nan
    expected = [
        [nan, nan, nan, 1, 2],
        [nan, nan, nan, 3, 4],
        [nan, nan, nan, nan, nan],
        [1, 2, nan, 5, 5],
        [3, 4, nan, 6, 6],
    ]
    np.testing.assert_array_equal(joined.values, expected)
    assert dict(zip(joined.y_ticks, joined.y_positions, strict=True)) == {"down": 0.5, "up": 3.5}
    assert dict(zip(joined.x_ticks, joined.x_positions, strict=True)) == {"a": 0.5, "b": 3.5}


# --- what is shown, and when ------------------------------------------------------------------


def test_parts_stand_in_order_and_in_the_contents(html, page):
    heads = [text.strip() for text in re.findall(r"<h3[^>]*>([^<]+)</h3>", html)]
    assert [head for head in heads if head in TITLES] == TITLES
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "h3"}
    assert anchors <= links


@pytest.mark.parametrize("label", ["alike", "line", "critical", "bent"])
def test_a_suite_shows_the_parts_of_its_own_diagnostics_alone(results, label):
    titles = {"alike": TITLES[1], "line": TITLES[3], "critical": TITLES[6], "bent": TITLES[11]}
    assert [part.title for part in parts_of(only(results, label))] == [titles[label]]


def test_a_suite_without_diagnostics_has_no_part(results):
    assert parts_of(only(results)) == []


def test_what_was_asked_for_and_not_measured_is_said(results):
    rows = results.measurements
    trials = replace(results, measurements=rows[rows["diagnostic"] == "trial"])
    parts = parts_of(trials)
    assert [part.title for part in parts] == TITLES
    for part in parts:
        assert not part.blocks
        assert part.notes[0].endswith("this run holds no measurement of it; see the jobs")


def test_an_absent_pair_is_named(results):
    rows = results.measurements
    lost = (rows["diagnostic"] == "line") & (rows["initialization"] == "RI-same")
    part = part_of(only(replace(results, measurements=rows[~lost]), "line"), "barrier")
    assert "line: not measured for RI-same & RI-same; see the jobs" in part.notes


def captions(part):
    return [block.caption for block in part.blocks]


def test_extrapolation_and_the_shared_start_are_drawn_where_measured(results):
    lines_only = only(results, "line")
    texts = " ".join(captions(part_of(lines_only, "barrier")))
    assert "Figure 4." in texts
    assert "Figure 16." in texts
    assert "Extrapolation" in texts
    rows = lines_only.measurements
    fewer = rows[(rows["lambda"].isna() | rows["lambda"].between(0, 1))]
    fewer = fewer[fewer["initialization"] != "RI-same"]
    texts = " ".join(captions(part_of(replace(lines_only, measurements=fewer), "barrier")))
    assert "Figure 4." in texts
    assert "Figure 16." not in texts
    assert "Extrapolation" not in texts


def test_every_figure_has_a_text_alternative_and_a_caption_with_its_n(html):
    figures = re.findall(r"<figure>(.*?)</figure>", html, flags=re.DOTALL)
    assert len(figures) > len(TITLES)
    for figure in figures:
        assert re.search(r'<svg role="img" aria-label="[^"]{8,}"', figure)
    counted = [figure for figure in figures if "n: 3 replicates" in figure]
    assert len(counted) >= len(TITLES) - 3  # speed here, misalignment and shape bias are tables


def test_page_loads_nothing_and_its_ids_are_unique(html, page):
    links = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
    ]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:href=\"|url\()#([^\")]+)", html)) <= set(ids)


def test_equal_input_gives_equal_bytes(results, tmp_path):
    few = only(results, "alike-too", "valley")
    assert write(few, tmp_path) == write(few, tmp_path)


# --- many at once -----------------------------------------------------------------------------


def test_labels_with_equal_parameters_are_one_view(results):
    uses = {"one": SUITE["diagnostics"]["alike"], "two": SUITE["diagnostics"]["alike"]}
    suite = opened_suite(diagnostics={**uses, "three": {**uses["one"], "params": {"images": 8}}})
    rows = results.measurements
    rows = rows[rows["diagnostic"] == "alike"]
    labelled = rows.assign(diagnostic=["one", "two", "three"] * (len(rows) // 3))
    views = scope_of(replace(results, suite=suite, measurements=labelled), "cka").views()
    assert [view.labels for view in views] == [("one", "two"), ("three",)]
    assert [len(view.rows) for view in views] == [2 * len(rows) // 3, len(rows) // 3]


def test_flagged_values_count_as_missing_only_without_a_value():
    rows = Measurements(pd.DataFrame({
        "module": "a", "value": [1.0, None, 3.0], "flag": [None, "lost", "odd"],
        "replicate": [0, 1, 2], "other_replicate": None, "metric": "mu",
    }))  # fmt: skip
    value = aggregate(rows)
    assert (value.summary.mean, value.summary.n, value.missing) == (2.0, 2, 1)
    assert set(value.flags) == {"lost", "odd"}
    assert flag_notes(rows) == ["lost (mu, 1 of 3, 1 without a value)", "odd (mu, 1 of 3)"]


def test_flags_that_differ_in_numbers_are_listed_once():
    frame = pd.DataFrame({"flag": ["loss 1.5", "loss 2.5"], "metric": "mu", "value": None})
    expected = ["loss 1.5 and the like (mu, 2 of 2, 2 without a value)"]
    assert flag_notes(Measurements(frame)) == expected


def test_differences_take_common_replicates():
    rows = Measurements(pd.DataFrame({
        "initialization": ["a", "a", "b", "b"], "replicate": [0, 1, 1, 2],
        "value": [1.0, 5.0, 2.0, 9.0], "module": "m",
    }))  # fmt: skip
    value = difference(("a", "b")).of(rows)
    # Of the replicates that both arms have none is without a value.
    assert (value.summary.mean, value.summary.n, value.missing) == (3.0, 1, 0)


def test_counts_have_all_their_digits():
    equal = Aggregate(Summary(1281167.0, None, None, 2, "ranged-t-95"))
    assert count_cell(equal).text == "1,281,167"
    assert [label_text(label) for label in (1281167.0, 0.1, 3)] == ["1281167", "0.1", "3"]


def test_a_caption_says_the_least_and_the_most_replicates(results):
    rows = results.measurements
    rows = rows[(rows["diagnostic"] == "pace") & (rows["n"] == 100)]
    fewer = rows[(rows["initialization"] != "MV-T") | (rows["replicate"] == 0)]
    figure = PanelFigure("nothing", [])
    said = [caption("Speed.", figure, Measurements(chosen)) for chosen in (rows, fewer)]
    assert said[0].endswith("n: 3 replicates, 100 images each.")
    assert said[1].endswith("n: 1 to 3 replicates, 100 images each.")


def test_intervals_are_named_as_in_the_documentation(results):
    """Student-t is only where the quantile starts: what is printed is wider."""
    statistics = Path(__file__).parents[1] / "docs" / "science" / "statistics.md"
    assert f"| replicates (few) | {STUDENT} |" in statistics.read_text("utf-8")
    blocks = arms_part(scope_of(results)).blocks
    notes = [block.table.note for block in blocks if isinstance(block, Listing)]
    for text in (*notes, blocks[0].caption):
        assert f"95% interval over replicates ({STUDENT})" in text
    assert "of shares Fieller's, from these" in notes[0]
    scored = part_of(results, "leep").blocks[-1].table
    assert "of Pearson's none is known" in scored.note


# --- what the paper published -----------------------------------------------------------------


def test_published_drops_follow_from_published_accuracies():
    for row in DROPS.rows:
        for drop, accuracies in zip(row[1::3], row[2::3], strict=True):
            a, b = (float(number) for number in accuracies.split(" / "))
            assert abs(100 * (a - b) / a - float(drop)) < 4


def test_published_numbers_stand_beside_the_run(page):
    table = page.tables["Published (ImageNet \N{RIGHTWARDS ARROW} CheXpert): Table 1, printed"]
    assert row_of(table, "layer4") == ["layer4", ".0453", ".1628", ".0808", ".0424"]
    assert "compare the order of the numbers, not their size" in page.words


def test_every_published_row_fits_its_head():
    modules = walk_packages(diagnostics.__path__, f"{diagnostics.__name__}.")
    drawing = [import_module(m.name) for m in modules if m.name.endswith("_report")]
    tables = [module.PUBLISHED for module in drawing if hasattr(module, "PUBLISHED")]
    assert len(tables) == 8
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
