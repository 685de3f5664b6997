"""A suite for a folder, or a table, of one's own pictures, and its run in a given time."""

import csv
import gzip
import re
import shlex
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
from command_line import cli, mistake
from html_page import Page
from icon_pictures import icon_folder
from PIL import Image
from safetensors.torch import save_file

import transferbench
from transferbench.api import pictures
from transferbench.errors import DataError, SuiteError
from transferbench.measurements import Measurements
from transferbench.own_pictures import design, within
from transferbench.own_pictures.design import Cost, Design, choose, suite_content, suite_of
from transferbench.own_pictures.look import look_at
from transferbench.registry import load_registry
from transferbench.report.parts import Scope
from transferbench.report.question import question
from transferbench.runner.options import Options
from transferbench.runner.schedule import SilentWatcher
from transferbench.suite.loading import load_suite

CLASSES = ("bird", "cat", "dog")


def picture(path, seed, side=32, grey=False, hue=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 255, (side, side + 8, 1 if grey else 3))
    pixels[..., hue % pixels.shape[2]] //= 3
    pixels = np.repeat(pixels, 3, 2) if grey else pixels
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def folder_of(root, per_class=12, **how):
    for label, name in enumerate(CLASSES):
        for item in range(per_class):
            picture(root / name / f"{item}.png", 100 * label + item, hue=label, **how)
    return root


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("own") / "My pets")


@pytest.fixture(scope="module")
def look(folder, registry):
    return look_at(folder, registry)


# --- what there is ------------------------------------------------------------------------------


def test_a_folder_is_looked_at(look):
    assert (look.name, look.classes, look.short_side, look.channels) == ("my-pets", CLASSES, 32, 3)
    assert (look.counts["train"] + look.counts["test"]).tolist() == [12, 12, 12]
    assert "36 pictures in colour, 3 classes (bird 12, cat 12, dog 12)" in str(look)


def test_grey_pictures_have_one_channel(tmp_path, registry):
    assert look_at(folder_of(tmp_path, grey=True), registry).channels == 1


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("train", "val"), ("Training", "Testing")]
)
def test_folders_of_the_splits_are_kept_apart(tmp_path, registry, train, test):
    for position, split in enumerate((train, test)):
        for label, name in enumerate(CLASSES):
            for item in range(6):
                seed = 1000 * position + 100 * label + item
                picture(tmp_path / split / name / f"{item}.png", seed)
    look = look_at(tmp_path, registry)
    assert look.dataset["params"] == {"train": train, "test": test}
    assert look.counts["test"].tolist() == [6, 6, 6]


def table_of(folder, head=("File", "Species"), ending=".csv", split=False):
    path = folder / f"labels{ending}"
    with path.open("w", newline="") as stream:
        write = csv.writer(stream, delimiter="\t" if ending == ".tsv" else ",")
        write.writerow([*head, *(["fold"] if split else [])])
        for name in CLASSES:
            for item in range(12):
                own = ["test" if item % 3 == 0 else "train"] if split else []
                write.writerow([f"{name}/{item}.png", name, *own])
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_table_is_looked_at(tmp_path, registry, ending):
    look = look_at(table_of(folder_of(tmp_path / "x"), ending=ending), registry)
    assert look.classes == CLASSES
    assert look.size_of("train") + look.size_of("test") == 36
    params = look.dataset["params"]
    assert (params["path"], params["label"]) == ("File", "Species")


def test_a_column_of_splits_is_taken(tmp_path, registry):
    look = look_at(table_of(folder_of(tmp_path / "x"), split=True), registry)
    assert look.dataset["params"]["split"] == "fold"
    assert look.counts["test"].tolist() == [4, 4, 4]


def test_values_of_splits_may_be_called_otherwise(tmp_path, registry):
    table = table_of(folder_of(tmp_path / "x"), split=True)
    text = table.read_text()
    table.write_text(text.replace(",train", ",Training").replace(",test", ",TEST"))
    look = look_at(table, registry)
    assert look.counts["test"].tolist() == [4, 4, 4]
    table.write_text(text.replace(",train", ",1").replace(",test", ",2"))
    with pytest.raises(DataError, match=r"column 'fold' of .* has 1, 2, expected train and test"):
        look_at(table, registry)


