"""Equal training images in several groups are on one side of the validation split."""

from __future__ import annotations

import json
import shutil

import handmade_run
import numpy as np
import pytest
from handmade_run import SUITE, handmade_registry, submit
from hypothesis import given
from hypothesis import strategies as st
from noise_pictures import noise_pictures
from tiny_suite import tiny_suite

from transferbench.data.decoded import PreparedSplit
from transferbench.data.duplicates import image_digests, joined_groups
from transferbench.data.splits import planned_training
from transferbench.plan.resolve import resolve_suite
from transferbench.runner.datasets import prepare_datasets
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.specs import DatasetSpec
from transferbench.submission import check


def split_of(labels, groups, values=None):
    """A split of images that are filled with values each, of one pixel more than a blank one."""
    images = np.zeros((len(labels), 2, 1, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels)) if values is None else values
    images[:, 1] = 255
    return PreparedSplit(images, labels, groups, "", image_digests(images), None)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=1, max_size=40))
def test_groups_with_an_equal_image_are_one(pairs):
    """Against merging two groups after another until none is left."""
    groups, values = map(np.array, zip(*pairs, strict=True))
    split = split_of(np.zeros(len(pairs)), groups, values)
    merged = [{group} for group in sorted(set(groups.tolist()))]
    for value in set(values.tolist()):
        own = set(groups[values == value].tolist())
        touched = [each for each in merged if each & own]
        merged = [each for each in merged if not each & own] + [set.union(*touched)]
    first = {group: min(each) for each in merged for group in each}
    joined = joined_groups(groups, split.digests, split.images.shape[1:])
    assert joined.tolist() == [first[group] for group in groups.tolist()]
    assert joined.dtype == groups.dtype


def test_blank_images_join_no_groups():
    blank = np.full((2, 2, 1, 1), 255, np.uint8)
    groups = np.array(["a", "b"])
    assert joined_groups(groups, image_digests(blank), blank.shape[1:]).tolist() == ["a", "b"]
    blank[:, 0] = 1
    assert joined_groups(groups, image_digests(blank), blank.shape[1:]).tolist() == ["a", "a"]


def folder_of_pictures(root, copies):
    """Ten pictures of two classes to train; so many of each class are copies of another."""
    noise_pictures(root, {"train": 10, "test": 4}, "ab")
    for name in "ab":
        path = root / "image-folder" / "train" / name
        for number in range(copies):
            shutil.copy(path / f"{number}.png", path / f"copy-{number}.png")
    return root


@pytest.fixture(params=[0, 5])
def planned(tmp_path, request):
    """A plan on a folder with so many copies in each class, and its training images."""
    target = {"dataset": {"name": "image-folder", "params": {"train": "train", "test": "test"}},
              "validation": 0.4}  # fmt: skip
    suite = tiny_suite(targets={"handwriting": target})
    options = Options(out=tmp_path / "run", device="cpu",
                      data_root=folder_of_pictures(tmp_path / "data", request.param))  # fmt: skip
    plan = plan_suite(suite, options)
    resolved = resolve_suite(suite, plan.registry)
    datasets = prepare_datasets(resolved, plan.store, options, plan.registry)
    return request.param, plan, datasets["target:handwriting"].splits["train"]


def selections(plan):
    return [job.payload["selection"] for job in plan.plan.jobs.values() if job.kind == "trial"]


def test_equal_pictures_are_told_and_part_of_ids_where_there_are_any(planned):
    copies, plan, _ = planned
    sentence = (
        "target:handwriting: dataset 'image-folder': 20 of 30 training images are equal pixel by "
        "pixel to one of another group; they are held out for validation together"
    )
    notes = [note for note in plan.notes if "equal pixel by pixel" in note]
    assert notes == ([sentence] if copies else [])
    expected = {"together"} if copies else {None}
    assert {selection.get("copies") for selection in selections(plan)} == expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_picture_in_two_classes_is_told(tmp_path, split):
    root = noise_pictures(tmp_path / "data", {"train": 10, "test": 4}, "ab")
    folder = root / "image-folder" / split
    shutil.copyfile(folder / "a" / "0.png", folder / "b" / "0.png")
    dataset = {"name": "image-folder", "params": {"train": "train", "test": "test"}}
    target = {"dataset": dataset, "validation": 0.0}
    plan = plan_suite(tiny_suite(targets={"handwriting": target}),
                      Options(data_root=root, out=tmp_path / "run", device="cpu"))  # fmt: skip
    count = {"train": 20, "test": 8}[split]
    expected = (
        f"2 of {count} images of the split {split!r} are equal pixel by pixel to one of another "
        "class"
    )
    assert [note for note in plan.notes if "another class" in note] == [
        f"target:handwriting: dataset 'image-folder': {expected}"
    ]


def test_chance_below_guessing_is_told(tmp_path):
    root = noise_pictures(tmp_path / "data", {"train": 10, "test": 4}, "ab")
    dataset = {"name": "image-folder", "params": {"train": "train", "test": "test"}}
    target = {"dataset": dataset, "validation": 0.0}
    plan = plan_suite(tiny_suite(targets={"handwriting": target}),
                      Options(data_root=root, out=tmp_path / "run", device="cpu"))  # fmt: skip
    (note,) = (note for note in plan.notes if "chance" in note)
    assert note == (
        "target:handwriting: scoring.chance is 0.1, and guessing among its 2 classes gives 0.5: "
        "the scores are too high; give that, or data (--set scoring.chance.handwriting=data)"
    )


def test_equal_pictures_are_on_one_side_of_the_validation_split(planned):
    copies, plan, train = planned

    def divided(selection):
        sides = planned_training(train, selection, ("a", "b"))
        assert sum(map(len, sides)) == len(train.labels)
        learned, held_out = (set(train.digests[side].tolist()) for side in sides)
        return bool(learned & held_out)

    selection = selections(plan)[0]
    former = {key: value for key, value in selection.items() if key != "copies"}
    assert not any(divided(selection | {"seed": seed}) for seed in range(8))
    assert any(divided(former | {"seed": seed}) for seed in range(8)) == bool(copies)


def test_a_submission_says_that_equal_images_were_held_out_together(tmp_path, monkeypatch):
    facts = handmade_run.FACTS["target:digits"]
    monkeypatch.setitem(handmade_run.FACTS, "target:digits", facts._replace(joins_copies=True))
    monkeypatch.setattr(DatasetSpec, "reads_users_folder", True)  # whose copies alone are joined
    registry = handmade_registry(tmp_path)
    suite = json.loads(json.dumps(SUITE))
    suite["targets"]["digits"]["validation"] = 0.1
    (packed,) = submit(tmp_path, registry, tmp_path / "s", suite=suite)
    assert '"copies": "together"' in (packed / "plan.json").read_text()
    assert [each.name for each in check(packed, registry).checks if each.status == "failed"] == []
