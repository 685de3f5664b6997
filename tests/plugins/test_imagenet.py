"""ImageNet: class folders, flat validation pictures with each form of list, and other test sets."""

from __future__ import annotations

import pytest
from official_layouts import draw, labels_by_group, loaded, prepared, refused
from pydantic import ValidationError

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets.imagenet import IMAGENET

SYNSETS = ("n01440764", "n01443537", "n02085620")
ORDER = (SYNSETS[2], SYNSETS[0], SYNSETS[1])
"""The challenge numbers its synsets in another order."""
FLAT = {"val_list": "truth.txt"}


def folders(folder, names, count=2):
    for name in names:
        for index in range(count):
            draw(folder / name / f"{name}_{index}.JPEG")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "imagenet"
    folders(folder / "train", SYNSETS)
    folders(folder / "val", SYNSETS, 1)
    return folder


@pytest.fixture
def flat(root):
    """Three validation pictures without folders, of the classes 2, 0 and 1."""
    for index, path in enumerate(sorted((root / "val").glob("*/*"))):
        path.rename(root / "val" / f"ILSVRC2012_val_0000000{index + 1}.JPEG")
    for name in SYNSETS:
        (root / "val" / name).rmdir()
    return root


@pytest.fixture
def fault(root, tmp_path):
    return lambda **params: refused(IMAGENET, root.parent, tmp_path, **params)


def test_sorted_synsets_are_the_indices(root, tmp_path):
    (root / "train" / "readme.txt").touch()
    (root / "train" / SYNSETS[0] / "list.txt").touch()
    data = prepared(IMAGENET, root.parent, tmp_path)
    assert data.classes == SYNSETS
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.splits["test"].groups[0] == "val/n01440764/n01440764_0.JPEG"
    assert data.notes == ("3 classes; pictures: 6 for train, 3 for test",)


@pytest.mark.parametrize(
    ("truth", "params"),
    [
        ("\n".join(SYNSETS[index] for index in (2, 0, 1)), {}),
        ("".join(f"ILSVRC2012_val_0000000{n}.JPEG {label}\n" for n, label in
                 ((2, 0), (3, 1), (1, 2))), {}),
        ("".join(f"ILSVRC2012_val_0000000{n}.JPEG {SYNSETS[label]}\n" for n, label in
                 ((1, 2), (2, 0), (3, 1))), {}),
        ("1\n2\n3\n", {"meta_list": "meta.txt"}),
    ],
    ids=["synsets", "caffe", "names and synsets", "the challenge's numbers"],
)  # fmt: skip
def test_flat_pictures_have_their_classes_in_a_list(flat, truth, params):
    (flat / "truth.txt").write_text(truth)
    (flat / "meta.txt").write_text("".join(f"{synset} 5 fish\n" for synset in ORDER))
    labels = labels_by_group(IMAGENET, flat, "test", **FLAT, **params)
    assert labels == {
        f"val/ILSVRC2012_val_0000000{number}.JPEG": label
        for number, label in ((1, 2), (2, 0), (3, 1))
    }


@pytest.mark.parametrize("test", ["r", "a"])
def test_subsets_have_classes_of_their_own(root, tmp_path, test):
    folders(root / f"imagenet-{test}", SYNSETS[1:], 1)
    data = prepared(IMAGENET, root.parent, tmp_path, test=test)
    assert data.classes == SYNSETS[1:]
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1]
    assert data.splits["train"].groups[0].startswith("train/n01443537/")


def test_other_test_sets_are_read_as_they_unpack(root):
    folders(root / "sketch", SYNSETS, 1)
    folders(root / "imagenetv2-matched-frequency-format-val", ("0", "1", "2"), 1)
    folders(root / "imagenet-c" / "noise" / "shot_noise" / "3", SYNSETS, 1)
    folders(root / "imagenet-c" / "fog" / "5", SYNSETS, 1)
    sketches = labels_by_group(IMAGENET, root, "test", test="sketch")
    assert sketches["sketch/n02085620/n02085620_0.JPEG"] == 2
    for params in (
        {"test": "v2"},
        {"test": "c", "corruption": "shot_noise"},
        {"test": "c", "corruption": "fog", "severity": 5},
    ):
        assert loaded(IMAGENET, root, "test", **params).labels.tolist() == [0, 1, 2]


