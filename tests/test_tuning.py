"""Runs that choose their learning rates: the choice, its records, resuming, repairs, failures."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from command_line import cli, suite_file
from damage import flip
from handmade_run import publish
from html_page import Page
from safetensors.numpy import load_file
from tiny_suite import TINY

import transferbench
from transferbench.errors import DataError
from transferbench.leaderboard import boards
from transferbench.runner.cost import estimate
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import SilentWatcher
from transferbench.submission.bundle import read_bundle
from transferbench.submission.tuning import check_rates_follow_from_tuning
from transferbench.suite import Suite

RATES = [0.01, 0.003, 1e5]
RECIPE = {"optimizer": "adamw", "epochs": 1, "batch_size": 10}
TUNED = TINY | {
    "perturbations": {"none": {"name": "identity"}},
    "recipes": {
        "fixed": RECIPE | {"learning_rate": 0.003},
        "short": RECIPE | {"tune": {"learning_rate": RATES, "replicates": 2}},
    },
    "sources": {"source": TINY["sources"]["source"] | {"recipe": "fixed"}},
    "initializations": {
        "P-T": {"name": "pretrained", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "fixed"},
    },
    "diagnostics": {"speed": {"name": "speed"}},
}
"""The largest rate diverges. Only the scored arm is tuned: half of the trainings."""


class Stopping(SilentWatcher):
    """Interrupts a run after so many tuning jobs, and lists the jobs that finished."""

    def __init__(self, after=None):
        self.after, self.ran = after, []

    def finished(self, job, outcome):  # noqa: ARG002  # as the protocol has it
        self.ran.append(job)
        if self.after == sum(each.kind == "tuning" for each in self.ran):
            raise KeyboardInterrupt


def plan(folder, suite=TUNED, **options):
    return plan_suite(
        Suite.model_validate(suite), Options(out=folder / "run", jobs=1, device="cpu", **options)
    )


def run(folder, suite=TUNED, **options):
    planned = plan(folder, suite, **options)
    return planned, run_plan(planned, SilentWatcher())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished run's folder, its plan and its results."""
    folder = tmp_path_factory.mktemp("tuned")
    return folder, *run(folder)


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound[0], tmp_path / "copy")


def records(folder):
    return (folder / "run" / "records.jsonl").read_bytes()


def artefact(folder, job):
    return folder / "store" / "jobs" / job[:2] / job


def tuning_rows(results):
    table = results.measurements
    return table[(table["diagnostic"] == "tuning") & (table["metric"] == "validation_metric")]


def rate_rows(results):
    return results.measurements[results.measurements["metric"] == "learning_rate"]


# --- the choice and its records ---------------------------------------------------------------


def test_the_best_rate_is_chosen_from_the_recorded_metrics(sound):
    _, planned, results = sound
    rows = tuning_rows(results)
    assert len(rows) == 3 * 2
    assert set(rows["perturbation"]) == {"whole images"}
    assert set(rows["n"]) == {20}
    means = rows.assign(value=rows["value"].fillna(0)).groupby("learning_rate")["value"].mean()
    chosen = rate_rows(results)
    assert set(chosen["value"]) == {means.idxmax()}
    assert set(chosen["initialization"]) == {"P-T"}
    assert len(chosen) == planned.suite.replicates
    assert set(chosen["n"]) == {6}


def test_a_rate_that_diverges_has_no_metric_and_flags_the_choice(sound):
    *_, results = sound
    rows = tuning_rows(results).set_index("learning_rate")
    assert rows.loc[1e5, "value"].isna().all()
    assert set(rows.loc[1e5, "flag"]) == {"the outputs are not finite: diverged"}
    assert rows.loc[[0.003, 0.01], "value"].notna().all()
    (flag,) = set(rate_rows(results)["flag"])
    assert "no finite validation metric in 2 of 2 tuning replicates at 100000" in flag


def test_its_cost_is_recorded_in_images(sound):
    *_, results = sound
    table = results.measurements
    images = table[(table["diagnostic"] == "tuning") & (table["metric"] == "trained_images")]
    assert set(images["value"]) == {30.0}  # 3 of each of 10 classes, for an epoch


