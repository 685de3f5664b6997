"""Splits: exact counts, groups on one side only, reproduced by their seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data.every_class import select_every_class
from transferbench.data.splits import select_test, select_training, shuffled_labels
from transferbench.errors import DataError

FINGERPRINT = "ab" * 32


def select(labels, groups=None, **changes):
    groups = np.arange(len(labels)) if groups is None else groups
    options = {
        "seed": 0,
        "labels_per_class": None,
        "validation": 0.0,
        "validation_limit": None,
    }
    return select_training(labels, groups, **(options | changes))


@st.composite
def grouped_labels(draw):
    classes = draw(st.integers(2, 5))
    count = draw(st.integers(20, 120))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, count)])
    groups = generator.integers(0, draw(st.integers(3, 200)), len(labels))
    return labels.astype(np.int64), groups


@given(grouped_labels(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.5]))
def test_no_group_is_on_two_sides_and_no_image_is_lost(data, seed, share):
    labels, groups = data
    try:
        selection = select(labels, groups, seed=seed, validation=share)
    except DataError as error:
        assert "holds out none" in str(error)  # noqa: PT017  # with few large groups
        return
    assert not set(groups[selection.train]) & set(groups[selection.validation])
    both = np.concatenate([selection.train, selection.validation])
    assert np.array_equal(np.sort(both), np.arange(len(labels)))
    for positions in selection:
        assert positions.dtype == np.int64
        assert np.all(np.diff(positions) > 0)


@given(grouped_labels(), st.integers(0, 2**32 - 1))
def test_a_selection_is_reproduced_by_its_seed(data, seed):
    labels, _ = data
    first = select(labels, seed=seed, validation=0.3, labels_per_class=1)
    second = select(labels, seed=seed, validation=0.3, labels_per_class=1)
    assert np.array_equal(first.train, second.train)
    assert np.array_equal(first.validation, second.validation)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.37])
def test_single_images_are_held_out_stratified_by_class(share):
    labels = np.repeat(np.arange(4), [10, 40, 50, 100])
    positions = select(labels, validation=share).validation
    counts = np.bincount(labels[positions], minlength=4)
    assert len(positions) == round(share * 200)
    assert np.all(np.abs(counts - share * np.array([10, 40, 50, 100])) < 1)


def test_groups_of_several_classes_are_held_out_completely():
    labels = np.tile(np.arange(5), 60)
    groups = np.repeat([f"face-{face}" for face in range(10)], 30)
    positions = select(labels, groups, validation=0.2).validation
    assert len(positions) == 60
    assert len(set(groups[positions])) == 2


def test_a_class_is_never_held_out_completely():
    labels = np.array([0, 1, *[2] * 20])
    selection = select(labels, validation=0.9)
    assert set(labels[selection.train]) == {0, 1, 2}


def test_another_seed_gives_another_selection():
    labels = np.repeat(np.arange(3), 100)
    selections = [
        select(labels, seed=seed, validation=0.2, labels_per_class=10) for seed in range(4)
    ]
    assert len({tuple(selection.train) for selection in selections}) == 4
    assert len({tuple(selection.validation) for selection in selections}) == 4


def test_labels_per_class_is_exact_and_a_larger_draw_contains_a_smaller_one():
    labels = np.random.default_rng(0).integers(0, 7, 400)
    few = select(labels, labels_per_class=3, validation=0.2, seed=5)
    many = select(labels, labels_per_class=11, validation=0.2, seed=5)
    assert np.bincount(labels[few.train]).tolist() == [3] * 7
    assert np.bincount(labels[many.train]).tolist() == [11] * 7
    assert set(few.train) < set(many.train)
    assert np.array_equal(few.validation, many.validation)


def test_all_images_are_drawn_equally_often():
    labels = np.repeat([0, 1], 20)
    counts = np.zeros(40)
    for seed in range(600):
        counts[select(labels, seed=seed, labels_per_class=5).train] += 1
    # 600 draws with p = 1/4: mean 150, standard deviation 10.6
    assert counts.min() > 150 - 5 * 10.6
    assert counts.max() < 150 + 5 * 10.6


def test_the_validation_limit_selects_a_stratified_subset():
    labels = np.repeat(np.arange(4), 100)
    unlimited = select(labels, validation=0.5)
    limited = select(labels, validation=0.5, validation_limit=40)
    assert set(limited.validation) < set(unlimited.validation)
    assert np.bincount(labels[limited.validation]).tolist() == [10] * 4
    assert np.array_equal(limited.train, unlimited.train)


def test_too_few_images_of_a_class_are_an_error():
    labels = np.repeat([0, 1, 2], [30, 30, 4])
    message = "requests 5 images of each class; class 2 has 4 left after the validation split"
    with pytest.raises(DataError, match=message):
        select(labels, labels_per_class=5)


def test_a_class_without_images_from_the_start_is_left_out():
    labels = np.repeat([0, 2], 10)
    drawn = select(labels, labels_per_class=3, classes=("a", "b", "c"))
    assert np.bincount(labels[drawn.train]).tolist() == [3, 0, 3]
    assert select(labels, validation=0.2, classes=("a", "b", "c")).train.size == 16


def test_a_single_group_cannot_be_split():
    labels = np.tile([0, 1], 10)
    with pytest.raises(DataError, match=r"share of 0.2 of 20 images in 1 group\(s\) holds out"):
        select(labels, np.zeros(20, int), validation=0.2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_each_label_of_a_multi_label_task_gets_enough_positives(seed, count):
    labels = (np.random.default_rng(1).random((200, 5)) < [0.05, 0.1, 0.3, 0.5, 0.7]).astype(
        np.float32
    )
    positions = select(labels, seed=seed, labels_per_class=count).train
    assert labels[positions].sum(axis=0).min() >= count
    assert len(positions) <= 5 * count


def test_an_image_counts_for_all_its_labels():
    labels = np.ones((30, 2), np.float32)
    labels[10:, 0] = 0
    positions = select(labels, labels_per_class=4).train
    assert labels[positions].sum(axis=0).tolist() == [4, 4]


def test_too_few_positives_of_a_label_are_an_error():
    labels = np.zeros((10, 2), np.float32)
    labels[:, 0] = 1
    with pytest.raises(DataError, match="3 positives of each label; label 1 has 0"):
        select(labels, labels_per_class=3)


def test_the_test_subset_is_fixed_sorted_and_stratified():
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(4), [100, 200, 300, 400]))
    positions = select_test(labels, 50, FINGERPRINT)
    assert np.bincount(labels[positions]).tolist() == [5, 10, 15, 20]
    assert np.all(np.diff(positions) > 0)
    assert np.array_equal(positions, select_test(labels, 50, FINGERPRINT))
    assert not np.array_equal(positions, select_test(labels, 50, "cd" * 32))


@given(grouped_labels(), st.integers(1, 200))
def test_the_test_subset_has_exactly_the_limit(data, limit):
    labels, _ = data
    positions = select_test(labels, limit, FINGERPRINT)
    assert len(positions) == min(limit, len(labels))
    expected = np.bincount(labels) * len(positions) / len(labels)
    counts = np.bincount(labels[positions], minlength=len(expected))
    assert np.all(np.abs(counts - expected) < 1)


def test_without_a_limit_all_test_images_are_selected():
    labels = np.array([[0, 1], [1, 1], [1, 0]], np.float32)
    assert select_test(labels, None, FINGERPRINT).tolist() == [0, 1, 2]
    assert len(select_test(labels, 2, FINGERPRINT)) == 2


def test_shuffled_labels_have_the_same_counts_at_other_images():
    labels = np.repeat(np.arange(10), 100)
    shuffled = shuffled_labels(labels, 7)
    assert np.array_equal(np.bincount(shuffled), np.bincount(labels))
    assert 0.05 < np.mean(shuffled == labels) < 0.15
    assert np.array_equal(shuffled, shuffled_labels(labels, 7))
    assert not np.array_equal(shuffled, shuffled_labels(labels, 8))


def test_multi_label_rows_are_shuffled_as_rows():
    labels = np.eye(6, dtype=np.float32)
    assert np.array_equal(shuffled_labels(labels, 1).sum(axis=1), np.ones(6))


# --- small and unbalanced data ----------------------------------------------------------------


def every_class(labels, groups=None, seed=0, per_class=None, validation=0.1, limit=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return select_every_class(labels, groups, seed=seed, labels_per_class=per_class,
                              validation=validation, validation_limit=limit)  # fmt: skip


def test_every_class_has_training_and_validation_images():
    labels = np.repeat([0, 1, 2, 4], [90, 20, 3, 2])
    for seed in range(5):
        rest, held = every_class(labels, seed=seed)
        assert sorted([*rest, *held]) == list(range(115))
        assert set(labels[rest]) == set(labels[held]) == {0, 1, 2, 4}
        assert np.bincount(labels[held]).tolist() == [9, 2, 1, 0, 1]
    assert every_class(labels, seed=0)[1].tolist() != every_class(labels, seed=1)[1].tolist()


def test_a_class_of_one_image_is_trained_on():
    rest, held = every_class(np.array([0, 0, 0, 0, 1]), validation=0.25)
    assert (4 in rest, len(held)) == (True, 1)


def test_groups_of_every_class_stay_together():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 200, p=[0.7, 0.2, 0.06, 0.04])
    groups = rng.integers(0, 60, 200)
    rest, held = every_class(labels, groups, validation=0.2)
    assert not set(groups[rest]) & set(groups[held])
    assert set(labels[rest]) == set(labels[held]) == {0, 1, 2, 3}
    assert 0.1 < len(held) / 200 < 0.3


def test_of_a_small_class_all_training_images_are_taken():
    labels = np.repeat([0, 1, 3], [50, 10, 4])
    rest, held = every_class(labels, per_class=8, validation=0.2, limit=4)
    assert np.bincount(labels[rest]).tolist() == [8, 8, 0, 3]
    assert np.bincount(labels[held]).tolist() == [2, 1, 0, 1]


def test_labels_of_which_each_combination_occurs_once_are_divided():
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 9)) < np.linspace(0.04, 0.6, 9)).astype(np.float32)
    rest, held = every_class(labels, validation=0.2)
    positives = (labels == 1).sum(axis=0)
    assert ((labels[held] == 1).sum(axis=0) >= (positives > 1)).all()
    assert ((labels[rest] == 1).sum(axis=0) >= (positives > 0)).all()
    assert len(held) == pytest.approx(12, abs=3)
    few, _ = every_class(labels, validation=0.2, per_class=5)
    assert ((labels[few] == 1).sum(axis=0) >= np.minimum(5, (labels[rest] == 1).sum(axis=0))).all()


def test_nothing_to_hold_out_is_an_error():
    with pytest.raises(DataError, match="no class has two groups; set it to 0"):
        every_class(np.array([0, 1, 2]))
    assert every_class(np.array([0, 1, 2]), validation=0)[1].tolist() == []


def test_a_test_subset_of_every_class():
    labels = np.repeat(np.arange(5), [180, 80, 30, 2, 1])
    share = select_test(labels, 40, FINGERPRINT)
    every = select_test(labels, 40, FINGERPRINT, "every-class")
    assert set(labels[share]) < set(labels[every]) == {0, 1, 2, 3, 4}
    assert len(share) == len(every) == 40
    assert set(labels[select_test(labels, 3, FINGERPRINT, "every-class")]) == {0, 1, 2, 3, 4}
    assert len(select_test(labels, 0, FINGERPRINT, "every-class")) == 0
