"""CheXpert: policies per finding, splits by patient and as the paper has them, preprocessing."""

from __future__ import annotations

import csv
from typing import get_args

import numpy as np
import pytest
from documentation import text_of
from official_layouts import draw, loaded, prepared, refused
from PIL import Image

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets._binary_labels import Policy
from transferbench_plugins.datasets._radiographs import blurred, equalised, prepared_radiograph
from transferbench_plugins.datasets.chexpert import CHEXPERT, COLUMNS, FINDINGS

HEADER = list(COLUMNS)
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")


def row(patient, view, side="AP", folder="CheXpert-v1.0-small", part="train", **values):
    path = f"{folder}/{part}/patient{patient:05d}/study1/view{view}.jpg"
    frontal = "Lateral" if not side else "Frontal"
    named = {name.replace(" ", "_"): name for name in FINDINGS}
    findings = {named[name]: value for name, value in values.items()}
    return [path, "Female", "68", frontal, side, *(findings.get(name, "") for name in FINDINGS)]


ROWS = [
    row(1, 1, Cardiomegaly="1.0", Edema="-1.0"),
    row(1, 2, "", Cardiomegaly="-1.0", Edema="0.0"),
    row(2, 1, Consolidation="-1.0", Atelectasis="-1.0"),
    row(3, 1, "PA", Consolidation="1.0"),
    row(4, 1, "PA", Pleural_Effusion="-1.0", Edema="1.0"),
    row(5, 1, Atelectasis="1.0"),
    row(6, 1, Cardiomegaly="0.0"),
    row(7, 1, "", Edema="1.0"),
]


