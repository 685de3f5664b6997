"""The suites on real data: planned, and run on tiny data in the official layouts."""

import re

import pytest
import timm
import torch
from command_line import cli
from documentation import text_of
from html_page import Page
from paper_data import SHORT, SIDE, official_data, options
from safetensors.torch import save_file

from transferbench.api import Run
from transferbench.plan import DatasetFacts, Entry, make_plan
from transferbench.registry import identity, load_registry
from transferbench.suite import Recipe
from transferbench.suite.loading import load_suite
from transferbench.training.compiling import pays

BACKBONE = "fixup-resnet8"
SHOWN = 224
TRAINED_A_SECOND, COMPILED_A_SECOND, EVALUATED_A_SECOND = 4164, 6545, 12_500
"""Images, of Fixup ResNet-50 and, evaluated, of ResNet-50 on an H100 in bf16."""
DRAWINGS = DatasetFacts("2" * 64, 345, "multi-class", "accuracy", 33_525, 14_604)
PUBLISHED = {
    "source:source": DatasetFacts("0" * 64, 1000, "multi-class", "accuracy", 1_281_167, 50_000),
    "target:real": DatasetFacts("1" * 64, 345, "multi-class", "accuracy", 50_000, 50_000),
    "target:clipart": DRAWINGS,
    "target:quickdraw": DatasetFacts("3" * 64, 345, "multi-class", "accuracy", 50_000, 50_000),
    "target:shuffled-labels": DRAWINGS,
    # Some 10,000 of its 50,000 training images count twice.
    "target:chexpert": DatasetFacts("4" * 64, 5, "multi-label", "auc", 60_000, 50_000),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return official_data(tmp_path_factory.mktemp("official"))


def transferbench(verb, suite, data, folder, changes, *more):
    said = cli(
        verb, suite, "--data-root", data, "--device", "cpu", "--store", folder / "store",
        "--out", folder / "run", *options(changes), *more,
    )  # fmt: skip
    assert said.code == 0, said.err
    return said.out


# --- the paper ----------------------------------------------------------------------------------


def test_the_plan_of_the_paper_lists_jobs_hours_and_memory(data, tmp_path):
    out = transferbench("plan", "neyshabur2020", data, tmp_path, SHORT, "--backbone", BACKBONE)
    jobs = {kind: int(n) for kind, n in re.findall(r"^(\w+) +(\d+) +0 ", out, re.MULTILINE)}
    assert set(jobs) == {"pretrain", "tuning", "trial", "diagnosis", "all"}
    assert (jobs["pretrain"], jobs["tuning"]) == (1, 2)
    assert jobs["all"] == sum(jobs.values()) // 2 > 400
    assert re.search(r"about \d+ (s|min) for what is left, .* MiB a job", out)


def is_compiled(job):
    """By the rule for a GPU, without ``--compile``."""
    if "recipe" not in job.payload:
        return False
    recipe = Recipe.model_validate({**job.payload["recipe"], "learning_rate": 0.1})
    return pays("cuda", recipe, int(job.work.trained // recipe.batch_size), SHOWN)


def test_the_hours_of_its_page_are_those_of_its_jobs():
    """At the measured rates, of the images that the published sizes make."""
    registry = load_registry()
    spec, params = registry.resolve_backbone("fixup-resnet50")
    entry = Entry("fixup-resnet50", identity(spec, spec.parse(params)), "l", "s")
    plan = make_plan(load_suite("neyshabur2020"), [entry], registry, PUBLISHED)
    trained, evaluated = (sum(column) for column in zip(*(job.work for job in plan.jobs.values()),
                                                       strict=True))  # fmt: skip
    compiled = sum(job.work.trained for job in plan.jobs.values() if is_compiled(job))
    seconds = [
        share / COMPILED_A_SECOND + (trained - share) / TRAINED_A_SECOND
        + evaluated / EVALUATED_A_SECOND
        for share in (compiled, trained)
    ]  # fmt: skip
    cells = [len(plan.jobs), trained / 1e6, evaluated / 1e6, *(each / 3600 for each in seconds)]
    texts = [f"{cell:,.{digits}f}" for cell, digits in zip(cells, (0, 0, 0, 1, 1), strict=True)]
    assert f"| all | {' | '.join(texts)} |" in text_of("docs/how-to/paper-in-a-day.md")


@pytest.mark.slow
def test_every_kind_of_job_of_the_paper_reaches_a_report_with_its_figures(data, tmp_path):
    transferbench(
        "run", "neyshabur2020", data, tmp_path, SHORT, "--backbone", BACKBONE, "--jobs", 1
    )
    run = Run(tmp_path / "run")
    assert not run.failed
    assert set(run.measurements["diagnostic"]) - {"trial", "tuning"} == set(run.suite.diagnostics)
    page = Page((tmp_path / "run" / "report.html").read_text())
    text, captions = " ".join(page.text), "; ".join(filter(None, page.tables))
    for number in range(2, 8):
        assert f"Figure {number}" in text
        # Beside the published numbers, but for the heat maps of Figure 6, which are none.
        assert number == 6 or re.search(rf"Published [^;]*Figures? {number}\b", captions)
    for number in (1, 2):
        assert re.search(rf"(^|; )Table {number}: ", captions)
        assert re.search(rf"Published [^;]*Table {number}\b", captions)


# --- external weights ---------------------------------------------------------------------------

FEW = {
    "image.size": SIDE,
    "image.stored": SIDE + 4,
    "targets.real.labels_per_class": 2,
    "targets.real.validation": 0.4,
    "recipes.tuned.epochs": 2,
    "recipes.tuned.precision": "f32",
    "recipes.tuned.tune.learning_rate": "[1e-3, 1e-2]",
    "recipes.head.tune.learning_rate": "[1e-3, 1e-2]",
    "perturbations.block-56.params.block": 8,
    "perturbations.block-16.params.block": 4,
    "replicates": 2,
    "trials.0.targets": "[real, quickdraw]",
    "trials.1.targets": "[real, quickdraw]",
    "trials.2.replicates": 2,
    "diagnostics.cka.params.images": 8,
    "diagnostics.barrier.params.points": 3,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), file)
    return file


@pytest.mark.slow
def test_external_weights_on_few_labels_reach_a_report(data, weights, tmp_path):
    more = ("--weights", f"timm/test_resnet={weights}")
    assert "weights" in transferbench("plan", "vision", data, tmp_path, FEW, *more)
    transferbench("run", "vision", data, tmp_path, FEW, *more, "--jobs", 1)
    run = Run(tmp_path / "run")
    assert not run.failed
    measured = set(run.measurements["diagnostic"])
    assert measured >= {"linear-probe", "knn", "logme", "h-score", "leep", "nce", "rewinding"}
