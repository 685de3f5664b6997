"""What a plan says of its data before anything trains: selections, overlap, declared shares."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command_line import cli
from handmade_run import SUITE, handmade_registry, make_run
from test_copies import split_of
from test_datacache import FakeLoader, get, make_spec
from test_promises import copied, in_test
from tiny_suite import TINY, tiny_suite

from transferbench.api import Run
from transferbench.data.splits import planned_training
from transferbench.errors import DataError, PluginError
from transferbench.leaderboard.notes import notes_of
from transferbench.plan.resolve import ResolvedDataset, ResolvedSuite
from transferbench.registry import load_registry
from transferbench.runner import planning
from transferbench.runner.datasets import count_copies, overlap_pairs, report_on
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.store import Store
from transferbench.suite import Suite

HANDWRITING = TINY["targets"]["handwriting"]
SELECTION = {"validation": 0.3, "labels_per_class": None}


# --- selections ---------------------------------------------------------------------------------


def planned(folder, target=HANDWRITING, plugins=(), **changes):
    suite = tiny_suite(targets={"handwriting": target}, **changes)
    return plan_suite(suite, Options(out=folder / "run", device="cpu", plugins=plugins))


def test_too_few_images_of_a_class_are_said_before_anything_trains(tmp_path):
    """The rarest digit of scikit-learn's is the 8: 141 of the 1,437 images, 127 after a tenth."""
    assert planned(tmp_path, HANDWRITING | {"labels_per_class": 125}).plan.jobs
    with pytest.raises(DataError) as caught:
        planned(tmp_path, HANDWRITING | {"labels_per_class": 130})
    assert str(caught.value) == (
        "targets.handwriting: labels_per_class requests 130 images of each class; class '8' has "
        "127 left after the validation split: request at most 127, or hold out less (--set "
        "targets.handwriting.labels_per_class=127)"
    )


def test_all_selections_that_cannot_work_are_said_at_once(tmp_path):
    source = TINY["sources"]["source"] | {"validation": 0.0001}
    with pytest.raises(DataError) as caught:
        planned(tmp_path, HANDWRITING | {"labels_per_class": 130}, sources={"source": source})
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith("sources.source: a validation share of 0.0001 of 40 images in ")
    assert first.endswith("raise it, or set it to 0 (--set sources.source.validation=SHARE)")
    assert second.startswith("targets.handwriting: labels_per_class requests 130")


GROUPED = """
import numpy as np
from transferbench.hookspecs import hookimpl
from transferbench.specs import DatasetSpec, DatasetSplit


def load(params, split, root, image_size):
    sizes = [4, 3, 3] if split == "train" else [10]
    groups = np.repeat([f"{split}-{label}-{size}" for label in "ab" for size in range(len(sizes))],
                       sizes * 2)
    images = np.random.default_rng(len(sizes)).integers(0, 256, (20, image_size, image_size, 1))
    return DatasetSplit(images.astype(np.uint8), np.repeat([0, 1], 10), groups)


@hookimpl
def transferbench_datasets():
    about = {"summary": "twenty images in six groups", "source": "drawn", "license": "CC0-1.0"}
    yield DatasetSpec(name="grouped", version=1, **about, load=load, channels=1,
                      classes=lambda params, root: ("a", "b"), grouping="box",
                      shared_between_splits="SHARED")
"""


@pytest.fixture
def grouped(tmp_path):
    file = tmp_path / "grouped.py"
    file.write_text(GROUPED)
    return file


def test_whether_a_selection_works_is_computed_for_each_seed(tmp_path, grouped):
    """Of whole groups, 7 of the 10 images of a class are left in replicate 0, and 4 in 1."""
    target = {"dataset": {"name": "grouped"}, "labels_per_class": 7, "validation": 0.5}
    planned(tmp_path, target, [grouped], replicates=1)
    message = r"^targets.handwriting: .* has (\d) left .*targets.handwriting.labels_per_class=\1\)$"
    with pytest.raises(DataError, match=message) as caught:
        planned(tmp_path, target, [grouped], replicates=8)
    fewest = int(re.match(message, str(caught.value))[1])
    planned(tmp_path, target | {"labels_per_class": fewest}, [grouped], replicates=8)


