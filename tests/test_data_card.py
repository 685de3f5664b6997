"""The card of a dataset, and the images of a report."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from command_line import SMALL, cli, suite_file
from PIL import Image
from test_datacache import FakeLoader, get, make_spec
from test_planned_data import ResolvedDataset, ResolvedSuite, tiny_suite

from transferbench.api import Run
from transferbench.report.data import data_sections
from transferbench.runner.contact_sheet import read_sheets
from transferbench.runner.data_card import DataCard, SplitCard, card_table, data_cards
from transferbench.runner.folder import PICTURES


def card_of(tmp_path, change=None, **fields):
    spec = make_spec(FakeLoader(change=change or (lambda split: split)), **fields)
    label = "target:handwriting"
    resolved = ResolvedSuite(
        tiny_suite(), {label: ResolvedDataset({}, spec, spec.parse({}))}, {}, {}, {}
    )
    return data_cards(resolved, {label: get(spec, tmp_path)})[label]


def test_a_card_counts_images_classes_and_groups(tmp_path):
    card = card_of(tmp_path)
    train = card.splits["train"]
    assert (card.dataset, card.task, card.classes) == ("fake", "multi-class", ("a", "b", "c"))
    assert (train.images, sum(train.counts), train.copies, train.unknown) == (6, 6, 0, 0)
    assert 1 <= train.groups <= 6


def test_copies_and_imbalance_are_counted(tmp_path):
    def change(split):
        images = split.images.copy()
        images[3] = images[4] = images[0]
        labels = np.array([0, 1, 2, 0, 0, 0])
        groups = np.array([f"{split.groups[0]}-{n // 2}" for n in range(6)])
        return split._replace(images=images, labels=labels, groups=groups)

    card = card_of(tmp_path, change)
    assert card.splits["train"] == SplitCard(images=6, groups=3, counts=(4, 1, 1), copies=2)
    head, rows = card_table(card)
    assert head == ["split", "images", "groups", "smallest", "largest", "imbalance", "copies"]
    assert rows[0] == ["train", "6", "3", "b: 1", "a: 4", "4", "2"]


def test_unknown_labels_are_counted(tmp_path):
    def change(split):
        labels = np.eye(3, dtype=np.float32)[split.labels]
        labels[:2, 0] = np.nan
        return split._replace(labels=labels)

    card = card_of(tmp_path, change, task="multi-label", metric="auc")
    assert card.splits["train"].unknown == 2
    head, rows = card_table(card)
    assert (head[-1], rows[0][-1]) == ("unknown", "2")
    (section,) = data_sections({"target:x": card}, [])
    assert "labels of images that are not known" in section.splits.note


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    perturbations = {"none": {"name": "identity"},
                     "block-2": {"name": "block-shuffle", "params": {"block": 2}}}  # fmt: skip
    suite = suite_file(folder, SMALL, perturbations=perturbations)
    said = cli("prepare", suite, "--out", folder / "run")
    assert said.code == 0, said.err
    assert cli("run", suite, "--out", folder / "run", "--jobs", 1).code == 0
    return folder / "run", said.out


def test_preparing_prints_the_card(finished):
    _, said = finished
    assert "target:handwriting: digits, 10 classes; a group is one image" in said
    assert "licence: BSD-3-Clause (scikit-learn)" in said
    assert "train    1,437     1,437     8: 141      1: 146     1.04" in said


def test_the_report_has_test_images_whole_and_shuffled(finished):
    folder, _ = finished
    whole, shuffled = read_sheets(folder)
    assert (whole.perturbation, shuffled.perturbation) == ("none", "block-2")
    pixels = []
    for sheet in (whole, shuffled):
        content = base64.b64decode(sheet.data.partition(",")[2])
        pixels.append(np.asarray(Image.open(io.BytesIO(content)).convert("L")))
    assert pixels[0].shape == (8, 8 * 9 - 1)
    for cell in range(8):
        first, second = (sheet[:, cell * 9 : cell * 9 + 8] for sheet in pixels)
        assert not np.array_equal(first, second)
        assert np.array_equal(np.sort(first, None), np.sort(second, None))
    page = Run(folder).report().read_text()
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "Licence: BSD-3-Clause (scikit-learn); CC-BY-4.0 (UCI)." in page
    assert "8: 141" in page


def test_what_is_no_picture_never_reaches_the_report(finished, tmp_path):
    folder, _ = finished
    sheets = json.loads((folder / PICTURES).read_text())
    for data in (
        'x" onerror="alert(1)',
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AA",
    ):
        (tmp_path / PICTURES).write_text(json.dumps([sheets[0] | {"data": data}]))
        assert read_sheets(tmp_path) == ()
    (tmp_path / PICTURES).write_text("not JSON")
    assert read_sheets(tmp_path) == ()


def test_images_that_an_agreement_forbids_to_show_are_named():
    split = SplitCard(images=2, groups=2, counts=(1, 1), copies=0)
    card = DataCard(dataset="x", summary="s", source="o", license="l", grouping="patient",
                    task="multi-class", classes=("a", "b"), splits={"train": split},
                    pictured=False)  # fmt: skip
    (section,) = data_sections({"target:x": card}, [])
    assert section.not_pictured
