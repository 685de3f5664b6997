"""The report: its numbers against scipy, its bytes, what it escapes, what it does without data."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from html_page import Page
from scipy import stats
from t_intervals import OF_SHARES, of_difference, of_level, quantile, reach

from transferbench.claims import Verdict
from transferbench.errors import StoreError
from transferbench.measurements import Measurements
from transferbench.registry import load_registry
from transferbench.report import ReportInput, render_report
from transferbench.report.formats import number, signed_percent, significant
from transferbench.report.headline import answer
from transferbench.report.parts import Scope
from transferbench.report.run_tables import budgets_table, failures_table
from transferbench.report.styles import arm_styles
from transferbench.report.trials import transfer_table
from transferbench.report.verdicts import claim_groups
from transferbench.suite import Suite
from transferbench_plugins.diagnostics.mistakes.agreement import AGREEMENT
from transferbench_plugins.diagnostics.training.learning_curve import LEARNING_CURVE

ENTRIES = ("fixup-resnet14", "timm/resnet10t")
TARGETS = {"real": 0.62, "clipart": 0.52}
BLOCKS = ("none", "block-8", "block-1", "pixels")
ARMS = ("P-T", "RI-T", "mean-var", "frozen", "shuffled-labels")
EPOCHS = 12
REPLICATES = 4
CHANCE = 0.1
LABELS = {"suite": "synthetic@1.0", "diagnostic_version": 1, "job": "0" * 64}


def claim(statement, relation="above", threshold=0.0, **fields):
    term = {"diagnostic": "trial", "metric": "test_metric", "initialization": "P-T"}
    return {
        "statement": statement,
        "relation": relation,
        "threshold": threshold,
        "terms": [term],
        **fields,
    }


CLAIMS = {
    "gain-real": claim("Pre-training raises the test accuracy on real"),
    "faster": claim("Pre-training speeds optimisation up even under pixel shuffling"),
    "drop-fades": claim("The relative drop shrinks with the blocks", "below", unit="percent"),
    "labels-control": claim("Shuffled labels leave chance", "within", 0.05, control=True),
    "order": claim("Nearer targets gain more", threshold=0.5, unit="rank correlation"),
}


SCORED = {"a": "P-T", "b": "RI-T", "replicates": "same"}
SPEED_GAIN = {
    "key": "speed_gain",
    "title": "speed gain",
    "diagnostic": "speed",
    "metric": "speed",
    "of": "gain",
    "help": "how much faster P-T learns",
}


def suite_fields():
    recipe = {"optimizer": "sgd", "learning_rate": 0.02, "epochs": EPOCHS, "batch_size": 64}
    uses = {arm: {"name": arm.lower(), "recipe": "fine-tune"} for arm in ARMS}
    uses["RI-T"]["recipe"] = "scratch"
    return {
        "name": "synthetic",
        "version": "1.0",
        "summary": "A made-up suite with the paper's shape.",
        "backbones": ["fixup-resnet14"],
        "image": {"size": 32, "channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        "sources": {"source": {"dataset": {"name": "toy"}, "recipe": "scratch"}},
        "targets": {target: {"dataset": {"name": "toy"}} for target in TARGETS},
        "perturbations": {label: {"name": "block-shuffle"} for label in BLOCKS},
        "recipes": {
            "fine-tune": {**recipe, "tuned_over": 4},
            "scratch": {**recipe, "learning_rate": 0.1, "tuned_over": 6},
        },
        "initializations": uses,
        "replicates": REPLICATES,
        "trials": [{}],
        "diagnostics": {
            "learning-curve": {"name": "learning-curve"},
            "speed": {"name": "speed"},
            "relative-drop": {"name": "relative-drop", "pairs": [SCORED]},
            "agreement": {
                "name": "agreement",
                "pairs": [
                    {"a": "P-T", "b": "P-T", "replicates": "different"},
                    {"a": "RI-T", "b": "RI-T", "replicates": "different"},
                    SCORED,
                ],
            },
        },
        "claims": CLAIMS,
        "scoring": {
            "initialization": "P-T",
            "baseline": "RI-T",
            "perturbation": "none",
            "chance": dict.fromkeys(TARGETS, CHANCE),
            "reference": dict.fromkeys(TARGETS, 0.9),
            "columns": [SPEED_GAIN],
        },
    }


def make_suite(**changes):
    return Suite.model_validate({**suite_fields(), **changes}, strict=False)


class Maker:
    """Rows of measurements that behave like the paper's, from one seeded generator."""

    def __init__(self, entry, seed):
        self.entry = entry
        self.rng = np.random.default_rng(seed)
        self.rows = []

    def row(self, diagnostic, metric, value, **labels):
        common = {"entry": self.entry, "unit": "fraction", "n": 2000, "perturbation": "none"}
        measured = {"diagnostic": diagnostic, "metric": metric, "value": value}
        self.rows.append(LABELS | common | measured | labels)

    def trial(self, where, final, speed):
        curve = CHANCE + (final - CHANCE) * (1 - np.exp(-speed * np.arange(EPOCHS + 1)))
        curve += self.rng.normal(0, 0.008, EPOCHS + 1)
        train = np.clip(
            CHANCE + (0.97 - CHANCE) * (1 - np.exp(-speed * np.arange(EPOCHS + 1))), 0, 1
        )
        train -= 0.9 * max(0.0, 0.3 - final) + self.rng.uniform(0, 0.01)
        for epoch in range(EPOCHS + 1):
            self.row("learning-curve", "test_metric", curve[epoch], epoch=epoch, **where)
            self.row("learning-curve", "train_metric", train[epoch], epoch=epoch, **where)
        self.row("learning-curve", "area", curve.mean(), **where)
        self.row("speed", "speed", train[1:].mean(), **where)
        numbers = {
            "test_metric": curve[-1],
            "test_loss": 2.2 - 2 * curve[-1],
            "train_metric": train[-1],
            "best_test_metric": curve[-1] + 0.004,
            "best_epoch": EPOCHS - 2,
            "n_train": 1800,
        }
        for metric, value in numbers.items():
            self.row("trial", metric, value, **where)
        return curve[-1]

    def cell(self, target, perturbation, strength, replicate):
        level, shared = TARGETS[target], self.rng.normal(0, 0.006)
        where = {"target": target, "perturbation": perturbation, "replicate": replicate}
        finals = {
            "P-T": CHANCE + (level + 0.2 - CHANCE) * (1 - 0.86 * strength) - 0.06 * strength,
            "RI-T": CHANCE + (level - CHANCE) * (1 - 0.8 * strength) - 0.06 * strength,
        }
        if perturbation == "none":
            finals |= {"mean-var": level + 0.04, "frozen": level - 0.08, "shuffled-labels": CHANCE}
        reached = {
            arm: self.trial(
                {**where, "initialization": arm},
                final + shared + self.rng.normal(0, 0.008),
                0.6 if arm == "P-T" else 0.22 * (1 - 0.5 * strength),
            )
            for arm, final in finals.items()
        }
        drop = 100 * (reached["P-T"] - reached["RI-T"]) / reached["P-T"]
        pair = {"initialization": "P-T", "other_initialization": "RI-T"}
        where["other_replicate"] = replicate
        self.row("relative-drop", "relative_drop", drop, **{**where, **pair, "unit": "percent"})

    def agreement(self, target, a, b, replicates):
        kappa = {"P-TP-T": 0.62, "RI-TRI-T": 0.34}.get(a + b, 0.28)
        where = {"target": target, "initialization": a, "other_initialization": b}
        where |= dict(zip(("replicate", "other_replicate"), replicates, strict=True))
        noise = lambda scale: self.rng.normal(0, scale)  # noqa: E731 - three letters of a draw
        self.row("agreement", "kappa", kappa + noise(0.02), **where)
        self.row("agreement", "error_jaccard", 0.3 + kappa / 2 + noise(0.02), **where)
        self.row("agreement", "agreement", 0.5 + kappa / 3 + noise(0.02), **where)
        sizes = {"n_common": 420, "uncommon_a": 150, "uncommon_b": 160 if a == b else 390}
        for metric, size in sizes.items():
            self.row("agreement", metric, size + noise(10), **where, unit="images")
        entropy = {"common": 1.3, "uncommon_a": 1.05, "uncommon_b": 0.7}
        for which, value in entropy.items():
            self.row(
                "agreement",
                "reference_entropy",
                value + noise(0.05),
                set=which,
                unit="nats",
                **where,
            )

    def everything(self):
        for target in TARGETS:
            for step, perturbation in enumerate(BLOCKS):
                for replicate in range(REPLICATES):
                    self.cell(target, perturbation, step / (len(BLOCKS) - 1), replicate)
            for replicate in range(REPLICATES):
                following = (replicate + 1) % REPLICATES
                self.agreement(target, "P-T", "P-T", (replicate, following))
                self.agreement(target, "RI-T", "RI-T", (replicate, following))
                self.agreement(target, "P-T", "RI-T", (replicate, replicate))
                where = {"target": target, "initialization": "P-T", "replicate": replicate}
                for module in ("stem", "stage1", "head"):
                    self.row("cka", "cka", self.rng.uniform(0.2, 0.9), module=module, **where)
        return pd.DataFrame(self.rows)


