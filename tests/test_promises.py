"""What decoded splits must be: no image or group in two, no class empty, and whose fault it is."""

from __future__ import annotations

import os

import numpy as np
import pytest
from test_datacache import FakeLoader, get, homes, make_spec, put

from transferbench.errors import DataError, PluginError


def is_test(split):
    return split.groups[0].startswith("test")


def in_test(change):
    """A loader that changes its test split."""
    return FakeLoader(change=lambda split: change(split) if is_test(split) else split)


def copied(split):
    """Two images of train, under other numbers, in test."""
    train = FakeLoader()(None, "train", None, split.images.shape[1])
    split.images[[1, 4]] = train.images[[5, 2]]
    return split


def crossing(split):
    groups = split.groups.astype("U7")
    groups[3] = "train-1"
    return split._replace(groups=groups)


def of_user(load, **changes):
    return make_spec(load, needs_root=True, **changes)


# --- one image or group in two splits -----------------------------------------------------------


def test_images_in_two_splits_are_refused_with_their_number_and_an_example(tmp_path):
    with pytest.raises(PluginError) as caught:
        get(make_spec(in_test(copied)), tmp_path)
    assert str(caught.value) == (
        "dataset 'fake': splits 'train' and 'test' share images pixel by pixel: 2 of 6 in 'test', "
        "such as number 1 of 'test' (test-0) and number 5 of 'train' (train-2): keep one copy of "
        "an image, and all images of a group in one split, or declare in shared_between_splits why "
        "the dataset is published so"
    )
    assert homes(tmp_path) == []


def test_one_image_many_times_counts_each_time(tmp_path):
    def repeated(split):
        split.images[:] = copied(split).images[1]
        return split

    with pytest.raises(PluginError, match="6 of 6 in 'test', such as number 0 of 'test'"):
        get(make_spec(in_test(repeated)), tmp_path)


def test_images_and_groups_in_two_splits_are_told_at_once(tmp_path):
    message = (
        r"share 1 group\(s\) by pair, the first is 'train-1', and share images pixel by pixel: 2 of"
    )
    with pytest.raises(PluginError, match=message):
        get(make_spec(in_test(lambda split: crossing(copied(split)))), tmp_path)


def test_any_two_splits_are_compared(tmp_path):
    class Third(FakeLoader):
        def __call__(self, params, split, root, image_size):
            loaded = super().__call__(
                params, "test" if split == "extra" else split, root, image_size
            )
            return loaded._replace(groups=np.array([f"{split}-{index}" for index in range(6)]))

    with pytest.raises(PluginError, match=r"splits 'test' and 'extra' share images .*: 6 of 6"):
        get(make_spec(Third(), splits=("train", "test", "extra")), tmp_path)


def test_images_and_groups_may_repeat_within_a_split(tmp_path):
    def repeated(split):
        split.images[2] = split.images[0]
        return split

    assert get(make_spec(FakeLoader(change=repeated)), tmp_path).shared == ()


def test_blank_images_are_counted_and_not_refused(tmp_path):
    def blank(split):
        split.images[:2] = 255
        split.images[2] = 7 if is_test(split) else 8
        return split

    (shared,) = get(make_spec(FakeLoader(change=blank)), tmp_path).shared
    assert (shared.images, shared.blank) == (0, 2)
    assert (
        shared.text("pair")
        == "splits 'train' and 'test' share 2 blank image(s), of one value alone"
    )


def test_grey_copies_of_colour_images_are_compared_as_they_are_cached(tmp_path):
    load = FakeLoader(channels=3, change=lambda s: copied_colour(s) if is_test(s) else s)
    spec = make_spec(load, channels=3)
    for channels in (1, 3):
        with pytest.raises(PluginError, match="2 of 6 in 'test'"):
            get(spec, tmp_path, channels=channels)


def copied_colour(split):
    train = FakeLoader(channels=3)(None, "train", None, split.images.shape[1])
    split.images[[1, 4]] = train.images[[5, 2]]
    return split


def test_integer_groups_of_other_types_are_compared(tmp_path):
    def numbered(split):
        kind = np.int32 if is_test(split) else np.uint8
        return split._replace(groups=np.arange(6).astype(kind) + (5 if is_test(split) else 0))

    with pytest.raises(PluginError, match=r"share 1 group\(s\) by pair, the first is '5'"):
        get(make_spec(FakeLoader(change=numbered)), tmp_path)