def test_a_damaged_archive_is_no_table(tmp_path, registry):
    table = table_of(folder_of(tmp_path / "x", per_class=1))
    packed = table.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(table.read_bytes())[:-12])
    with pytest.raises(DataError, match="cannot be read as a table of text"):
        look_at(packed, registry)


def grouped_folder(root, per_group=3):
    """Twelve pictures of each class, of which ``per_group`` share the key before the first dash."""
    for label, name in enumerate(CLASSES):
        for item in range(12):
            group = f"{name}{item // per_group}"
            picture(root / name / f"{group}-{item}.png", 100 * label + item, hue=label)
    return root


def groups_of(look, registry):
    """The groups of each split."""
    spec = registry.dataset(look.dataset["name"])
    params = spec.parse(look.dataset["params"])
    return [set(spec.items(params, split, look.data_root).groups) for split in ("train", "test")]


def test_a_pattern_of_names_keeps_groups_together(tmp_path, registry):
    look = look_at(grouped_folder(tmp_path / "x"), registry, "^([^-]+)-")
    assert look.dataset["params"]["group"] == "^([^-]+)-"
    assert "36 pictures in colour in 12 groups, 3 classes" in str(look)
    train, test = groups_of(look, registry)
    assert len(train | test) == 12
    assert not train & test


def test_a_column_that_is_named_is_that_of_the_groups(tmp_path, registry):
    grouped_folder(tmp_path / "x")
    table = tmp_path / "x" / "labels.csv"
    rows = [(f"{path.parent.name}/{path.name}", path.parent.name, path.stem.split("-")[0])
            for path in sorted((tmp_path / "x").rglob("*.png"))]  # fmt: skip
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "litter"), *rows])
    assert look_at(table, registry).groups is None
    look = look_at(table, registry, "litter")
    assert look.groups == 12
    train, test = groups_of(look, registry)
    assert not train & test


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("^[^-]+-", r"cannot be read with .*needs a group \(\.\.\.\) that matches"),
        ("^([a-z]+)", "makes one group of each class"),
        ("_([0-9]+)$", "matches no key in the name of"),
    ],
)
def test_a_pattern_without_groups_is_refused_in_words(tmp_path, registry, group, message):
    with pytest.raises(DataError, match=message):
        look_at(grouped_folder(tmp_path / "x"), registry, group)


def test_a_column_of_groups_that_is_not_there_is_named(tmp_path, registry):
    table = table_of(folder_of(tmp_path / "x"))
    with pytest.raises(DataError, match="has no column 'specis'; did you mean 'Species'"):
        look_at(table, registry, "specis")


def few(root):
    folder_of(root, per_class=12)
    for item in range(3, 12):
        (root / "cat" / f"{item}.png").unlink()
    return root


def alone(root):
    for item in range(12):
        picture(root / "cat" / f"{item}.png", item)
    return root


def broken(root):
    for name in CLASSES:
        for item in range(12):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{item}.png").write_bytes(f"{name}{item}".encode())
    return root


def flat(root):
    picture(root / "1.png", 1)
    return root


def unnamed(root):
    return table_of(folder_of(root), head=("a", "b"))


def no_table(root):
    path = root / "labels.csv"
    path.parent.mkdir()
    path.write_text("path\n")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (few, "class 'cat' in .* has 3 pictures, and each class needs 6 or more: add pictures"),
        (alone, "has one class, 'cat': nothing is told apart"),
        (broken, "no picture in .* can be read: "),
        (flat, "expected class folders in .*, found none"),
        (lambda root: root, "there is no .*; give a folder of class folders, or a table"),
        (unnamed, "has the columns a, b: call that of the files 'path' and that of the classes"),
        (no_table, "has no header with two columns and a row below it"),
    ],
)
def test_pictures_that_allow_no_comparison_are_refused_in_words(tmp_path, registry, make, message):
    with pytest.raises(DataError, match=message):
        look_at(make(tmp_path / "pictures"), registry)


# --- the design ---------------------------------------------------------------------------------

COST = Cost(Design(64, 500, (1,), 1), training=2.0, diagnoses=1.0, slots=2)


def wide(look, side=600):
    return look._replace(short_side=side)