def make_verdicts():
    effects = {
        "gain-real": (0.198, 0.181, 0.215, "reproduced"),
        "faster": (0.31, 0.27, 0.35, "reproduced"),
        "drop-fades": (4.2, 1.1, 7.3, "contradicted"),
        "labels-control": (0.003, -0.011, 0.017, "reproduced"),
        "order": (0.6, -0.2, 1.0, "undecided"),
    }
    return [
        Verdict(
            claim=label,
            statement=CLAIMS[label]["statement"],
            source="Section 3.1",
            control=CLAIMS[label].get("control", False),
            effect=effect,
            low=low,
            high=high,
            unit=CLAIMS[label].get("unit", "fraction"),
            threshold=CLAIMS[label]["threshold"],
            relation=CLAIMS[label]["relation"],
            verdict=verdict,
            n=REPLICATES,
            interval="jackknife-95",
            reason="",
        )
        for label, (effect, low, high, verdict) in effects.items()
    ]


def make_statuses():
    ok = [
        {
            "job": f"{k:064x}",
            "kind": "trial",
            "label": f"trial {k}",
            "status": "ok",
            "message": None,
        }
        for k in range(40)
    ]
    message = "RuntimeError: loss is not finite after step 31 <of 400>"
    failed = {"job": "f" * 64, "kind": "trial", "label": "sketch none RI-T 3", "status": "failed"}
    return pd.DataFrame([*ok, {**failed, "message": message}]).assign(wall_seconds=3.2)


