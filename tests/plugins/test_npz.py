"""Images in a file of NumPy's: MedMNIST's arrays, one or several labels, and each mistake."""

from __future__ import annotations

import numpy as np
import pytest
from official_layouts import loaded, prepared, refused

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets.npz import NPZ


def arrays(channels=(), several=False):
    draws = np.random.default_rng(0)
    content = {}
    for part, count in (("train", 6), ("val", 3), ("test", 3)):
        content[f"{part}_images"] = draws.integers(0, 256, (count, 8, 8, *channels), np.uint8)
        indices = np.arange(count, dtype=np.uint8) % 3
        labels = np.eye(3, dtype=np.uint8)[indices] if several else indices[:, None]
        content[f"{part}_labels"] = labels
    return content


@pytest.fixture
def save(tmp_path):
    def write(**changes):
        folder = tmp_path / "data" / "npz"
        folder.mkdir(parents=True, exist_ok=True)
        content = {key: value for key, value in changes.items() if value is not None}
        np.savez_compressed(folder / "dataset.npz", **content)
        return folder

    return write


@pytest.fixture
def fault(tmp_path):
    return lambda **params: refused(NPZ, tmp_path / "data", tmp_path, **params)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_the_arrays_are_the_images(save, tmp_path, channels):
    content = arrays(channels)
    save(**content)
    data = prepared(NPZ, tmp_path / "data", tmp_path)
    train = content["train_images"].reshape(6, 8, 8, -1)
    assert np.array_equal(data.splits["train"].images, np.broadcast_to(train, (6, 8, 8, 3)))
    assert data.splits["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.splits["test"].groups.tolist() == ["test-0", "test-1", "test-2"]
    assert data.classes == ("0", "1", "2")


def test_validation_images_may_be_training_images(save):
    root = save(**arrays())
    split = loaded(NPZ, root, train=["train", "val"], classes=["a", "b", "c"])
    assert len(split.labels) == 9
    assert split.groups[6] == "val-0"


def test_several_labels_are_another_task(save, tmp_path):
    save(**arrays(several=True))
    data = prepared(NPZ, tmp_path / "data", tmp_path, several=True)
    assert (data.task, data.metric) == ("multi-label", "auc")
    assert data.splits["test"].labels.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        ({"test_images": None}, {}, "dataset.npz has no test_images; it has train_images, train_"),
        ({"train_images": np.zeros((6, 8, 8, 8, 3), np.uint8)}, {}, "volumes are not images"),
        ({"train_images": np.zeros((6, 8, 8))}, {}, "train_images of dataset.npz is float64 (6, 8"),
        ({"test_labels": np.zeros(2, int)}, {}, "has 3 test_images and 2 test_labels: one label"),
        ({"train_labels": np.eye(6, dtype=int)}, {}, "has 6 columns: set several to true"),
        ({"train_labels": np.arange(6) - 1}, {}, "has other values than 0, 1, 2, ...: classes are"),
        ({}, {"several": True}, "has other values than 0 and 1: set several to false"),
        ({}, {"classes": ["a"]}, "1 classes are named, and dataset.npz has 3"),
        ({}, {"file": "other.npz"}, "other.npz; "),
    ],
)
def test_the_first_mismatch_is_said(save, fault, change, params, message):
    save(**(arrays() | change))
    assert message in fault(**params)


def test_a_broken_file_is_said(save, fault):
    path = save(**arrays()) / "dataset.npz"
    path.write_bytes(path.read_bytes()[:-40])
    assert "cannot be read (" in fault()


def test_it_conforms(save, tmp_path):
    save(**arrays())
    results = check_plugin(NPZ, data_root=tmp_path / "data")
    assert [result.message for result in results if not result.ok] == []
