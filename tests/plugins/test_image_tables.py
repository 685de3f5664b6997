"""Images listed in tables: which rows are which split, what labels mean, and each mistake."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from official_layouts import draw, labels_by_group, loaded, prepared, refused
from pydantic import ValidationError

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets.image_table import IMAGE_TABLE

CSV = """path,label,person,side,site
a/0.png,cat,p0,train,x
a/1.png,dog,p0,train,x
a/2.png,cat,p1,val,y
a/3.png,dog,p1,val,x
a/4.png,cat,p2,train,y
a/5.png,dog,p3,train,x
"""
FINDINGS = """path,edema,mass,side
0.png,1.0,0,train
1.png,-1.0,1,train
2.png,0,,train
3.png,0.0,1,test
4.png,1,0,test
"""
SIDES = {"split": "side", "test_values": ["val"]}
BOTH = {"labels": ["edema", "mass"], "split": "side"}
POLICIES = {"uncertain": {"edema": "one"}, "blank": "zero"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "image-table"
    for index in range(6):
        draw(folder / "a" / f"{index}.png")
        draw(folder / f"{index}.png")
    (folder / "labels.csv").write_text(CSV)
    (folder / "findings.csv").write_text(FINDINGS)
    return folder


@pytest.fixture
def get(root, tmp_path):
    return lambda **params: prepared(IMAGE_TABLE, root.parent, tmp_path, **params)


@pytest.fixture
def fault(root, tmp_path):
    return lambda **params: refused(IMAGE_TABLE, root.parent, tmp_path, **params)


def test_a_column_says_the_split_and_another_the_group(get):
    data = get(**SIDES, group="person")
    assert data.classes == ("cat", "dog")
    assert (data.task, data.metric) == ("multi-class", "accuracy")
    assert data.splits["train"].labels.tolist() == [0, 1, 0, 1]
    assert data.splits["train"].groups.tolist() == ["p0", "p0", "p2", "p3"]
    assert data.splits["test"].groups.tolist() == ["p1", "p1"]
    assert data.notes == ("'labels.csv': 6 rows, of which 4 for train, 2 for test",)


def test_a_share_of_the_groups_is_for_testing_and_new_rows_move_none(root):
    def persons(split):
        return set(loaded(IMAGE_TABLE, root, split, group="person", test_share=0.5).groups.tolist())

    before = {split: persons(split) for split in ("train", "test")}
    assert not before["train"] & before["test"]
    assert before["train"] | before["test"] == {"p0", "p1", "p2", "p3"}
    draw(root / "a" / "6.png")
    (root / "labels.csv").write_text(CSV + "a/6.png,cat,p9,train,x\n")
    assert all(before[split] <= persons(split) for split in before)


def test_rows_are_filtered_by_the_values_of_columns(root):
    some = {"site": "x", "person": ["p0", "p1", "p3"]}
    expected = {"a/0.png": 0, "a/1.png": 1, "a/5.png": 1}
    assert labels_by_group(IMAGE_TABLE, root, **SIDES, where=some) == expected


def test_classes_may_be_named_in_an_order(root):
    named = labels_by_group(IMAGE_TABLE, root, **SIDES, classes=["dog", "cat", "emu"])
    assert named == {"a/0.png": 1, "a/1.png": 0, "a/4.png": 1, "a/5.png": 0}


def test_numbers_are_classes_in_their_order(root):
    lines = [f"{index}.png {label}" for index, label in enumerate([10, 9, 10, 9, 10, 9])]
    (root / "list.txt").write_text("\n".join(lines[:4]))
    (root / "test.txt").write_text("\n".join(lines[4:]))
    params = {"table": "list.txt", "test": "test.txt", "columns": ("path", "label")}
    parsed = IMAGE_TABLE.parse(params)
    assert IMAGE_TABLE.classes(parsed, root) == ("9", "10")
    expected = {"0.png": 1, "1.png": 0, "2.png": 1, "3.png": 0}
    assert labels_by_group(IMAGE_TABLE, root, **params) == expected
    assert labels_by_group(IMAGE_TABLE, root, "test", **params) == {"4.png": 1, "5.png": 0}


def test_a_list_may_have_paths_with_spaces(root):
    draw(root / "Real World" / "0.png")
    draw(root / "Real World" / "1.png")
    (root / "list.txt").write_text("Real World/0.png 0\n\n0.png 1\n")
    (root / "test.txt").write_text("Real World/1.png 0\n1.png 1\n")
    params = {"table": "list.txt", "test": "test.txt", "columns": ("path", "label")}
    assert labels_by_group(IMAGE_TABLE, root, **params) == {"Real World/0.png": 0, "0.png": 1}


def test_tabs_packed_files_and_parts_of_paths(root):
    text = "id\tlabel\n0\tcat\n1\tdog\n"
    (root / "train.tsv.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    (root / "test.tsv").write_text("id\tlabel\n2\tcat\n3\tdog\n")
    params = {"table": "train.tsv.gz", "test": "test.tsv", "path": "id", "prefix": "a/",
              "suffix": ".png"}  # fmt: skip
    split = loaded(IMAGE_TABLE, root, **params)
    assert np.array_equal(split.images[0], loaded(IMAGE_TABLE, root, **SIDES).images[0])


# --- several labels an image ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edema", "blank", "expected"),
    [
        ("one", "zero", [[1, 0], [1, 1], [0, 0]]),
        ("zero", "one", [[1, 0], [0, 1], [0, 1]]),
        ("drop", "zero", [[1, 0], [0, 0]]),
        ("zero", "drop", [[1, 0], [0, 1]]),
        ("ignore", "zero", [[1, 0], [None, 1], [0, 0]]),
        ("ignore", "drop", [[1, 0], [None, 1]]),
        ("drop", "drop", [[1, 0]]),
    ],
)
def test_uncertain_and_empty_values_count_as_the_policy_says(root, edema, blank, expected):
    params = BOTH | {"table": "findings.csv", "uncertain": {"edema": edema}, "blank": blank}
    labels = loaded(IMAGE_TABLE, root, **params).labels
    assert labels.dtype == np.float32
    assert np.array_equal(labels, np.array(expected, np.float32), equal_nan=True)


def test_several_labels_are_another_task(get):
    data = get(table="findings.csv", **BOTH, **POLICIES)
    assert data.classes == ("edema", "mass")
    assert (data.task, data.metric) == ("multi-label", "auc")


def test_a_picture_of_which_no_label_is_known_is_left_out(root):
    ignored = BOTH | {"labels": ["edema"], "uncertain": {"edema": "ignore"}}
    assert loaded(IMAGE_TABLE, root, table="findings.csv", **ignored).labels.tolist() == [[1], [0]]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"table": "lables.csv"}, "lables.csv; "),
        ({"label": "labell"}, "has no column 'labell'; did you mean 'label'?"),
        ({"split": "side"}, "has 'test' in column 'side', which has 'train', 'val': give test_va"),
        ({"where": {"site": "z"}}, "'z' in column 'site' and fits what else where asks for; it ha"),
        ({**SIDES, "classes": ("cat",)}, "line 3 of "),
        ({**SIDES, "classes": ("cat",)}, "has the class 'dog' in column 'label', which classes"),
        ({**SIDES, "prefix": "b/"}, "4 of its pictures are not there, such as "),
        ({**SIDES, "prefix": "../"}, "line 2 of "),
        ({"table": "findings.csv", **BOTH}, "has '-1.0' in column 'edema', expected 0 or 1: say "),
        ({"table": "findings.csv", **BOTH, "uncertain": {"edema": "one"}},
         "line 4 of "),
        ({"table": "findings.csv", **BOTH, "uncertain": {"edema": "one"}},
         "has '' in column 'mass', expected 0 or 1: say with the parameter blank what"),
        ({"test_share": 1e-9}, "with test_share 1e-09 no group of "),
    ],
)  # fmt: skip
def test_the_first_mismatch_is_said(fault, params, message):
    assert message in fault(**params)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.png\n", "line 2 of {} has 1 values, and there are 2 columns (path, label)"),
        ("path,label\n", "{} has no rows"),
        ("path,path\n0.png,1\n", "{} has two columns 'path'"),
        ("path,label\n0.png,cat\n0.png,dog\n", "lines 2 and 3 of {} have one path, '0.png'"),
        ("path,label,person\n0.png,cat,\n", "line 2 of {} has no group in column 'person'"),
        ("path,label\n0.png,cat\n1.png,\n", "line 3 of {} has no class in column 'label'"),
        ("path,label\n0.png,cat\n1.png,  \n", "line 3 of {} has no class in column 'label'"),
        (b"path,label\n\xff.png,1\n", "{} cannot be read as a table ('utf-8' codec"),
    ],
)
def test_a_table_that_is_none_is_refused(root, fault, text, message):
    (root / "own.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    group = {"group": "person"} if "person" in str(text) else {}
    assert message.format(root / "own.csv") in fault(table="own.csv", test="labels.csv", **group)


def test_rows_without_a_class_may_be_left_out(root):
    (root / "own.csv").write_text("path,label\n0.png,cat\n1.png,\n2.png,dog\n")
    params = {"table": "own.csv", "test": "labels.csv", "where": {"label": ["cat", "dog"]}}
    assert labels_by_group(IMAGE_TABLE, root, **params) == {"0.png": 0, "2.png": 1}


def test_a_table_that_is_not_there_is_named_with_what_is(root, fault):
    message = fault(table="lables.csv")
    assert f"there is no file {root}/lables.csv; {root} has a/, 0.png, " in message
    assert "labels.csv" in message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"test": "x.csv", "split": "side"}, "both say which rows are for testing"),
        ({"labels": ["a"], "classes": ["a"]}, "labels are named by their columns"),
        ({"labels": ["a"], "uncertain": {"b": "one"}}, "uncertain names b, which labels does not"),
        ({"train_values": ["x"], "test_values": ["x"]}, "both have x"),
        ({"table": "/etc/passwd"}, "must lie below the dataset's root"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        IMAGE_TABLE.parse(params)


@pytest.mark.parametrize("params", [SIDES, {"table": "findings.csv", **BOTH, **POLICIES}])
def test_it_conforms(root, params):
    results = check_plugin(IMAGE_TABLE, params=params, data_root=root.parent)
    assert [result.message for result in results if not result.ok] == []
    assert "every-class-is-learnable" in {r.check for r in results if r.status == "passed"}