def test_more_time_buys_larger_images_then_replicates(look):
    minutes = [choose(wide(look), COST, 60 * m) for m in (10, 60, 240)]
    assert [each.size for each in minutes] == sorted(each.size for each in minutes)
    assert minutes[0].size < minutes[2].size
    for chosen, limit in zip(minutes, (10, 60, 240), strict=True):
        assert COST.seconds(chosen) <= 60 * limit
        assert design.FEWEST <= chosen.replicates <= design.MOST


def test_images_are_not_enlarged(look):
    assert choose(wide(look, 70), COST, 1e6).size == 64


def test_a_size_that_is_given_is_kept(look):
    chosen = choose(wide(look), COST, 3600, size=96)
    assert chosen.size == 96


@pytest.mark.parametrize("size", [8, 30, 32, 49, 64, 96, 224])
def test_blocks_divide_the_size(look, size):
    chosen = choose(wide(look), COST, 1e9, size=size)
    assert chosen.blocks[-1] == 1
    assert all(size % block == 0 for block in chosen.blocks)


def test_no_time_is_told_with_the_time_that_it_takes(look):
    with pytest.raises(SuiteError) as error:
        choose(look, COST, 20)
    minutes = int(str(error.value).partition("--minutes ")[2].split()[0])
    assert choose(look, COST, 60 * minutes).replicates >= design.FEWEST
    assert "0.3 minutes are left, and the smallest comparison, 3 replicates" in str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_suite_is_valid_as_it_is_written(look, registry, tmp_path, channels):
    own = look._replace(channels=channels)
    prepared = pictures._Prepared(
        own, Design(32, 500, (8, 1), 4), pictures._options(None, None, None, "cpu", 1, (), False),
        None,
    )  # fmt: skip
    pictures._write_suite(tmp_path / "own.yaml", "here", prepared, 4)
    suite = load_suite(str(tmp_path / "own.yaml"), registry)
    assert suite == suite_of(own, prepared.design, "timm/tf_efficientnet_lite0", None)
    assert suite.replicates == 4
    assert list(suite.perturbations) == ["none", "block-8", "block-1"]
    assert suite.scoring.chance == {"my-pets": "data"}


def test_many_pictures_are_sampled_so_that_each_is_seen_often(look):
    many = look._replace(
        counts={split: np.array([5000] * 3) for split in look.counts},
    )
    content = suite_content(many, Design(64, 4000, (1,), 5), "b", None)
    labels = content["targets"]["my-pets"]["labels_per_class"]
    assert labels * 3 * content["recipes"]["tuned"]["epochs"] == pytest.approx(4000, rel=0.1)
    assert content["recipes"]["tuned"]["epochs"] >= design.LEAST_EPOCHS


def test_unequal_classes_are_judged_by_the_balanced_accuracy(look):
    counts = {"train": np.array([50, 10, 10]), "test": np.array([5, 5, 5])}
    content = suite_content(look._replace(counts=counts), Design(32, 500, (1,), 3), "b", None)
    assert content["targets"]["my-pets"]["metric"] == "balanced-accuracy"


# --- the first sentence ---------------------------------------------------------------------------

SPREAD = np.array([-0.01, 0.0, 0.01])
WHOLE = (
    "pre-training brings +40.0 points (95% interval +36.0 to +43.7, n = 3) of the test metric, and "
    "it is features: under block-1 it is 0.0 points (95% interval \N{MINUS SIGN}3.7 to +4.0, "
    "n = 3)."
)


def scope_with(look, whole, shuffled, train=0.9):
    """Three replicates with these gains on whole images and on shuffled ones."""
    suite = suite_of(look, Design(32, 500, (1,), 3), "timm/test_resnet", None)
    suite = suite.with_chance({"my-pets": 0.3})
    rows = [
        {"suite": suite.id, "entry": "e", "target": "my-pets", "perturbation": perturbation,
         "initialization": arm, "replicate": k, "diagnostic": "trial", "metric": metric,
         "unit": "fraction", "n": 50,
         "value": train if metric == "train_metric" else 0.3 + (gain[k] if arm == "P-T" else 0),
         "other_initialization": None, "other_replicate": None, "flag": None, "network": None}
        for perturbation, gain in (("none", whole + SPREAD), ("block-1", shuffled + SPREAD[::-1]))
        for arm in ("P-T", "RI-T")
        for metric in ("test_metric", "train_metric")
        for k in range(3)
    ]  # fmt: skip
    return Scope(suite, "e", Measurements(pd.DataFrame(rows)))


