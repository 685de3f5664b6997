"""A third-party diagnostic in a report: its own figure, its failures, what it may import."""

import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from handmade_diagnostics import ENTRY, SUITE, Opened, opened_suite
from html_page import Page

from transferbench import reporting
from transferbench.report import ReportInput, render_report
from transferbench.specs import DiagnosticSpec, ReportPart

METRIC = "sharpness"


def sharpness_part(scope):
    """A panel with a line for each arm, and the means in a table."""
    return scope.part_by_view("Sharpness", draw, {"sharpness": "how sharp the minimum is"})


def draw(scope, view):
    rows = view.rows.select(metric=METRIC)
    figure = reporting.PanelFigure(
        "sharpness by epoch",
        [
            [reporting.profile(condition.name, here, scope.arms(here), "epoch")]
            for condition, here in scope.conditions(rows)
        ],
    )
    yield view.drawing(figure, "Sharpness of the minimum.")
    lines = [((condition.name,), here) for condition, here in scope.conditions(rows)]
    yield view.listing("Means", reporting.comparison(("target",), lines, scope.arms(rows)))


def spec(name, build=None, metrics=(METRIC,)):
    return DiagnosticSpec(
        name=name,
        version=1,
        summary="Invented",
        source="This test",
        license="Apache-2.0",
        measure=lambda params, subjects, context: [],
        subjects="one",
        report=ReportPart(build=build, metrics=frozenset(metrics)) if build else None,
    )


def measurements(*labels):
    maker = Opened()
    maker.trials()
    for label in labels:
        for k in range(3):
            for arm, level in (("P-T", 1.0), ("RI-T", 3.0)):
                for epoch in (0, 1, 2):
                    maker.row(label, METRIC, level + epoch, arm, k, epoch=epoch)
                maker.row(label, "rest", level, arm, k)
    return pd.DataFrame(maker.rows)


def results(**specs):
    """A run of a suite with these diagnostics, each under its plugin's name in capitals."""
    labels = {name.upper(): {"name": name} for name in specs}
    return ReportInput(
        suite=opened_suite(diagnostics={"pace": SUITE["diagnostics"]["pace"], **labels}),
        entries=[ENTRY],
        measurements=measurements(*labels),
        verdicts={},
        statuses=pd.DataFrame(),
        provenance={},
        changed=(),
        diagnostics=specs,
    )


def write(run, folder):
    path = folder / "report.html"
    render_report(run, path)
    return path.read_text("utf-8")


def heads(html):
    return [part.split("<")[0] for part in html.split("<h3 ")[1:] for part in [part.split(">")[1]]]


def test_a_third_party_diagnostic_shows_its_own_figure(tmp_path):
    html = write(results(sharp=spec("sharp", sharpness_part)), tmp_path)
    assert 'aria-label="sharpness by epoch"' in html
    page = Page(html)
    assert "Sharpness of the minimum. Bands: 95% interval over replicates" in page.words
    assert page.tables["Means"][0] == ["target", "P-T", "RI-T"]
    assert "how sharp the minimum is" in page.words
    # Where its part leaves off the generic table goes on.
    assert {row[page.tables["SHARP"][0].index("metric")] for row in page.tables["SHARP"][1:]} == {
        "rest"
    }


def test_diagnostics_with_one_build_share_a_part_in_the_order_of_the_suite(tmp_path):
    def other(scope):
        return reporting.Part("Other", [], [f"of {', '.join(sorted(scope.plugins))}"])

    run = results(
        first=spec("first", sharpness_part),
        second=spec("second", other, ()),
        third=spec("third", sharpness_part),
    )
    html = write(run, tmp_path)
    titles = heads(html)
    assert titles.count("Sharpness") == 1
    assert titles.index("Sharpness") < titles.index("Other")
    assert html.count('aria-label="sharpness by epoch"') == 2  # a view for each diagnostic
    assert "of second" in Page(html).words


def test_a_diagnostic_without_a_part_is_listed_and_so_is_one_that_is_not_installed(tmp_path):
    run = results(plain=spec("plain"), gone=spec("gone"))
    page = Page(write(replace(run, diagnostics={"plain": spec("plain")}), tmp_path))
    for label in ("PLAIN", "GONE"):
        metrics = page.tables[label][0].index("metric")
        assert {row[metrics] for row in page.tables[label][1:]} == {METRIC, "rest"}


def raises(scope):
    del scope
    raise ZeroDivisionError("no replicate")


def gives_text(scope):
    del scope
    return "a figure"


