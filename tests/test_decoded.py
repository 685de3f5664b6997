"""Large arrays of images, checked as they are read, and the cache verified in full."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
import torch
from damage import make_pipe
from test_datacache import FakeLoader, flip_a_byte, get, homes, make_spec, put, remove, truncate

from transferbench.data import cache as module
from transferbench.data import decoded
from transferbench.data.cache import discard, prepared_as, verify_cache
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.errors import DamagedImagesError, StoreError
from transferbench.registry import load_registry
from transferbench.store import Store
from transferbench.suite import Recipe

IMAGE_BYTES = 16


@pytest.fixture
def large(monkeypatch):
    """Arrays of six tiny images count as large."""
    monkeypatch.setattr(module, "REHASH_LIMIT_BYTES", 4 * IMAGE_BYTES)


def overwrite(home, position, split="train"):
    """Change one image of an array; returns the path."""
    path = home / f"{split}.images.npy"
    data = bytearray(path.read_bytes())
    data[len(data) - (6 - position) * IMAGE_BYTES] ^= 255
    path.write_bytes(bytes(data))
    return path


@pytest.mark.usefixtures("large")
def test_a_changed_image_of_a_large_array_is_noticed_where_it_is_read(tmp_path):
    load = FakeLoader()
    pixels = get(make_spec(load), tmp_path).splits["train"].images.copy()
    (home,) = homes(tmp_path)
    path = overwrite(home, 4)
    train = get(make_spec(load), tmp_path).splits["train"]
    assert load.calls == 2  # opened without reading the images
    assert np.array_equal(train.read(np.array([0, 3, 5, 0])), pixels[[0, 3, 5, 0]])
    message = rf"{path} changed since it was written \(1 of 2 images differ, such as number 4\)"
    with pytest.raises(DamagedImagesError, match=message):
        train.read(np.array([0, 2, 4]))
    again = get(make_spec(load), tmp_path).splits["train"]
    assert load.calls == 4
    assert np.array_equal(again.read(np.arange(6)), pixels)


@pytest.mark.usefixtures("large")
def test_each_image_is_checked_once_by_a_process(tmp_path, monkeypatch):
    train = get(make_spec(), tmp_path).splits["train"]
    checked = []

    def counted(images):
        checked.append(len(images))
        return digests(images)

    digests = decoded.image_digests
    monkeypatch.setattr(decoded, "image_digests", counted)
    for positions in ([0, 1], [1, 2], [0, 1, 2], [5]):
        train.read(np.array(positions))
    assert checked == [2, 1, 1]


@pytest.mark.usefixtures("large")
def test_a_folder_that_another_process_repaired_is_not_discarded(tmp_path):
    early = get(make_spec(), tmp_path).splits["train"]
    (home,) = homes(tmp_path)
    inode = overwrite(home, 1).stat().st_ino
    late = get(make_spec(), tmp_path).splits["train"]
    for split, calls in [(late, 2), (early, 0)]:
        with pytest.raises(DamagedImagesError):
            split.read(np.array([1]))
        load = FakeLoader()
        get(make_spec(load), tmp_path)
        assert load.calls == calls
    assert (home / "train.images.npy").stat().st_ino != inode


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("damage", [truncate, remove])
def test_a_large_array_of_another_size_is_decoded_again(tmp_path, damage):
    load = FakeLoader()
    get(make_spec(load), tmp_path)
    (home,) = homes(tmp_path)
    damage(home / "test.images.npy")
    get(make_spec(load), tmp_path)
    assert load.calls == 4


def test_an_intact_cache_has_no_damage(tmp_path):
    assert verify_cache(tmp_path / "absent") == []
    get(make_spec(), tmp_path)
    get(make_spec(), tmp_path, channels=3)
    assert verify_cache(tmp_path) == []


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("train.images.npy", flip_a_byte, "1 images of train.images.npy are not what was written"),
        ("test.images.npy", truncate, r"cannot be read \(.*\)"),
        ("test.images.npy", remove, r"cannot be read \(.*test.images.npy'\)"),
        ("test.digests", flip_a_byte, "test.digests is not what was written"),
        ("train.labels.npy", truncate, "train.labels.npy is not what was written"),
        ("train.groups.npy", flip_a_byte, "train.groups.npy is not what was written"),
        ("manifest.json", flip_a_byte, r"cannot be read \(.*\)"),
        ("manifest.json", remove, r"cannot be read \(.*manifest.json'\)"),
        ("manifest.json", make_pipe, r"cannot be read \(manifest.json is not a regular file\)"),
        ("test.images.npy", make_pipe, r"cannot be read \(test.images.npy is not a regular file\)"),
        ("test.digests", make_pipe, "test.digests is not what was written"),
    ],
)
def test_whatever_is_damaged_is_named(tmp_path, name, damage, problem):
    get(make_spec(), tmp_path)
    get(make_spec(), tmp_path, channels=3)
    home = homes(tmp_path)[0]
    damage(home / name)
    folder, text = verify_cache(tmp_path)[0]
    assert folder == home
    assert re.search(problem, text)


@pytest.mark.usefixtures("large")
def test_what_is_discarded_is_decoded_again(tmp_path):
    load = FakeLoader()
    get(make_spec(load), tmp_path)
    (home,) = homes(tmp_path)
    overwrite(home, 3)
    (damaged,) = verify_cache(tmp_path)
    assert damaged.problem.startswith("dataset 'fake' at 4 px: ")
    discard(damaged.folder)
    get(make_spec(load), tmp_path)
    assert load.calls == 4
    assert verify_cache(tmp_path) == []


# --- in a job ---------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path, large):  # noqa: ARG001  # for its effect
    """A worker and the payload of a job on the digits of scikit-learn."""
    resources = WorkerResources(
        load_registry(),
        Store(tmp_path / "store"),
        Machine(tmp_path, tmp_path / "cache", None, "cpu"),
    )
    spec = resources.registry.dataset("digits")
    dataset = get(spec, tmp_path / "cache", image_size=8)
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, epochs=1, batch_size=4)
    payload = {
        "dataset": {
            "name": "digits", "version": spec.version, "params": {}, "classes": 10,
            "task": "multi-class", "metric": "accuracy", "fingerprint": dataset.fingerprint,
        },
        "image": {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
        "selection": {"seed": 0, "validation": 0.1, "test_limit": 50, "labels_per_class": 20},
        "recipe": recipe.model_dump(mode="json"),
        "shuffle_labels": False,
    }  # fmt: skip
    return resources, payload, homes(tmp_path / "cache")[0]


def test_a_job_decodes_damaged_images_again(worker, tmp_path):
    resources, payload, home = worker
    expected = pixels(resources.task_data(payload))
    zero_images(home)
    fresh = WorkerResources(resources.registry, resources.store, resources.machine)
    assert torch.equal(pixels(fresh.task_data(payload)), expected)
    assert verify_cache(tmp_path / "cache") == []


def test_damage_that_stays_stops_the_job(worker, monkeypatch):
    resources, payload, home = worker
    zero_images(home)
    monkeypatch.setattr(decoded, "discard", lambda folder, opened: None)
    with pytest.raises(StoreError, match=r"images.npy changed since it was written .*check the d"):
        resources.task_data(payload)


def pixels(data):
    return torch.cat([
        split.pipeline.batch(torch.arange(len(split.pipeline)))
        for split in (data.train, data.validation, data.test)
    ])  # fmt: skip


def zero_images(home):
    """Overwrite half of the array in place, with its size and modification time kept."""
    path = home / "train.images.npy"
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(stat.st_size // 2)
        file.write(bytes(stat.st_size - stat.st_size // 2))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_worker_looks_at_no_file_but_those_of_the_cache(tmp_path, monkeypatch):
    """Pictures that change during a run are those of the next run."""
    put(tmp_path / "data")
    spec, cache = make_spec(needs_root=True), tmp_path / "cache"
    fingerprint = get(spec, cache, data_root=tmp_path / "data").fingerprint
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr(FakeLoader, "__call__", None)
    assert prepared_as(spec, fingerprint, cache).fingerprint == fingerprint
    assert prepared_as(spec, "0" * 64, cache) is None
    assert prepared_as(make_spec(name="other"), fingerprint, cache) is None
    assert prepared_as(spec, fingerprint, tmp_path / "absent") is None
    flip_a_byte(homes(cache)[0] / "train.images.npy")
    assert prepared_as(spec, fingerprint, cache) is None