def test_a_tuned_trial_has_the_bits_of_one_that_is_given_the_rate(sound, tmp_path):
    folder, planned, results = sound
    rate = rate_rows(results)["value"].iloc[0]
    recipes = TUNED["recipes"] | {"short": RECIPE | {"learning_rate": rate}}
    fixed, _ = run(tmp_path, TUNED | {"recipes": recipes})
    for tuned, plain in zip(planned.plan.cells, fixed.plan.cells, strict=True):
        assert (tuned.job == plain.job) == (tuned.initialization == "RI-T")
        for name in ("final.safetensors", "outputs.safetensors"):
            a = load_file(artefact(folder, tuned.job) / name)
            b = load_file(artefact(tmp_path, plain.job) / name)
            assert all(np.array_equal(a[key], b[key]) for key in a)


def test_a_tuning_job_keeps_numbers_alone_and_none_of_test_images(sound):
    folder, planned, _ = sound
    for job in planned.plan.of_kind("tuning"):
        names = {path.name for path in artefact(folder, job.id).iterdir()}
        assert names == {"manifest.json", "measurements.json", "payload.json"}


def test_other_test_images_give_the_same_tuning(sound, tmp_path):
    """With all test images gone from the subset but one of a class, nothing is tuned again."""
    folder, planned, _ = sound
    target = TUNED["targets"]["handwriting"] | {"test_limit": 10}
    other = plan(tmp_path, TUNED | {"targets": {"handwriting": target}}, store=folder / "store")
    assert {job.id for job in other.plan.of_kind("tuning")} <= other.done
    assert not other.done & {cell.job for cell in other.plan.cells}
    assert planned.plan.jobs.keys() >= other.done


# --- where the choice is shown ----------------------------------------------------------------


def test_the_rates_of_a_run_are_a_table(sound):
    *_, results = sound
    rates = transferbench.Run(sound[0] / "run").rates()
    rows = tuning_rows(results).assign(value=lambda table: table["value"].fillna(0))
    means = rows.groupby("learning_rate")["value"].mean()
    assert rates["learning_rate"].tolist() == sorted(RATES)
    assert rates["validation_metric"].tolist() == pytest.approx(means[sorted(RATES)].tolist())
    assert set(rates["n"]) == {2}
    assert rates["lost"].tolist() == [0, 0, 2]
    assert rates[rates["chosen"]]["learning_rate"].tolist() == [means.idxmax()]
    assert (rates["flag"] != "").tolist() == rates["chosen"].tolist()


def test_the_report_shows_each_grid_with_its_choice_and_cost(sound):
    run = transferbench.Run(sound[0] / "run")
    page = Page(run.report().read_text("utf-8"))
    head, row = page.tables["Learning rate of each arm, from its grid"]
    assert head == ["target", "arm", "chosen", "at 0.003", "at 0.01", "at 100000", "trainings",
                    "trained images", "time", "flag"]  # fmt: skip
    rates = run.rates().set_index("learning_rate")
    assert row[:3] == ["handwriting", "P-T", f"{rates['chosen'].idxmax():g}"]
    for rate, text in zip(rates.index, row[3:6], strict=True):
        assert text.startswith(f"{100 * rates.loc[rate, 'validation_metric']:.1f} | ")
    assert row[5] == "0.0 | none, none"
    assert row[6:8] == ["6", "180"]
    assert row[8].endswith(" s")
    assert row[9] == rates[rates["chosen"]]["flag"].iloc[0]
    assert "learning_rate" not in page.tables  # nor among the other measurements
    budgets = {line[0]: line for line in page.tables["What each arm was trained with"]}
    assert budgets["P-T"][4] == "0.01 or 0.003 or 100000"
    assert budgets["RI-T"][-1] == "unequal tuning: 1 against 3"