def scope_of(rows, entry, suite):
    """One entry's measurements, as the parts of a report get them."""
    plugins = frozenset({"learning-curve", "agreement"})
    return Scope(suite, entry, Measurements(rows).select(entry=entry), plugins)


def write(results, folder):
    path = folder / "report.html"
    render_report(results, path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def measurements():
    """The first entry whole; of the second only what the comparison needs, to draw less."""
    first, second = (Maker(entry, seed).everything() for seed, entry in enumerate(ENTRIES))
    chosen = (second["diagnostic"] == "trial") & (second["perturbation"] == "none")
    return pd.concat([first, second[chosen]], ignore_index=True)


@pytest.fixture(scope="module")
def full(measurements):
    return ReportInput(
        suite=make_suite(),
        entries=ENTRIES,
        measurements=measurements,
        verdicts={entry: make_verdicts() for entry in ENTRIES},
        statuses=make_statuses(),
        provenance={"transferbench": "0.1.0", "device": "CPU, 2 cores"},
        changed=("recipes.fine-tune.epochs=12",),
        diagnostics=load_registry().diagnostics,
    )


@pytest.fixture(scope="module")
def small(full):
    """One entry, one target, no claims judged: quick to render again and again."""
    rows = full.measurements
    chosen = (rows["entry"] == ENTRIES[0]) & (rows["target"] == "real")
    return replace(
        full,
        entries=ENTRIES[:1],
        measurements=rows[chosen],
        verdicts={},
        statuses=pd.DataFrame(),
        provenance={},
        changed=(),
    )


@pytest.fixture(scope="module")
def html(full, tmp_path_factory):
    return write(full, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def bare(results):
    return replace(results, measurements=results.measurements.iloc[:0])


def values_of(rows, **labels):
    """One value a replicate, picked without the report's code."""
    for name, value in labels.items():
        rows = rows[rows[name] == value]
    return rows.set_index("replicate")["value"].sort_index()


def expected(*arms, scale=100.0, digits=1, sign="", ends=OF_SHARES):
    """A mean, or a difference of two, and its interval as the tables write them."""
    values = arms[0]
    of = of_level if len(arms) == 1 else of_difference
    mean, low, high = (scale * number for number in of(*arms, ends))
    text = f"{mean:{sign}.{digits}f} | [{low:.{digits}f}, {high:.{digits}f}]"
    text = re.sub(r"-(0\.0+\b)", r"\1", text)
    return text.replace("-", "\N{MINUS SIGN}") + f" n\N{NO-BREAK SPACE}{len(values)}"


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("perturbation", BLOCKS)
def test_table_holds_the_means_and_intervals_of_the_frame(page, full, target, perturbation):
    rows = full.measurements[full.measurements["entry"] == ENTRIES[0]]
    where = {"target": target, "perturbation": perturbation}
    table = page.tables["P-T and RI-T in every cell"]
    row = next(row for row in table if row[:2] == [target, perturbation])

    def of(diagnostic, metric, arm):
        return values_of(rows, diagnostic=diagnostic, metric=metric, initialization=arm, **where)

    test = [of("trial", "test_metric", arm) for arm in ARMS[:2]]
    train = [of("trial", "train_metric", arm) for arm in ARMS[:2]]
    speed = [of("speed", "speed", arm) for arm in ARMS[:2]]
    drop = values_of(rows, diagnostic="relative-drop", **where)
    assert row[2:4] == [expected(test[0]), expected(test[1])]
    assert row[4].lstrip("+") == expected(*test)
    assert row[5:7] == [expected(train[0]), expected(train[1])]
    assert row[7] == expected(*speed, sign="+")
    name = target if perturbation == "none" else f"{target}, {perturbation}"
    drops = page.tables["Drops from the first arm of a pair to the second"]
    row = next(row for row in drops if row[:2] == [name, "P-T & RI-T"])
    ends = (-np.inf, 100.0)
    assert row[drops[0].index("relative drop, %")] == expected(drop, scale=1, ends=ends)
    speeds = page.tables["Optimisation speed in every cell"]
    row = next(row for row in speeds if row[0] == name)
    assert row[1:3] == [expected(speed[0]), expected(speed[1])]


def test_pairs_that_share_networks_get_the_jackknife(page, full):
    rows = full.measurements[full.measurements["entry"] == ENTRIES[0]]
    kappa = rows[
        (rows["metric"] == "kappa")
        & (rows["target"] == "real")
        & (rows["initialization"] == "P-T")
        & (rows["other_initialization"] == "P-T")
    ]
    pairs = kappa[["replicate", "other_replicate"]].to_numpy()
    values = kappa["value"].to_numpy()
    left_out = [values[~(pairs == k).any(axis=1)].mean() for k in range(REPLICATES)]
    pseudo = REPLICATES * values.mean() - (REPLICATES - 1) * np.array(left_out)
    half = quantile(REPLICATES, (-1.0, 1.0)) * stats.sem(pseudo)
    below, above = reach(values.mean(), half, -1.0, 1.0)
    table = page.tables["Agreement of errors by pair of arms"]
    row = next(row for row in table if row[:2] == ["real", "P-T & P-T"])
    mean = values.mean()
    interval = f"[{mean - below * half:.3f}, {mean + above * half:.3f}]"
    assert row[2] == f"{mean:.3f} | {interval} n\N{NO-BREAK SPACE}{REPLICATES}"


def test_drops_to_other_arms_stay_apart(small, tmp_path):
    rows = small.measurements
    drops = rows[rows["diagnostic"] == "relative-drop"]
    other = drops.assign(other_initialization="mean-var", value=99.0)
    both = pd.concat([rows, other], ignore_index=True)
    tables = [
        Page(write(replace(small, measurements=chosen), tmp_path)).tables for chosen in (rows, both)
    ]
    caption = "Drops from the first arm of a pair to the second"
    own, all_pairs = (table[caption] for table in tables)
    assert own == [row for row in all_pairs if row[1] != "P-T & mean-var"]
    assert len(all_pairs) == len(own) + len(BLOCKS)
    transfer = "P-T and RI-T in every cell"
    assert tables[0][transfer] == tables[1][transfer]


def test_labels_of_a_task_do_not_enter_its_mean(small):
    rows = small.measurements
    kappa = rows[rows["metric"].isin(["kappa", "n_common"])]
    doubled = pd.concat([rows, kappa.assign(value=-1.0, label=0)], ignore_index=True)
    parts = [
        AGREEMENT.report.build(scope_of(chosen, ENTRIES[0], small.suite))
        for chosen in (rows, doubled)
    ]
    assert [block.table for block in parts[0].blocks[1:]] == [
        block.table for block in parts[1].blocks[1:]
    ]
    assert parts[0].blocks[0].figure == parts[1].blocks[0].figure


def test_answer_is_the_paired_gain_over_targets(page, full):
    rows = full.measurements[full.measurements["entry"] == ENTRIES[1]]
    where = {"diagnostic": "trial", "metric": "test_metric", "perturbation": "none"}
    arms = [
        sum(values_of(rows, target=target, initialization=arm, **where) for target in TARGETS) / 2
        for arm in ("P-T", "RI-T")
    ]
    mean, low, high = (100 * number for number in of_difference(*arms, OF_SHARES))
    assert (
        f"raises the test metric averaged over 2 targets by {mean:.1f} points "
        f"(95% interval +{low:.1f} to +{high:.1f}, n = {REPLICATES} paired replicates)"
    ) in page.words


def test_a_target_that_is_not_scored_is_no_part_of_the_answer(full):
    """Such as the control whose labels are shuffled: what can be learned there is no gain."""
    scored, control = TARGETS
    scoring = full.suite.scoring
    only = {name: {scored: getattr(scoring, name)[scored]} for name in ("chance", "reference")}
    suite = full.suite.model_copy(update={"scoring": scoring.model_copy(update=only)})
    rows = full.measurements
    without = rows[rows["target"] != control]
    words = [answer(scope_of(chosen, ENTRIES[1], suite)) for chosen in (rows, without)]
    assert words[0] == words[1] != answer(scope_of(rows, ENTRIES[1], full.suite))
    assert f"the test metric on {scored} by" in words[0]
    assert control not in words[0]


def test_the_first_sentence_is_of_targets_that_were_measured_throughout(full):
    scoring = {**suite_fields()["scoring"], "statistics": "block-1"}
    rows = full.measurements[full.measurements["entry"] == ENTRIES[0]]
    elsewhere = rows["target"] != "real"

    def said(chosen):
        return answer(scope_of(rows[chosen], ENTRIES[0], make_suite(scoring=scoring)))

    both, alone = said(elsewhere | True), said(~elsewhere)
    assert both.startswith("On real, clipart pre-training brings")
    assert alone.startswith("On real pre-training brings")
    sentences = said(~elsewhere | (rows["perturbation"] == "none"))
    # What the other target has on whole images is in neither number; another quantity names it.
    assert sentences.split(" It raises the speed ")[0] == alone.split(" It raises the speed ")[0]
    assert " It raises the speed averaged over 2 targets by " in sentences
    assert " It raises the speed by " in alone
    none = said(rows["perturbation"] == "none")
    assert none.startswith("On real, clipart pre-training brings")
    assert "is not known: nothing was measured under block-1" in none


@pytest.mark.parametrize(
    ("lead", "words"), [(0.0, "not significantly different from zero"), (0.4, "below zero")]
)
def test_answer_names_where_the_gain_fades(small, lead, words):
    rows = small.measurements.copy()
    trial = (rows["diagnostic"] == "trial") & (rows["perturbation"] == "block-1")
    own = trial & (rows["metric"] == "test_metric")
    rows.loc[own, "value"] = [0.2, 0.3, 0.3, 0.2] * 2
    rows.loc[own & (rows["initialization"] == "RI-T"), "value"] += lead
    answered = answer(scope_of(rows, ENTRIES[0], small.suite))
    assert re.search(f" is {words} on real under block-1[;, .]", answered)


def test_band_is_the_interval_at_each_epoch(full):
    part = LEARNING_CURVE.report.build(scope_of(full.measurements, ENTRIES[0], full.suite))
    panels = [panel for row in part.blocks[0].figure.rows for panel in row]
    assert [panel.title for panel in panels] == list(TARGETS)
    (line,) = [line for line in panels[0].series if line.label == "RI-T, test"]
    assert line.x == list(range(EPOCHS + 1))
    assert line.runs.shape == (REPLICATES, EPOCHS + 1)
    rows = full.measurements[full.measurements["entry"] == ENTRIES[0]]
    for epoch in (0, EPOCHS):
        runs = values_of(
            rows, diagnostic="learning-curve", metric="test_metric", target="real",
            perturbation="none", initialization="RI-T", epoch=epoch,
        )  # fmt: skip
        np.testing.assert_array_equal(line.runs[:, epoch], runs)
    _, low, high = np.transpose([of_level(runs) for runs in line.runs.T])
    np.testing.assert_allclose([point.low for point in line.y], low, rtol=1e-9)
    np.testing.assert_allclose([point.high for point in line.y], high, rtol=1e-9)


def test_entries_are_compared(page):
    table = page.tables["Final test metric without perturbation (none)"]
    assert [row[:2] for row in table[1:]] == [[t, e] for t in TARGETS for e in ENTRIES]


def test_other_diagnostics_are_listed(page):
    table = page.tables["cka"]
    assert table[0] == [
        "target", "perturbation", "arm", "module", "metric", "unit", "mean"
    ]  # fmt: skip
    assert [row[3] for row in table[1:4]] == ["stem", "stage1", "head"]
    assert {row[3] for row in page.tables["learning-curve"][1:]} == {"area"}


# --- claims, recipes, jobs --------------------------------------------------------------------


def test_every_claim_is_shown_with_its_verdict(page):
    table = page.tables["Each claim against its threshold"]
    rows = {
        label: next(row for row in table[1:] if claim["statement"] in row[0])
        for label, claim in CLAIMS.items()
    }
    assert all(row[0].startswith(label) for label, row in rows.items())
    assert [rows[label][1] for label in CLAIMS] == [
        "reproduced", "reproduced", "contradicted", "passed", "undecided"
    ]  # fmt: skip
    assert "0.198 fraction | [0.181, 0.215] n 4" in rows["gain-real"][2]
    # Controls stand at the end, under their counts.
    assert table[-2] == ["controls", "", "1 passed"]
    assert table[-1] == rows["labels-control"]


def test_claims_of_one_family_stand_beneath_its_verdict(full):
    fields = suite_fields()
    for label in ("gain-real", "faster", "order"):
        fields["claims"][label] = fields["claims"][label] | {"family": "C1"}
    sure = {"p_reproduced": 0.0004, "p_contradicted": 1.0}
    verdicts = [
        v.model_copy(update={"family": fields["claims"][v.claim].get("family", "")} | sure)
        for v in make_verdicts()
    ]
    family, fades, controls = claim_groups(make_suite(**fields), verdicts)
    assert [row.label for row in family.rows] == ["gain-real", "faster", "order"]
    assert (family.name, family.verdict) == ("C1", "undecided")
    assert family.detail == "p < 0.001, adjusted < 0.001"
    assert [row.label for row in fades.rows] == ["drop-fades"]
    assert (controls.name, controls.detail) == ("controls", "1 passed")
    assert {group.verdict for group in claim_groups(full.suite, [])} == {"not judged", ""}


def test_interval_plot_keeps_the_order_of_its_numbers(full):
    rows = [row for group in claim_groups(full.suite, make_verdicts()) for row in group.rows]
    plots = {row.label: row.plot for row in rows}
    for plot in plots.values():
        assert 0 <= plot.low < plot.effect < plot.high <= plot.width
    within = plots["labels-control"]
    assert within.thresholds[0] < within.low < within.high < within.thresholds[1]
    faded = plots["drop-fades"]
    assert faded.zero == faded.thresholds[0] < faded.low


def test_unequal_tuning_is_flagged(page):
    rows = {row[0]: row for row in page.tables["What each arm was trained with"][1:]}
    assert rows["RI-T"][-1] == "unequal tuning: 6 against 4"
    assert rows["mean-var"][-1] == ""


def test_a_recipe_for_one_target_has_its_own_row():
    fields = suite_fields()
    fields["initializations"]["RI-T"]["recipes"] = {"clipart": "fine-tune"}
    rows = [[cell.text for cell in row] for row in budgets_table(make_suite(**fields)).rows]
    assert [row[:3] + row[-1:] for row in rows if row[0] == "RI-T"] == [
        ["RI-T", "real", "scratch", "unequal tuning: 6 against 4"],
        ["RI-T", "clipart", "fine-tune", ""],
    ]


def test_an_arm_that_did_not_train_is_flagged(small):
    rows = small.measurements.copy()
    stuck = (rows["metric"] == "train_metric") & (rows["initialization"] == "RI-T")
    rows.loc[stuck & (rows["perturbation"] == "pixels"), "value"] = CHANCE + 0.03
    table = transfer_table(scope_of(rows, ENTRIES[0], small.suite))
    flags = {row[1].text: row[-1].text for row in table.rows}
    assert flags == dict.fromkeys(BLOCKS, "") | {
        "pixels": "RI-T did not train in 4 of 4 replicates"
    }


def test_failed_jobs_and_changes_are_announced(page):
    assert "Changed suite: cannot be submitted." in page.words
    assert "recipes.fine-tune.epochs=12" in page.words
    assert "Not every job finished: 1 failed." in page.words
    table = page.tables["Jobs that did not finish"]
    assert table[1][-1] == "RuntimeError: loss is not finite after step 31 <of 400>"


def test_of_many_unfinished_jobs_those_that_failed_come_first():
    rows = [("missing", "trial", f"trial {k}", "") for k in range(60)] + [
        ("oom", "trial", "x", "!")
    ]
    statuses = pd.DataFrame(rows, columns=["status", "kind", "label", "message"])
    table = failures_table(statuses)
    assert [cell.text for cell in table.rows[0]] == ["oom", "trial", "x", "!"]
    assert len(table.rows) == 40
    assert table.note.startswith("And 21 more")


def test_a_clean_run_has_no_banner(small, tmp_path):
    statuses = make_statuses().query("status == 'ok'")
    page = Page(write(replace(bare(small), statuses=statuses), tmp_path))
    assert "cannot be submitted" not in page.words
    assert "Every job finished." in page.words
    assert not any("banner" in (attrs.get("class") or "") for _, attrs in page.tags)
    table = page.tables["Each claim against its threshold"]
    verdicts = [row[1] for row in table[1:] if row[0] != "controls"]
    assert verdicts == ["not judged"] * len(CLAIMS)


# --- the file ---------------------------------------------------------------------------------


def test_equal_input_gives_equal_bytes(small, tmp_path):
    shuffled = replace(small, measurements=small.measurements.copy())
    assert write(small, tmp_path) == write(shuffled, tmp_path)


def test_a_report_that_cannot_be_written_leaves_the_former_one(small, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("former", "utf-8")

    def full_disk(descriptor):
        del descriptor
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StoreError, match=r"cannot write .*report\.html: No space left on device"):
        render_report(bare(small), path)
    assert path.read_text("utf-8") == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_page_loads_nothing(html, page):
    links = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
    ]
    assert links
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"@import|url\((?!#)|https?:", html)