def test_what_is_done_is_not_selected_again(tmp_path, monkeypatch):
    """Runs of earlier versions go on, whatever is refused now."""
    monkeypatch.setattr(planning, "finished_codes", lambda jobs, store: {job: {} for job in jobs})
    assert planned(tmp_path, HANDWRITING | {"labels_per_class": 130}).done


def test_a_class_that_whole_groups_take_away_is_named():
    labels = np.array([0, 1, 0, 1, 2, 0])
    groups = np.array([1, 1, 2, 2, 3, 3])
    seeds = {True: [], False: []}
    split = split_of(labels, groups)
    for seed in range(8):
        validation = planned_training(split, SELECTION | {"seed": seed}, ()).validation
        seeds[4 in validation].append(seed)
    taken, left = (seeds[key][0] for key in (True, False))
    names = ("a", "b", "c")
    assert len(planned_training(split, SELECTION | {"seed": left}, names).train) == 4
    message = (
        "share of 0.3 in whole groups leaves no training image of c: hold out less, or divide the "
        "groups more finely"
    )
    with pytest.raises(DataError, match=message):
        planned_training(split, SELECTION | {"seed": taken}, names)
    with pytest.raises(DataError, match="class 'c' has 0 left after the validation split"):
        planned_training(split, SELECTION | {"seed": taken, "labels_per_class": 1}, names)


# --- what is said of data -----------------------------------------------------------------------


def described(tmp_path, source, target, **changes):
    """Notes and overlap of fake data as source and target."""
    specs = {"source:source": source, "target:handwriting": target}
    scoring = TINY["scoring"] | {"chance": {"handwriting": 0.5}}
    target = {"dataset": {"name": "fake"}, **changes}
    suite = tiny_suite(targets={"handwriting": target}, scoring=scoring)
    resolved = ResolvedSuite(
        suite,
        {
            label: ResolvedDataset({"name": spec.name}, spec, spec.parse({}))
            for label, spec in specs.items()
        },
        {}, {}, {},
    )  # fmt: skip
    datasets = {label: get(spec, tmp_path / spec.name) for label, spec in specs.items()}
    report = report_on(resolved, datasets, count_copies(datasets.values()))
    pairs = [(label, word) for label, _, _, word in overlap_pairs(resolved, datasets)]
    assert pairs == list(report.overlap.items())  # what a suite pins is what its run says
    return report.notes, report.overlap


def shifted(**changes):
    """A data set of other images and groups."""

    def change(split):
        groups = np.char.add("other-", split.groups)
        return split._replace(images=split.images ^ 255, groups=groups)

    return make_spec(FakeLoader(change=change), name="other", **changes)


def test_data_without_anything_to_say_have_no_overlap(tmp_path):
    assert described(tmp_path, shifted(), make_spec()) == ((), {"handwriting": "no"})


def test_images_of_a_target_among_training_images_of_a_source_are_told(tmp_path):
    def change(split):
        if split.groups[0].startswith("train"):
            split.images[2] = get(make_spec(), tmp_path / "fake").splits["test"].images[4]
        else:
            split.images[:] ^= 255
        return split._replace(groups=np.char.add("other-", split.groups))

    notes, overlap = described(
        tmp_path, make_spec(FakeLoader(change=change), name="other"), make_spec()
    )
    assert overlap == {"handwriting": "yes"}
    of_test, of_train = notes
    assert of_test == (
        "target:handwriting: 1 of its 6 test images are also training images of source:source, "
        "pixel by pixel, such as number 4 (test-2), which is number 2 (other-train-1) there"
    )
    assert of_train == (
        "target:handwriting: 5 of its 6 train images are also training images of source:source, "
        "pixel by pixel, such as number 0 (train-0), which is number 0 (other-train-0) there"
    )