def test_the_board_shows_the_rates_and_flags_doubtful_ones(folder):
    run = transferbench.Run(folder / "run")
    assert "Unequal tuning budgets: the recipes are of P-T best of 3 and RI-T best of 1" in (
        run.board()
    )
    publish(run.suite, folder / "run" / "submissions")
    (board,) = boards(folder / "run" / "submissions")
    (row,) = board.rows
    rates = run.rates()
    chosen = rates[rates["chosen"]]["learning_rate"].iloc[0]
    assert row.cells["learning_rates"] == (f"P-T {chosen:g}",)
    assert row.cells["trust"] == ("reported",)
    lost = "Tuning trainings without a finite metric: P-T of fixup-resnet8 on handwriting (2 of 6)."
    assert lost in board.flags
    assert any("chosen for P-T in the run, for each entry" in flag for flag in board.flags)


def test_a_submission_with_another_rate_than_its_tuning_gives_is_refused(folder):
    transferbench.Run(folder / "run").board()
    (packed,) = (folder / "run" / "submissions").glob("*/*/*")
    bundle = read_bundle(packed)
    assert list(check_rates_follow_from_tuning(bundle)) == []

    def problems(**changes):
        """The problems where the records of one kind have other values."""
        records = tuple(
            row.model_copy(update=changes)
            if (row.diagnostic, row.metric) == ("tuning", "validation_metric") and row.value == best
            else row
            for row in bundle.records
        )
        return [p.why for p in check_rates_follow_from_tuning(bundle._replace(records=records))]

    values = [row.value for row in bundle.records
              if row.diagnostic == "tuning" and row.metric == "validation_metric"]  # fmt: skip
    best = max(value for value in values if value is not None)
    (first, *_) = problems(value=0.0)
    assert re.fullmatch(r"learning_rate of P-T on handwriting, none is 0.\d+, but its tuning gives "
                        r"0.\d+", first)  # fmt: skip
    assert "is not of the rate of its job" in problems(coordinates={"learning_rate": 5.0})[0]
    assert "which tunes nothing" in problems(job="0" * 64)[0]
    untold = tuple(row for row in bundle.records if row.metric != "learning_rate")
    (first, *_) = check_rates_follow_from_tuning(bundle._replace(records=untold))
    assert first.why.endswith("does not say which learning rate it was given")


def test_the_command_line_shows_tuning_in_the_plan_and_the_chosen_rates(folder, tmp_path):
    file = suite_file(tmp_path, TUNED)
    options = ("--out", folder / "run", "--jobs", 1, "--device", "cpu")
    planned = json.loads(cli("plan", file, *options, "--json").out)
    assert planned["kinds"]["tuning"] == {"jobs": 6, "cached": 6, "wall_seconds": 0}
    assert re.search(r"^tuning +6 +6 +0 s$", cli("plan", file, *options).out, re.MULTILINE)
    said = cli("run", file, *options).out
    assert "learning rates of tiny@1.0, chosen by tuning:" in said
    assert re.search(r"fixup-resnet8 +handwriting +P-T +0\.\d+ +no finite validation", said)
    (row,) = [row for row in json.loads(cli("run", file, *options, "--json").out)["rates"]
              if row["chosen"]]  # fmt: skip
    assert row["arm"] == "P-T"


def test_the_time_of_tuning_is_part_of_the_cost(tmp_path):
    fresh = plan(tmp_path)
    cost = estimate(fresh, (), torch.device("cpu"))
    assert cost.seconds_of["tuning"] > cost.seconds_of["trial"] / 4
    assert cost.seconds == pytest.approx(sum(cost.seconds_of.values()))


# --- resuming, repairs and failures -----------------------------------------------------------


def test_an_interrupted_tuning_goes_on_where_it_was(sound, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan(tmp_path), Stopping(after=4))
    states = transferbench.Run(tmp_path / "run").statuses
    assert (states[states["kind"] == "tuning"]["status"] == "ok").sum() == 4
    watcher = Stopping()
    run_plan(plan(tmp_path), watcher)
    assert sum(job.kind == "tuning" for job in watcher.ran) == 2
    assert records(tmp_path) == records(sound[0])