def test_ids_are_unique_and_references_resolve(html, page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:href=\"|url\()#([^\")]+)", html)) <= set(ids)


def test_markup_in_names_is_text(small, tmp_path):
    nasty = "<script>alert('1')</script>&\"x"
    trials = small.measurements.query("metric == 'test_metric' and perturbation == 'none'")
    page = Page(
        write(
            replace(
                small,
                suite=make_suite(summary=nasty),
                entries=[nasty],
                measurements=trials.assign(entry=nasty),
                provenance={nasty: nasty},
                changed=[nasty],
            ),
            tmp_path,
        )
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.words.count(nasty) >= 6


def test_arms_keep_their_colours_in_any_order():
    fields = suite_fields()
    uses = fields["initializations"]
    many = {f"arm-{k}": uses["frozen"] for k in range(9)} | {"RI-T": uses["RI-T"]}
    styles = arm_styles(make_suite(initializations=many | {"P-T": uses["P-T"]}))
    assert list(styles)[:2] == ["P-T", "RI-T"]
    assert len({(style.color, style.marker) for style in styles.values()}) == len(styles)


def test_colours_are_variables_of_the_page(html):
    assert "var(--series-0, #0072b2)" in html
    assert not re.search(r"(?<!, )#0072b2(?!;\n)", html)


# --- without data -----------------------------------------------------------------------------


def test_nothing_measured_is_said_in_words(small, tmp_path):
    page = Page(write(bare(small), tmp_path))
    assert (
        "No replicate has finished both P-T and RI-T on every target, so the gain is not known."
        in page.words
    )
    for sentence in (
        "learning-curve: this run holds no measurement of it; see the jobs",
        "No trial of this entry has finished with a test metric.",
        "agreement: this run holds no measurement of it; see the jobs",
        "No job statuses came with these measurements.",
        "No provenance came with these measurements.",
    ):
        assert sentence in page.words
    assert "figure" not in {tag for tag, _ in page.tags}


def test_a_frame_without_columns_is_no_crash(small, tmp_path):
    words = Page(write(replace(small, measurements=pd.DataFrame()), tmp_path)).words
    assert "so the gain is not known" in words


def test_one_replicate_has_no_interval(small, tmp_path):
    rows = small.measurements[small.measurements["replicate"] == 0]
    page = Page(write(replace(small, measurements=rows), tmp_path))
    cells = page.tables["P-T and RI-T in every cell"][1]
    assert cells[2].endswith("no interval, n\N{NO-BREAK SPACE}1")
    assert "(n = 1: no interval)" in page.words
    assert "nan" not in page.words.split()


def test_only_trials_leave_the_rest_unsaid(small, tmp_path):
    rows = small.measurements
    rows = rows[(rows["diagnostic"] == "trial") & (rows["perturbation"] == "none")]
    rows = rows[rows["initialization"].isin(ARMS[:2])]
    page = Page(write(replace(small, measurements=rows), tmp_path))
    assert "No target was trained under two or more perturbations" in page.words
    assert "This suite trained no arm besides P-T and RI-T" in page.words
    row = page.tables["P-T and RI-T in every cell"][1]
    assert row[7] == "\N{EN DASH} | not measured"


def test_missing_values_are_left_out_of_the_mean(small):
    rows = small.measurements.copy()
    lost = (rows["perturbation"] == "none") & (rows["initialization"] == "RI-T")
    lost &= (rows["replicate"] == 2) & (rows["metric"] == "test_metric")
    rows.loc[lost, "value"] = None
    rows["flag"] = None
    rows.loc[lost & (rows["diagnostic"] == "trial"), "flag"] = "not finite: diverged"
    row = transfer_table(scope_of(rows, ENTRIES[0], small.suite)).rows[0]
    for cell in row[3:5]:
        assert cell.detail.endswith(f"n\N{NO-BREAK SPACE}{REPLICATES - 1}")
    assert row[-1].text == "RI-T: not finite: diverged"


# --- writing numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.2, "\N{MINUS SIGN}0.200"), (1234.5, "1234"), (3e-7, "3.00e\N{MINUS SIGN}07")],
)
def test_significant_digits(value, text):
    assert significant(value) == text


def test_no_negative_zero():
    assert number(-0.04) == "0.0"
    assert signed_percent(0.0004) == "0.0"
    assert signed_percent(0.01) == "+1.0"
    assert signed_percent(-0.01) == "\N{MINUS SIGN}1.0"