@pytest.mark.parametrize(("name", "overlap"), [("fake", "yes"), ("another", "no")])
def test_groups_of_a_target_are_sought_in_sources_of_the_same_plugin(tmp_path, name, overlap):
    def change(split):
        groups = np.array([group.replace("train", "test") for group in split.groups])
        return split._replace(images=split.images ^ 255, groups=groups)

    def only_train(split):
        return split if split.groups[0].startswith("test") else change(split)

    source = make_spec(FakeLoader(change=only_train), name=name, shared_between_splits="all")
    target = make_spec(version=2)
    notes, overlaps = described(tmp_path / name, source, target)
    assert overlaps == {"handwriting": overlap}
    line = (
        "target:handwriting: 3 group(s) of its test images by pair are among the training images "
        "of source:source, such as test-0"
    )
    assert (line in notes) == (overlap == "yes")


def test_equal_images_of_other_data_are_told(tmp_path):
    def change(split):
        split.images[3] = split.images[0]
        return split

    (note,), _ = described(tmp_path, shifted(), make_spec(FakeLoader(change=change)))
    assert note == (
        "target:handwriting: dataset 'fake': 2 of 6 training images are equal pixel by pixel to "
        "one of another group; they may be held out for validation one without the other"
    )


def test_a_declared_share_stands_among_the_notes(tmp_path):
    target = make_spec(in_test(copied), shared_between_splits="two writers came back")
    (note,), _ = described(tmp_path, shifted(), target)
    assert note == (
        "target:handwriting: dataset 'fake': splits 'train' and 'test' share images pixel by "
        "pixel: 2 of 6 in 'test', such as number 1 of 'test' (test-0) and number 5 of 'train' "
        "(train-2) (two writers came back)"
    )


def test_classes_without_test_images_are_told(tmp_path):
    notes, _ = described(tmp_path, shifted(), make_spec(), test_limit=2)
    (note,) = notes
    assert note == (
        "target:handwriting: its 2 test images lack 1 of the 3 classes: c; raise "
        "targets.handwriting.test_limit"
    )


def test_labels_that_no_test_image_can_judge_are_told(tmp_path):
    def change(split):
        rows = np.eye(3, dtype=np.float32)[split.labels]
        rows[:, 1] = 1
        return split._replace(labels=rows)

    target = make_spec(FakeLoader(change=change), task="multi-label", metric="auc")
    (note,), _ = described(tmp_path, shifted(), target)
    assert note == (
        "target:handwriting: its 6 test images are all alike in 1 of the 3 labels, which its "
        "metric leaves out: b"
    )


# --- where it is said ---------------------------------------------------------------------------


def test_the_plan_says_it(tmp_path, grouped):
    grouped.write_text(GROUPED.replace("len(sizes)).int", "0).int").replace("SHARED", "as drawn"))
    target = {"dataset": {"name": "grouped"}, "labels_per_class": 2, "validation": 0.5}
    plan = planned(tmp_path, target, [grouped])
    assert any("share images pixel by pixel: 20 of 20" in note for note in plan.notes)
    assert plan.data.overlap == {"handwriting": "no"}
    said = cli("show", "dataset", "grouped", "--plugin", grouped)
    assert re.search(r"^shared between splits +as drawn$", said.out, re.MULTILINE)
    grouped.write_text(grouped.read_text().replace("as drawn", ""))
    with pytest.raises(PluginError, match="dataset 'grouped': splits 'train' and 'test' share"):
        planned(tmp_path / "again", target, [grouped])


def test_the_report_and_the_board_say_it(tmp_path):
    registry = handmade_registry(tmp_path)
    make_run(tmp_path, registry)
    job = json.loads((tmp_path / "run" / "run.json").read_text())["jobs"][0]["id"]
    Store(tmp_path / "store").record_failure(job, "trial", "failed", "so that it is their store")
    page = Run(tmp_path / "run", registry).report().read_text()
    assert "<h2>Data</h2>" in page
    assert "<li>target:digits: a note</li>" in page
    suite = Suite.model_validate(SUITE)
    assert not [note for note in notes_of(suite, None, registry) if note.startswith("Dataset")]
    file = tmp_path / "made.py"
    declared = '"grouping": "none", "shared_between_splits": "as drawn"'
    file.write_text(file.read_text().replace('"grouping": "none"', declared))
    note = "Dataset made-digits is published with images or groups in two splits: as drawn."
    assert note in notes_of(suite, None, load_registry([file]))