def test_verify_heals_a_tuning_job_and_a_trial_that_reads_it(sound, folder):
    _, planned, _ = sound
    trial = planned.plan.jobs[planned.plan.cells[0].job]
    tuning = trial.payload["tuning"][0]["jobs"][0]
    flip(artefact(folder, tuning) / "measurements.json")
    flip(artefact(folder, trial.id) / "final.safetensors")
    verification = transferbench.verify(folder / "store", device="cpu", jobs=1, progress=False)
    assert [repair.outcome for repair in verification.repairs] == ["repaired"] * 2
    assert verification.ok
    watcher = Stopping()
    run_plan(plan(folder), watcher)
    assert watcher.ran == []
    assert records(folder) == records(sound[0])


def test_verify_knows_a_tuning_job_without_any_run(sound, folder):
    _, planned, _ = sound
    shutil.rmtree(folder / "run")
    job = planned.plan.tuned[0].job
    flip(artefact(folder, job) / "measurements.json")
    verification = transferbench.verify(folder / "store", device="cpu", jobs=1, progress=False)
    (repair,) = verification.repairs
    assert (repair.outcome, repair.title) == ("repaired", f"tuning {job[:12]}")


def test_a_damaged_choice_is_computed_again_before_its_trials(sound, folder, capsys):
    _, planned, _ = sound
    shutil.rmtree(artefact(folder, planned.plan.cells[0].job))
    flip(artefact(folder, planned.plan.tuned[0].job) / "measurements.json")
    run_plan(plan(folder), SilentWatcher())
    assert planned.plan.jobs[planned.plan.tuned[0].job].title in capsys.readouterr().err
    assert records(folder) == records(sound[0])


def test_a_share_that_holds_out_no_validation_image_is_refused_by_the_plan(folder, tmp_path):
    target = TUNED["targets"]["handwriting"] | {"validation": 1e-6}
    with pytest.raises(DataError, match=r"targets\.handwriting: a validation share of 1e-06"):
        plan(tmp_path, TUNED | {"targets": {"handwriting": target}}, store=folder / "store")


def test_what_needs_a_failed_tuning_job_is_skipped_with_its_name(tmp_path):
    plugin = tmp_path / "refusing.py"
    plugin.write_text(
        "from transferbench import hookimpl\n"
        "from transferbench.specs import InitializationSpec\n"
        "def refuse(params, net, context):\n"
        "    raise ValueError('no start')\n"
        "@hookimpl\n"
        "def transferbench_initializations():\n"
        "    return [InitializationSpec(name='refusing', version=1, summary='s', source='s',\n"
        "        license='CC0-1.0', initialize=refuse)]\n"
    )
    arms = TUNED["initializations"] | {"P-T": {"name": "refusing", "recipe": "short"}}
    suite = TUNED | {"initializations": arms, "trials": [{"initializations": ["P-T"]}]}
    planned, results = run(tmp_path, suite, plugins=(plugin,))
    statuses = {planned.plan.jobs[job].kind: outcome for job, outcome in results.outcomes.items()}
    assert statuses["tuning"].status == "failed"
    assert "no start" in statuses["tuning"].message
    first = planned.plan.jobs[planned.plan.tuned[0].job].title
    assert statuses["trial"].message == f"needs {first}, which did not finish"
    assert statuses["trial"].status == "skipped"
    report = Page(transferbench.Run(tmp_path / "run").report().read_text("utf-8"))
    assert "No training of a grid of this entry has finished." in report.words


def test_status_and_the_description_of_a_run_list_its_tuning(sound):
    folder, planned, _ = sound
    described = json.loads((folder / "run" / "run.json").read_text())
    rows = [row for row in described["jobs"] if row["kind"] == "tuning"]
    assert [row["label"] for row in rows] == [
        f"P-T of fixup-resnet8 on handwriting at rate {rate:g}, tuning replicate {r}"
        for rate in sorted(RATES) for r in range(2)
    ]  # fmt: skip
    assert {row["records"] for row in rows} == {2}
    states = transferbench.Run(folder / "run").statuses
    assert (states["kind"] == "tuning").sum() == len(planned.plan.tuned) == 6