@pytest.mark.parametrize(
    ("whole", "shuffled", "expected"),
    [
        (0.4, 0.0, WHOLE),
        (0.4, 0.2, "of the test metric, part of it features and part of it statistics: under "),
        (0.2, 0.2, ", and it is statistics; features add nothing that is shown: under block-1 it "),
        (0.1, 0.3, ", and it is statistics; features none: under block-1 it is +30.0"),
        (0.0, 0.0, "it is undecided whether pre-training brings anything: the gain in the test "),
        (-0.2, 0.0, "pre-training costs: the gain is \N{MINUS SIGN}20.0 points"),
    ],
)  # fmt: skip
def test_the_first_sentence_says_whether_it_is_features_or_statistics(
    look, whole, shuffled, expected
):
    sentence = question(scope_with(look, whole, shuffled))
    assert sentence.startswith("On my-pets ")
    assert expected in sentence
    assert sentence.count(". ") == 0


def test_a_baseline_that_did_not_train_is_told(look):
    sentence = question(scope_with(look, 0.4, 0.0, train=0.32))
    assert sentence.startswith("On my-pets pre-training brings +40.0 points")
    assert (
        ", and it cannot be told whether it is features or statistics, since RI-T did not train in "
        "3 of 3 replicates: under block-1 it is"
    ) in sentence


def test_what_is_not_separated_is_said_as_undecided(look, monkeypatch):
    monkeypatch.setattr("test_own_pictures.SPREAD", np.array([-0.04, 0.0, 0.04]))
    sentence = question(scope_with(look, 0.2, 0.1))
    assert ", and it is undecided whether it is features or statistics: under block-1" in sentence


# --- the run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), file)
    return file


@pytest.fixture
def quick(monkeypatch):
    """Trainings of a second, and a run that needs no time to start and to end."""
    monkeypatch.setattr(design, "SEEN", (60, 40, 30))
    monkeypatch.setattr(design, "START_SECONDS", 0)
    monkeypatch.setattr(within, "END_SECONDS", 1)
    monkeypatch.setattr(pictures, "END_SECONDS", 1)


@pytest.mark.usefixtures("quick")
def test_try_writes_a_suite_runs_it_and_answers(folder, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(design, "MOST", 3)
    monkeypatch.setattr(design, "ENOUGH", 3)
    said = cli("try", folder, "--weights", weights, "--backbone", "timm/test_resnet", "--out",
               tmp_path / "run", "--jobs", 1, "--device", "cpu", "--minutes", 5,
               "--size", 32, "--group", "^([0-9]+)")  # fmt: skip
    assert said.code == 0, said.err
    assert "36 pictures in colour in 12 groups" in said.err
    assert "On my-pets " in said.out
    assert f"the report is {tmp_path / 'run' / 'report.html'}" in said.out
    suite = load_suite(str(tmp_path / "run" / "suite.yaml"), load_registry())
    assert suite.replicates == 3
    run = transferbench.Run(tmp_path / "run")
    assert run.suite == suite
    words = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).words
    (answer,) = run.answers.values()
    assert answer.partition(". ")[0] in words
    measured = set(run.measurements["diagnostic"])
    assert {"linear-probe", "leep", "logme", "cka", "distance", "per-class"} <= measured


class TickingWatcher(SilentWatcher):
    """A clock on which each job takes a second, and nothing else takes any time."""

    def __init__(self):
        self.seconds = 0
        self.jobs = []

    def finished(self, job, outcome):
        assert outcome.status == "ok", outcome
        self.seconds += 1
        self.jobs.append(job)


@pytest.fixture
def ticking(monkeypatch):
    """A run of a design of far too many replicates, as a wrong measure of the cost chooses it."""
    watcher = TickingWatcher()
    for module in (pictures, within):
        monkeypatch.setattr(module, "monotonic", lambda: watcher.seconds)
    monkeypatch.setattr(pictures, "choose", lambda *_: Design(16, 30, (1,), 500))
    monkeypatch.setattr(pictures, "_measured", lambda prepared: Cost(prepared.design, 1.0, 1.0, 1))
    return watcher