def test_a_declared_share_is_kept_with_its_counts(tmp_path):
    load = in_test(lambda split: crossing(copied(split)))
    declared = make_spec(load, shared_between_splits="its authors say so")
    for _ in range(2):
        (shared,) = get(declared, tmp_path).shared
        assert (shared.images, shared.size, shared.keys, shared.key) == (2, 6, 1, "train-1")
    assert load.calls == 2
    with pytest.raises(PluginError, match="share 1 group"):
        get(make_spec(load), tmp_path)


# --- classes and names --------------------------------------------------------------------------


def without_c(split):
    return split._replace(labels=split.labels % 2)


def test_an_empty_class_is_named_in_each_split(tmp_path):
    with pytest.raises(PluginError) as caught:
        get(make_spec(FakeLoader(change=without_c)), tmp_path)
    fault = (
        "there are 3 classes, but no image of c: put images of each class into each split, or "
        "remove the class"
    )
    assert str(caught.value).splitlines() == [
        f"dataset 'fake', split '{name}': {fault}" for name in ("train", "test")
    ]
    with pytest.raises(PluginError, match="dataset 'fake', split 'test': there are 3 classes"):
        get(make_spec(in_test(without_c)), tmp_path)


def test_of_many_empty_classes_some_are_named(tmp_path):
    names = tuple(f"c{index}" for index in range(1000))
    with pytest.raises(PluginError, match=r"no image of c3, c4, .*, c12 and 987 more: put"):
        get(make_spec(classes=lambda params, root: names), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_c, "dataset 'fake' in .*data, split 'test': there are 3 classes, but no image of"),
        (copied, r"dataset 'fake' in .*data: splits .* \(train-2\): keep one copy .* one split$"),
        (crossing, "dataset 'fake' in .*data: splits 'train' and 'test' share 1 group"),
    ],
)
def test_the_content_of_a_folder_is_no_fault_of_the_plugin(tmp_path, change, message):
    put(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        get(of_user(in_test(change)), tmp_path / "cache", data_root=tmp_path / "data")


def test_the_form_of_the_arrays_is_the_plugins_fault(tmp_path):
    put(tmp_path / "data")
    load = in_test(lambda split: split._replace(labels=split.labels.astype(float)))
    with pytest.raises(PluginError, match="split 'test': labels are float64 of 1 axes"):
        get(of_user(load), tmp_path / "cache", data_root=tmp_path / "data")


def test_names_that_look_alike_are_two_classes_of_one_name(tmp_path):
    names = ("caf\xe9", "cafe\u0301", "tea")
    message = r"called caf\xe9, written 'cafe\\u0301' and 'caf\\xe9': make them one, or rename one"
    with pytest.raises(PluginError, match=message):
        get(make_spec(classes=lambda params, root: names), tmp_path)
    names = ("cat", "cat ", "tea")
    with pytest.raises(PluginError, match="called cat, written 'cat' and 'cat ': make them one"):
        get(make_spec(classes=lambda params, root: names), tmp_path)


@pytest.mark.parametrize("name", ["", "  ", "\t", "\u200b"])
def test_a_class_has_a_name_that_can_be_seen(tmp_path, name):
    message = "a class is called .*, which shows nothing: name it, or leave its images out"
    with pytest.raises(PluginError, match=message):
        get(make_spec(classes=lambda params, root: ("a", "b", name)), tmp_path)


def test_names_that_are_not_text_are_said(tmp_path):
    odd = os.fsdecode(b"caf\xe9")

    def renamed(split):
        return split._replace(groups=np.array([*split.groups[:-1], f"{split.groups[0]}{odd}"]))

    with pytest.raises(PluginError, match=r"the class 'caf\\udce9' is not text in UTF-8: rename"):
        get(make_spec(classes=lambda params, root: ("a", "b", odd)), tmp_path)
    with pytest.raises(PluginError, match=r"the group 'test-0caf\\udce9' is not text in UTF-8"):
        get(make_spec(in_test(renamed)), tmp_path)


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_groups_are_integers_that_json_holds(tmp_path, kind):
    def numbered(split):
        return split._replace(groups=np.array([*range(5), 2**53]).astype(kind))

    message = r"groups are integers of 2\*\*53 or more: give them as strings"
    with pytest.raises(PluginError, match=message):
        get(make_spec(FakeLoader(change=numbered)), tmp_path)


def test_labels_that_are_all_unknown_are_refused(tmp_path):
    def undefined(split):
        labels = np.full((6, 3), np.nan, np.float32)
        return split._replace(labels=labels)

    with pytest.raises(PluginError, match="split 'train': no label of any image is known"):
        get(make_spec(FakeLoader(change=undefined), task="multi-label"), tmp_path)