def draws_nothing_drawable(scope):
    del scope
    panel = reporting.Panel("", [reporting.Series("", [0], ["high"], reporting.LineStyle())])
    figure = reporting.PanelFigure("broken", [[panel]])
    return reporting.Part("Broken", [reporting.Drawing(figure, "")])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (raises, "ZeroDivisionError: no replicate"),
        (gives_text, "build gave str, not a reporting.Part or None"),
        (draws_nothing_drawable, "AttributeError"),
    ],
)
def test_a_broken_part_is_named_and_the_rest_stands(tmp_path, build, message):
    run = results(broken=spec("broken", build), sharp=spec("sharp", sharpness_part))
    html = write(run, tmp_path)
    page = Page(html)
    assert "the report of diagnostic 'broken' failed: " in page.words
    assert message in page.words
    assert "BROKEN" in heads(html)
    # Its measurements are in the generic table, and the other part is drawn.
    metrics = page.tables["BROKEN"][0].index("metric")
    assert {row[metrics] for row in page.tables["BROKEN"][1:]} == {METRIC, "rest"}
    assert 'aria-label="sharpness by epoch"' in html
    assert "P-T and RI-T in every cell" in page.tables


def test_a_text_that_utf_8_cannot_encode_costs_nothing(tmp_path):
    def strange(scope):
        del scope
        return reporting.Part("Strange", [], ["a \ud800 b"], {"odd \udfff": "word"})

    def fails(scope):
        del scope
        raise ValueError("file \udcff")

    html = write(results(strange=spec("strange", strange), broken=spec("broken", fails)), tmp_path)
    assert "a \\ud800 b" in html
    assert "odd \\udfff" in html
    assert "ValueError: file \\udcff" in html


def test_a_part_of_none_leaves_its_metrics_to_the_table(tmp_path):
    page = Page(write(results(quiet=spec("quiet", lambda scope: None)), tmp_path))
    metrics = page.tables["QUIET"][0].index("metric")
    assert {row[metrics] for row in page.tables["QUIET"][1:]} == {METRIC, "rest"}


def test_equal_titles_have_anchors_of_their_own(tmp_path):
    def titled(scope):
        del scope
        return reporting.Part("Claims", [])

    html = write(results(one=spec("one", titled), two=spec("two", sharpness_part)), tmp_path)
    ids = [attrs["id"] for _, attrs in Page(html).tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_a_column_of_the_suite_is_a_sentence_of_the_answer_and_a_column_of_the_tables(tmp_path):
    column = {
        "key": "sharpness_gain", "title": "sharpness gain", "diagnostic": "SHARP",
        "metric": "rest", "of": "gain", "help": "in nats",
    }  # fmt: skip
    run = results(sharp=spec("sharp"))
    rows = run.measurements
    # Only P-T and RI-T are in SHARP; MV-T, of the handmade trials, has no share of their gain.
    nats = rows.assign(unit=rows["unit"].where(rows["diagnostic"] != "SHARP", "nats"))
    suite = run.suite
    scoring = suite.scoring.model_validate({**suite.scoring.model_dump(), "columns": [column]})
    suite = suite.model_copy(update={"scoring": scoring})
    page = Page(write(replace(run, suite=suite, measurements=nats), tmp_path))
    own = rows[(rows["diagnostic"] == "SHARP") & (rows["metric"] == "rest")]
    arms = own.pivot_table(index="replicate", columns="initialization", values="value")
    gain = (arms["P-T"] - arms["RI-T"]).mean()
    assert f"It lowers the sharpness by {-gain:.2f} nats (95% interval " in page.words
    head, row = page.tables["P-T and RI-T in every cell"][:2]
    assert row[head.index("sharpness gain")].startswith(f"\N{MINUS SIGN}{-gain:.2f} | ")
    head, *rows = page.tables["Initializations compared"]
    values = {row[2]: row[head.index("sharpness")].split(" | ")[0] for row in rows}
    assert values["RI-T"] == f"{arms['RI-T'].mean():.2f}"
    assert values["MV-T"] == "\N{EN DASH}"
    assert "share of the sharpness gain" in head


# --- what a plugin imports --------------------------------------------------------------------


def test_a_part_named_by_its_module_is_imported_when_the_report_is_made(tmp_path):
    part = spec("sharp", f"{__name__}:sharpness_part")
    assert part.report.build == spec("sharp", f"{__name__}:sharpness_part").report.build
    page = Page(write(results(sharp=part, gone=spec("gone", "no_module:part")), tmp_path))
    assert page.tables["Means"][0] == ["target", "P-T", "RI-T"]
    assert "the report of diagnostic 'gone' failed: ModuleNotFoundError" in page.words


def test_a_registry_loads_without_what_draws_a_report():
    code = (
        "import sys; from transferbench.registry import load_registry; load_registry()\n"
        "print([name for name in sys.modules if 'report' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_vocabulary_is_imported_without_matplotlib_and_pandas():
    code = (
        "import sys, transferbench.reporting as r\n"
        "r.Published('a', 'b', 'c', (), ()), r.LineStyle(), r.PALETTE, r.percent_cell\n"
        "r.Panel, r.PanelFigure, r.profile, r.Scope\n"
        "print({'matplotlib', 'pandas', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_name_of_the_vocabulary_is_there():
    for name in reporting.__all__:
        assert getattr(reporting, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Pannel'"):
        reporting.Pannel  # noqa: B018  # the access is what is tested