def tried(folder, weights, out, watcher, seconds):
    return transferbench.try_pictures(
        folder, weights=weights, backbone="timm/test_resnet", out=out, jobs=1, device="cpu",
        minutes=(within.END_SECONDS + seconds) / 60, progress=watcher,
    )  # fmt: skip


@pytest.mark.slow
def test_the_time_is_held_with_the_replicates_that_are_complete(folder, weights, tmp_path, ticking):
    run = tried(folder, weights, tmp_path / "run", ticking, 22)
    assert ticking.seconds == 23
    assert run.suite.replicates == 1
    assert {job.kind for job in ticking.jobs[:6]} == {"tuning"}
    assert not run.failed
    assert "(n = 1: no interval)" in next(iter(run.answers.values()))
    suite = load_suite(str(tmp_path / "run" / "suite.yaml"), load_registry())
    assert suite.replicates == 1
    # The same command with more time goes on.
    before = {job.id for job in ticking.jobs}
    ticking.seconds, ticking.jobs = 0, []
    with pytest.raises(SuiteError, match="the time is over before one replicate is complete"):
        tried(folder, weights, tmp_path / "elsewhere" / "run", ticking, 0)
    ticking.seconds, ticking.jobs = 0, []
    run = tried(folder, weights, tmp_path / "run", ticking, 11)
    assert run.suite.replicates == 2
    assert before.isdisjoint(job.id for job in ticking.jobs)


def test_a_suite_of_ones_own_is_not_replaced(folder, weights, tmp_path, ticking):
    suite = tmp_path / "run" / "suite.yaml"
    suite.parent.mkdir()
    suite.write_text("my own")
    with pytest.raises(SuiteError, match=r"suite\.yaml is there already, in a folder of no run"):
        tried(folder, weights, suite.parent, ticking, 1)
    assert suite.read_text() == "my own"
    assert not ticking.jobs


def test_no_run_is_written_among_the_pictures(folder):
    message = mistake("try", folder, "--out", folder / "runs" / "first")
    assert f"among the pictures in {folder}, as if it were a class" in message
    assert not (folder / "runs").exists()


def test_a_run_whose_last_job_ends_after_the_time_is_complete(monkeypatch):
    def execute(*_, **__):
        raise within._TimeIsUpError

    cell = SimpleNamespace(job="a", replicate=0)
    planned = SimpleNamespace(
        plan=SimpleNamespace(jobs={"a": None}, cells=[cell], measured=[]), done=set(), notes=(),
        store=SimpleNamespace(is_done=lambda job: job == "a"),
        code=SimpleNamespace(refuse_mixtures=lambda: None),
    )  # fmt: skip
    monkeypatch.setattr(within, "execute", execute)
    monkeypatch.setattr(within, "refuse_options", lambda *_: None)
    counts = []
    within.computed_within(lambda n: counts.append(n) or planned, 4, 0, SilentWatcher())
    assert counts == [4, 4]


