"""DomainNet: labels by number, the paper's subsample, and folders at the wrong level."""

from __future__ import annotations

import numpy as np
import pytest
from official_layouts import draw, labels_by_group, loaded, prepared, refused
from pydantic import ValidationError

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets._domainnet_classes import CLASSES
from transferbench_plugins.datasets.domainnet import DOMAINNET, _subsample

LISTS = {
    "train": "real/cello/real_067_000001.jpg 66\nreal/cell_phone/real_068_000001.jpg 67\n",
    "test": "real/t-shirt/real_328_000001.jpg 327\nreal/cello/real_067_000002.jpg 66\n",
}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "domainnet"
    for split, text in LISTS.items():
        for line in text.splitlines():
            draw(folder / line.split()[0])
        (folder / f"real_{split}.txt").write_text(text)
    return folder


@pytest.fixture
def fault(root, tmp_path):
    return lambda **params: refused(DOMAINNET, root.parent, tmp_path, **params)


def test_the_order_of_the_classes_ignores_case_and_punctuation():
    def letters(name):
        return "".join(filter(str.isalnum, name)).lower()

    assert len(set(CLASSES)) == 345
    assert list(CLASSES) == sorted(CLASSES, key=letters)
    # The number in a file's name counts from 1.
    assert (CLASSES[301 - 1], CLASSES[328 - 1]) == ("syringe", "t-shirt")
    assert list(CLASSES) != sorted(CLASSES)


def test_the_number_in_the_list_is_the_label_and_all_classes_count(root, tmp_path):
    data = prepared(DOMAINNET, root.parent, tmp_path)
    assert data.classes == CLASSES
    assert labels_by_group(DOMAINNET, root, "test") == {
        "real/t-shirt/real_328_000001.jpg": 327, "real/cello/real_067_000002.jpg": 66,
    }  # fmt: skip
    assert data.splits["train"].labels.tolist() == [66, 67]


def test_lists_that_are_not_the_published_ones_are_noted(root, tmp_path):
    notes = prepared(DOMAINNET, root.parent, tmp_path).notes
    assert notes[0] == "real_train.txt lists 2 pictures, the published one 120,906"
    assert notes[1].startswith("real_train.txt is not the list of a published run, whose sha256 is "
                               "19d483256d24...")  # fmt: skip


def test_the_cleaned_lists_have_a_folder_of_their_own(root, fault):
    (root / "cleaned").mkdir()
    for split, text in LISTS.items():
        (root / "cleaned" / f"real_{split}.txt").write_text(text.splitlines()[0])
    assert loaded(DOMAINNET, root, lists="cleaned").labels.tolist() == [66]
    assert "no " + str(root / "cleaned" / "clipart_train.txt") in fault(
        lists="cleaned", domain="clipart"
    )


def test_the_subsample_is_the_papers():
    expected = np.random.RandomState(2020).choice(120_906, 50_000, replace=False)
    assert np.array_equal(_subsample(120_906, 50_000), np.sort(expected))
    assert np.array_equal(_subsample(14_604, 50_000), np.arange(14_604))
    assert np.array_equal(_subsample(7, None), np.arange(7))


def test_the_subsample_is_of_each_split(root):
    assert len(loaded(DOMAINNET, root, "train", at_most=1).labels) == 1
    assert len(loaded(DOMAINNET, root, "test", at_most=2).labels) == 2


# --- wrong levels ---------------------------------------------------------------------------------


def test_lists_one_level_up_or_down_are_pointed_at(root, fault):
    (root / "txt").mkdir()
    (root / "real_train.txt").rename(root / "txt" / "real_train.txt")
    message = fault()
    assert f"there is no {root}/real_train.txt, but {root}/txt/real_train.txt: lists and" in message
    (root / "txt" / "real_train.txt").rename(root.parent / "real_train.txt")
    assert f"make domainnet a link to {root.parent}" in fault()


def test_a_folder_without_lists_is_described(root, fault):
    for split in LISTS:
        (root / f"real_{split}.txt").unlink()
    assert fault().endswith(
        f"there is no {root}/real_train.txt; {root} has real/, expected real_train.txt, "
        "real_test.txt and the folder real/ with the folders of classes"
    )


def test_pictures_unpacked_too_deep_or_not_deep_enough_are_pointed_at(root, fault):
    (root / "real").rename(root / "moved")
    assert f"2 of 2 pictures are not there, such as {root}/real/cello/" in fault()
    assert f"unpack real.zip into {root}" in fault()
    (root / "real").mkdir()
    (root / "moved").rename(root / "real" / "real")
    assert (
        "real/real/cello/real_067_000001.jpg: move the folders of classes one level up" in fault()
    )
    for folder in (root / "real" / "real").iterdir():
        folder.rename(root / folder.name)
    assert "put the folders of classes into a folder real" in fault()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("real/cello/a.jpg 345", "has the label '345', expected a number from 0 to 344"),
        ("real/cello/a.jpg cello", "has the label 'cello', expected a number"),
        ("cello/a.jpg 66", "has the path 'cello/a.jpg', expected real/CLASS/FILE"),
        ("real/cello/a.jpg 71", "gives 'cello' the label 71, which is 'circle' in the published"),
    ],
)
def test_a_line_of_another_list_is_refused(root, fault, line, message):
    (root / "real_train.txt").write_text(f"\n{line}\n")
    assert f"line 2 of {root}/real_train.txt {message}" in fault()


def test_other_domains_are_refused():
    with pytest.raises(ValidationError, match="'clipart', 'infograph', 'painting', 'quickdraw'"):
        DOMAINNET.parse({"domain": "photo"})


def test_it_conforms(root):
    results = check_plugin(DOMAINNET, data_root=root.parent)
    assert [result.message for result in results if not result.ok] == []