def test_the_folders_of_numbers_are_in_the_order_of_numbers(root):
    more = [f"n{index:08d}" for index in range(3_000_000, 3_000_008)]
    folders(root / "train", more, 1)
    folders(root / "imagenetv2-matched-frequency-format-val", map(str, range(11)), 1)
    labels = labels_by_group(IMAGENET, root, "test", test="v2")
    assert labels["imagenetv2-matched-frequency-format-val/10/10_0.JPEG"] == 10


# --- mistakes -------------------------------------------------------------------------------------


def test_folders_at_the_wrong_level_are_pointed_at(root, fault):
    (root / "train").rename(root / "moved")
    assert f"there is no folder {root}/train" in fault()
    (root / "train").mkdir()
    (root / "moved").rename(root / "train" / "train")
    assert "expected class folders such as n01440764 in " in fault()
    assert "has train/: those in train/ belong one level up" in fault()


def test_the_folders_of_the_challenge_are_pointed_at(root, fault):
    deeper = root / "ILSVRC" / "Data" / "CLS-LOC"
    deeper.mkdir(parents=True)
    for name in ("train", "val"):
        (root / name).rename(deeper / name)
    assert "but ILSVRC/Data/CLS-LOC/train: give the parameters train: ILSVRC/Data/CLS" in fault()
    there = {"train": "ILSVRC/Data/CLS-LOC/train", "test_folder": "ILSVRC/Data/CLS-LOC/val"}
    assert loaded(IMAGENET, root, "test", **there).labels.tolist() == [0, 1, 2]


def test_archives_that_are_not_unpacked_are_said(root, fault):
    (root / "new").mkdir()
    (root / "new" / "n01440764.tar").touch()
    assert "unpack the archive of each class into a folder of its name" in fault(train="new")


def test_flat_pictures_without_a_list_are_said(flat, tmp_path):
    message = refused(IMAGENET, flat.parent, tmp_path)
    assert f"3 of 3 class folders are not in {flat}/val, such as n01440764; " in message
    assert "in no class folders: name the list of their classes in val_list" in message


def test_a_missing_or_empty_class_is_named(root, fault):
    (root / "val" / SYNSETS[1] / f"{SYNSETS[1]}_0.JPEG").unlink()
    assert f"val/{SYNSETS[1]} has no pictures: add them" in fault()
    (root / "val" / SYNSETS[1]).rmdir()
    assert f"1 of 3 class folders are not in {root}/val, such as {SYNSETS[1]}; " in fault()


def test_a_subset_of_classes_that_training_lacks_is_refused(root, fault):
    folders(root / "imagenet-r", (SYNSETS[0], "n09999999"), 1)
    assert "imagenet-r has the classes n09999999, which " in fault(test="r")


@pytest.mark.parametrize(
    ("truth", "params", "message"),
    [
        ("1\n2\n3\n", {}, "has numbers from 1 to 3: those of ILSVRC2012_validation_ground_truth"),
        ("1\n2\n4\n", {"meta_list": "meta.txt"}, "from 1 to 4, and meta.txt has 3 lines"),
        ("1\n2\n3\n", {"meta_list": "odd.txt"}, "odd.txt names 'fish', which is no folder of"),
        ("cat\ndog\nemu\n", {}, "has the class 'cat', which is no folder of the training"),
        ("0\n1\n", {}, "truth.txt has 2 classes, and "),
        ("a b c\n", {}, "lines of truth.txt must have a class, or a picture and a class"),
        ("", {}, "truth.txt is empty"),
        ("x.JPEG 0\n", {}, "1 of its pictures are not there, such as "),
    ],
)
def test_a_list_of_another_form_is_refused(flat, tmp_path, truth, params, message):
    (flat / "truth.txt").write_text(truth)
    (flat / "meta.txt").write_text("\n".join(ORDER))
    (flat / "odd.txt").write_text("fish\n")
    assert message in refused(IMAGENET, flat.parent, tmp_path, **FLAT, **params)


def test_a_list_that_is_not_there_is_said(flat, tmp_path):
    message = refused(IMAGENET, flat.parent, tmp_path, **FLAT)
    assert f"{flat}/truth.txt cannot be read (No such file or directory)" in message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"test": "c"}, "test: c needs one"),
        ({"corruption": "fog"}, "corruption goes with test: c"),
        ({"test": "r", "val_list": "x.txt"}, "the other test sets have class folders"),
    ],
)
def test_parameters_of_other_test_sets_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        IMAGENET.parse(params)


def test_it_conforms(root):
    results = check_plugin(IMAGENET, data_root=root.parent)
    assert [result.message for result in results if not result.ok] == []