def write(root, name, rows, folder="CheXpert-v1.0-small", header=HEADER):
    for content in rows:
        draw(root / content[0], mode="L")
    (root / folder).mkdir(parents=True, exist_ok=True)
    with (root / folder / f"{name}.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "chexpert"
    write(folder, "train", ROWS)
    write(folder, "valid", [row(64541, 1, part="valid"), row(64542, 1, part="valid", Edema="1.0")])
    return folder


@pytest.fixture
def fault(root, tmp_path):
    return lambda **params: refused(CHEXPERT, root.parent, tmp_path, **params)


def all_labels(root, **params):
    """The labels of all training rows, in the table's order."""
    return loaded(CHEXPERT, root, split="official", **params).labels.tolist()


# --- labels ---------------------------------------------------------------------------------------


def test_uncertain_values_count_as_in_the_paper(root):
    assert all_labels(root) == [
        [1, 1, 0, 0, 0],  # uncertain Edema is one
        [0, 0, 0, 0, 0],  # uncertain Cardiomegaly is zero
        [0, 0, 0, 1, 0],  # uncertain Atelectasis is one, Consolidation zero
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
    ]


def test_each_finding_has_its_policy(root):
    policies = {"Edema": "zero", "Cardiomegaly": "one", "Consolidation": "drop"}
    labels = all_labels(root, uncertain=policies)
    assert len(labels) == len(ROWS) - 1
    assert [row[:2] for row in labels[:2]] == [[1, 0], [1, 0]]
    assert len(all_labels(root, findings=["Edema"], blank="drop")) == 4


def test_any_of_the_findings_may_be_the_labels(root, tmp_path):
    data = prepared(CHEXPERT, root.parent, tmp_path, split="official", findings=["Edema"])
    assert data.classes == ("Edema",)
    assert (data.task, data.metric) == ("multi-label", "auc")
    assert data.splits["test"].labels.tolist() == [[0], [1]]
    assert data.splits["test"].groups.tolist() == ["patient64541", "patient64542"]


def test_an_ignored_uncertain_value_is_unknown(root):
    """The uncertain rows stay, each without that label alone; the paper's policies for others."""
    ones, unknown = (all_labels(root, uncertain={"Edema": policy}) for policy in ("one", "ignore"))
    gaps = np.isnan(unknown)
    assert gaps.any(axis=0).tolist() == [False, True, False, False, False]
    assert (np.array(ones)[gaps] == 1).all()
    assert np.array_equal(np.array(ones)[~gaps], np.array(unknown)[~gaps])


def test_an_unknown_finding_does_not_count_a_picture_once_more(root):
    repeated = {"repeated": ["Cardiomegaly", "Consolidation"]}
    ignored = {"uncertain": {"Cardiomegaly": "ignore", "Consolidation": "ignore"}}
    assert len(all_labels(root, **repeated)) == len(all_labels(root, **repeated, **ignored))


def test_pictures_of_rare_findings_may_count_once_more(root):
    repeated = {"repeated": ["Cardiomegaly", "Consolidation"]}
    # Rows 1 and 4 are positive; uncertain ones of these findings count as zero.
    assert len(all_labels(root, **repeated)) == len(ROWS) + 2
    groups = loaded(CHEXPERT, root, split="official", **repeated).groups.tolist()
    assert groups[:3] == ["patient00001", "patient00001", "patient00001"]
    assert len(loaded(CHEXPERT, root, "test", split="official", **repeated).labels) == 2


# --- splits ---------------------------------------------------------------------------------------


def test_no_patient_is_in_two_splits(root, tmp_path):
    data = prepared(CHEXPERT, root.parent, tmp_path, test_share=0.4)
    train, test = (set(data.splits[name].groups.tolist()) for name in ("train", "test"))
    assert not train & test
    assert len(train | test) == 7
    assert data.notes[0].startswith("CheXpert-v1.0-small: ")
    assert "patients" in data.notes[0]


@pytest.mark.parametrize(
    ("view", "patients"), [("frontal", 6), ("lateral", 2), ("AP", 4), ("PA", 2), ("all", 7)]
)
def test_views_are_chosen(root, view, patients):
    groups = loaded(CHEXPERT, root, split="official", view=view).groups
    assert len(set(groups.tolist())) == patients


def test_the_papers_split_permutes_the_rows_and_says_that_it_leaks(root, tmp_path):
    order = np.random.RandomState(1234).permutation(len(ROWS))
    assert CHEXPERT.shared_between_splits == ""
    data = prepared(CHEXPERT, root.parent, tmp_path, split="paper")
    patients = [content[0].split("/")[2] for content in ROWS]
    assert data.splits["train"].groups.tolist() == [patients[i] for i in order[:4]]
    assert data.splits["test"].groups.tolist() == [patients[i] for i in order[4:]]
    leak = CHEXPERT.with_params(CHEXPERT.parse({"split": "paper"})).shared_between_splits
    assert leak.startswith("the paper's code splits by picture")


def test_the_page_names_what_an_uncertain_finding_may_count_as():
    page = text_of("docs/how-to/datasets.md").partition("\n## CheXpert\n")[2]
    section = page.partition("\n## ")[0]
    assert [policy for policy in get_args(Policy) if f"`{policy}`" not in section] == []


# --- preprocessing --------------------------------------------------------------------------------


def test_equalising_maps_levels_by_their_cumulative_count():
    grey = np.array([[10, 10, 20], [20, 30, 200]], np.uint8)
    # c = 2, 4, 5, 6; (c - 2) / (6 - 2) * 255 = 0, 127.5, 191.25, 255
    assert equalised(grey).tolist() == [[0, 0, 128], [128, 191, 255]]
    blank = np.full((2, 2), 7, np.uint8)
    assert equalised(blank).tolist() == blank.tolist()


def test_blurring_is_a_convolution_with_a_mirrored_border():
    from scipy import ndimage

    grey = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    exact = grey.astype(np.float64)
    for axis in (0, 1):
        exact = ndimage.convolve1d(exact, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
    assert blurred(grey).tolist() == np.floor(exact + 0.5).astype(int).tolist()
    assert blurred(np.full((1, 3), 9, np.uint8)).tolist() == [[9, 9, 9]]


def test_the_papers_preprocessing_pads_to_a_square(root, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 4)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "tall.png")
    square = prepared_radiograph(tmp_path / "tall.png")
    assert square.shape == (8, 8)
    assert np.all(square[:, 4:] == 128)
    assert np.array_equal(square[:, :4], blurred(equalised(picture)))
    Image.fromarray(picture.T).save(tmp_path / "wide.png")
    assert np.array_equal(prepared_radiograph(tmp_path / "wide.png"), square.T)
    images = loaded(CHEXPERT, root, split="official", preprocessing="paper").images
    expected = prepared_radiograph(root / ROWS[0][0])
    assert np.array_equal(images[0, ..., 0], expected)


# --- mistakes -------------------------------------------------------------------------------------


def test_the_full_version_has_other_paths(root, fault):
    full = [row(1, 1, folder="CheXpert-v1.0"), row(2, 1, folder="CheXpert-v1.0", Edema="1.0")]
    write(root, "train", full, folder="CheXpert-v1.0")
    write(root, "valid", full[:1], folder="CheXpert-v1.0")
    assert len(all_labels(root, version="v1.0")) == 2
    write(root, "train", ROWS, folder="CheXpert-v1.0")
    assert (
        f"line 2 of {root}/CheXpert-v1.0/train.csv has the path '{ROWS[0][0]}', expected "
        "CheXpert-v1.0/...: it is the table of another version; give the parameter version"
    ) in fault(version="v1.0")


def test_a_folder_at_the_wrong_level_is_pointed_at(root, fault):
    assert "CheXpert-v1.0/train.csv, but version v1.0-small: set the parameter" in fault(
        version="v1.0"
    )
    small = root / "CheXpert-v1.0-small"
    small.rename(root / "moved")
    assert f"{root} has moved/, expected CheXpert-v1.0-small/" in fault()
    for path in list((root / "moved").iterdir()):
        path.rename(root / path.name)
    assert f"but {root}/train.csv: put all of it into a folder CheXpert-v1.0-small there" in fault()


def test_a_folder_one_level_down_and_batches_of_the_complete_version_are_named(root, fault):
    (root / "archive").mkdir()
    (root / "CheXpert-v1.0-small").rename(root / "archive" / "CheXpert-v1.0-small")
    assert "but one in archive/: move CheXpert-v1.0-small one level up" in fault()
    (root / "CheXpert-v1.0 batch 2 (train 1)").mkdir()
    assert (
        "but the batches of the complete version: put the folders of patients into "
        "CheXpert-v1.0/train and /valid, and the tables beside these"
    ) in fault(version="v1.0")


def test_a_table_of_other_columns_or_values_is_refused(root, fault):
    write(root, "train", ROWS, header=["Path", *HEADER[1:-1], "Support Device"])
    assert "train.csv has no column 'Support Devices': get it again" in fault()
    write(root, "train", [*ROWS, row(8, 1, Edema="2.0")])
    assert "line 10 of " in fault(split="official")
    assert "has '2.0' in column 'Edema', expected 0 or 1" in fault(split="official")
    write(root, "train", [["CheXpert-v1.0-small/train/p1/view1.jpg", *ROWS[0][1:]], *ROWS])
    assert "line 2 of " in fault()
    assert "has a path without a patient, expected .../patient00001/...: get it again" in fault()


def test_missing_pictures_are_counted(root, fault):
    (root / ROWS[0][0]).unlink()
    assert "1 of its pictures are not there, such as " in fault(split="official")
    assert "unpack CheXpert-v1.0-small.zip again" in fault(split="official")


def test_a_view_that_no_picture_has_is_refused(root, fault):
    write(root, "valid", [row(64541, 1, part="valid")])
    assert "is in the split 'test' with the chosen views and policies" in fault(
        split="official", view="lateral"
    )


@pytest.mark.parametrize("params", [{"test_share": 0.4}, {"split": "paper"}])
def test_it_conforms(root, params):
    labelled = params | {"findings": ["Edema"]}
    results = check_plugin(CHEXPERT, params=labelled, data_root=root.parent)
    assert [result.message for result in results if not result.ok] == []