@pytest.mark.usefixtures("quick")
def test_suite_new_writes_the_file_alone(folder, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = shutil.copy(weights, tmp_path / "my weights.safetensors")
    arguments = ("suite", "new", folder, "--weights", weights, "--backbone", "timm/test_resnet",
                 "--jobs", 1, "--device", "cpu")  # fmt: skip
    said = cli(*arguments)
    assert said.code == 0, said.err
    assert "the suite is own-my-pets.yaml" in said.out
    head = Path("own-my-pets.yaml").read_text(encoding="utf-8").splitlines()
    words = shlex.split(head[1].removeprefix("# Run it: "))
    assert words[:4] == ["transferbench", "run", "own-my-pets.yaml", "--data-root"]
    assert words[5:] == ["--weights", str(weights)]
    assert not list(tmp_path.glob("runs/own*"))
    assert "own-my-pets.yaml is there already" in mistake(*arguments)


def test_a_name_with_a_line_break_does_not_become_yaml(look, tmp_path):
    looked = look._replace(data_root=Path("my\nbackbones: [x]"))
    options = Options(backbones=["fixup-resnet8"], weights="w")
    prepared = pictures._Prepared(looked, design.first_design(looked, 8), options, None)
    pictures._write_suite(tmp_path / "own.yaml", looked.data_root, prepared, 2)
    text = (tmp_path / "own.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Written for my?backbones: [x]: ")
    assert "# Run it: a name in its command has a character that cannot stand here" in text
    assert load_suite(str(tmp_path / "own.yaml")).backbones == ("fixup-resnet8",)


# --- the bundled suite ----------------------------------------------------------------------------


def photos(verb, folder, weights, out, *options):
    return (verb, "photos", "--data-root", folder, "--weights", weights, "--backbone",
            "timm/test_resnet", "--out", out, *options)  # fmt: skip


def test_photos_is_planned_on_any_folder(folder, weights, tmp_path):
    said = cli(*photos("plan", folder, weights, tmp_path / "run"))
    assert said.code == 0, said.err
    assert "photos@1.0 on timm/test_resnet+mine@" in said.out
    counts = dict(re.findall(r"^(tuning|trial) +(\d+)", said.out, re.MULTILINE))
    assert counts == {"tuning": "6", "trial": "30"}


def test_photos_runs_with_parameters_that_are_set(tmp_path, weights):
    for split, seed in (("train", 0), ("test", 1000)):
        for label, name in enumerate(CLASSES):
            for item in range(6):
                file = tmp_path / "pets" / split / name / f"{item}.png"
                picture(file, seed + 100 * label + item, hue=label)
    said = cli(*photos("run", tmp_path / "pets", weights, tmp_path / "run", "--jobs", 1, "--device",
                       "cpu", "--set", "targets.photos.dataset.params={train: train, test: test}",
                       "--set", "image.size=32", "--set", "replicates=2",
                       "--set", "recipes.tuned.epochs=1", "--set", "recipes.tuned.batch_size=6",
                       "--set", "recipes.tuned.tune=null", "--set",
                       "recipes.tuned.learning_rate=1e-3"))  # fmt: skip
    assert said.code == 0, said.err
    run = transferbench.Run(tmp_path / "run")
    trials = run.measurements.query("diagnostic == 'trial' and metric == 'test_metric'")
    assert len(trials) == 2 * 3 * 2
    assert set(trials["n"]) == {18}
    assert next(iter(run.answers.values())).startswith("On photos ")


def test_photos_says_what_it_lacks(folder, tmp_path):
    options = ("--backbone", "timm/test_resnet", "--out", tmp_path / "run")
    assert "has no source to pre-train timm/test_resnet on; give" in mistake(
        "plan", "photos", "--data-root", folder, *options
    )
    weights = ("--weights", "imagenet", "--out", tmp_path / "run")
    assert "--data-root FOLDER" in mistake("plan", "photos", *weights)


def test_a_suite_without_a_source_asks_for_weights(look, tmp_path):
    suite = suite_of(look, Design(32, 500, (1,), 3), "timm/test_resnet", None)
    with pytest.raises(SuiteError, match="has no source to pre-train timm/test_resnet on; give"):
        transferbench.plan_run(suite, data_root=look.data_root, out=tmp_path / "run")


def test_what_takes_features_is_a_perturbation_of_the_suite(look, tmp_path, registry):
    prepared = pictures._Prepared(
        look, Design(32, 500, (1,), 3), pictures._options(None, None, None, "cpu", 1, (), False),
        None,
    )  # fmt: skip
    pictures._write_suite(tmp_path / "own.yaml", "here", prepared, 3)
    with pytest.raises(SuiteError, match=r"scoring\.statistics: perturbations has no 'block-2'"):
        load_suite(str(tmp_path / "own.yaml"), registry, ["scoring.statistics=block-2"])


# --- it must show ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_weights_on_two_hundred_pictures_in_a_quarter_of_an_hour(tmp_path):
    """Real ImageNet weights, 64 px, two cores: the gain's interval is above 0."""
    from transferbench_plugins.backbones._imagenet_packages import file_of

    folder = icon_folder(tmp_path / "icons", 200)
    try:
        file_of("tf_efficientnet_lite0")
    except DataError as error:
        pytest.skip(str(error))
    started = time.monotonic()
    run = transferbench.try_pictures(folder, size=64, minutes=15, out=tmp_path / "run", jobs=2)
    assert time.monotonic() - started < 15 * 60
    (verdicts,) = run.claims.values()
    helps = next(verdict for verdict in verdicts if verdict.claim == "pre-training-helps")
    assert helps.low > 0
    assert helps.verdict == "reproduced"
