"""Datasets that list pictures: decoded by the framework, in parallel, and on after an interrupt."""

import io
import os
import re

import numpy as np
import pytest
from PIL import Image
from test_datacache import get, homes, make_spec

from transferbench.data import items as items_module
from transferbench.errors import DataError, PluginError
from transferbench.specs import DatasetItems, DatasetSpec
from transferbench.store.draft import host_name

COUNT, SIZE = 23, 8
LABELS = np.arange(COUNT) % 3
DEAD = 2**22 + 1
"""More than a process has as its number on Linux."""


def pixels(split, position):
    seed = [position, split == "test"]
    return np.random.default_rng(seed).integers(0, 256, (12, 9, 3)).astype(np.uint8)


class Listing:
    """Lists pictures in one of the three forms; counts and may change what is read."""

    def __init__(self, form=lambda array: array, before=lambda split, position: None):
        self.form, self.before, self.read = form, before, []

    def __call__(self, params, split, root):  # noqa: ARG002  # the protocol
        def read(position):
            self.before(split, position)
            self.read.append((split, position))
            return self.form(pixels(split, position))

        groups = np.array([f"{split}-{position}" for position in range(COUNT)])
        return DatasetItems(LABELS, groups, read)


def items_spec(listing=None, **changes):
    return make_spec(**{"items": listing or Listing(), "channels": 3, **changes})


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(items_module, "BLOCK_BYTES", 4 * SIZE**2 * 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def prepared(tmp_path, listing=None, **changes):
    return get(items_spec(listing, **changes), tmp_path, channels=3, image_size=SIZE)


def test_paths_bytes_and_pixels_give_the_same_images(tmp_path):
    def file(array):
        path = tmp_path / f"{array.sum()}.png"
        path.write_bytes(png(array))
        return path

    def with_opacity(array):
        return np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])

    forms = {"array": np.asarray, "bytes": png, "path": file, "opacity": with_opacity}
    splits = {name: prepared(tmp_path / name, Listing(form)) for name, form in forms.items()}
    for split in ("train", "test"):
        expected = splits["array"].splits[split]
        height, width = 12 * SIZE // 9 + 1, SIZE  # 10.67 is rounded
        top = (height - SIZE) // 2
        resized = Image.fromarray(pixels(split, 5)).resize((width, height), 2)
        square = np.asarray(resized)[top : top + SIZE]
        assert np.array_equal(expected.images[5], square)
        assert np.array_equal(expected.labels, LABELS)
        assert len({s.splits[split].fingerprint for s in splits.values()}) == 1


def test_a_grey_dataset_keeps_its_values(tmp_path):
    listing = Listing(lambda array: array[:9, :, :1])
    images = get(items_spec(listing, channels=1), tmp_path, image_size=9).splits["test"].images
    assert np.array_equal(images[3], pixels("test", 3)[:9, :, :1])


def interrupted_at(position):
    def interrupt(split, current):
        if (split, current) == ("train", position):
            raise KeyboardInterrupt

    return interrupt


def leave_a_draft(tmp_path, monkeypatch, pid=DEAD):
    """The draft of a process that was interrupted at picture 14 of the first split."""
    with monkeypatch.context() as patch:
        patch.setattr("transferbench.registry.guard.is_the_users", lambda _: True)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, Listing(before=interrupted_at(14)))
    (draft,) = homes(tmp_path)
    name = re.sub(r"\.\d+\.", f".{pid}.", draft.name, count=1)
    return draft.rename(draft.with_name(name))


def test_an_interrupted_process_is_carried_on(tmp_path, monkeypatch):
    undisturbed = prepared(tmp_path / "other").fingerprint
    leave_a_draft(tmp_path / "own", monkeypatch)
    listing = Listing()
    assert prepared(tmp_path / "own", listing).fingerprint == undisturbed
    assert {p for split, p in listing.read if split == "train"} == set(range(12, COUNT))
    assert len(homes(tmp_path / "own")) == 1


def test_what_changed_in_a_draft_is_decoded_again(tmp_path, monkeypatch):
    undisturbed = prepared(tmp_path / "other").fingerprint
    file = leave_a_draft(tmp_path / "own", monkeypatch) / "train.images.npy"
    content = bytearray(file.read_bytes())
    content[128 + 6 * SIZE**2 * 3] ^= 1  # the first value of image 6
    file.write_bytes(content)
    listing = Listing()
    assert prepared(tmp_path / "own", listing).fingerprint == undisturbed
    assert {p for split, p in listing.read if split == "train"} == set(range(6, COUNT))


@pytest.mark.parametrize("size", [0, 100, 128 + 5 * SIZE**2 * 3 + 7])
def test_a_cut_draft_is_carried_on(tmp_path, monkeypatch, size):
    undisturbed = prepared(tmp_path / "other").fingerprint
    os.truncate(leave_a_draft(tmp_path / "own", monkeypatch) / "train.images.npy", size)
    assert prepared(tmp_path / "own").fingerprint == undisturbed


def test_the_draft_of_a_living_process_is_its_own(tmp_path, monkeypatch):
    draft = leave_a_draft(tmp_path, monkeypatch, pid=os.getppid())
    assert host_name() in draft.name
    listing = Listing()
    prepared(tmp_path, listing)
    assert len(listing.read) == 2 * COUNT
    assert draft.exists()


def test_all_that_cannot_be_read_are_named(tmp_path):
    def broken(_, position):
        if position in {2, 20}:
            raise OSError(5, "Input/output error")

    with pytest.raises(DataError) as error:
        prepared(tmp_path, Listing(before=broken))
    assert str(error.value) == (
        "dataset 'fake': picture 2 (train-2) cannot be read (Input/output error)\n  picture 20 "
        "(train-20) cannot be read (Input/output error): replace or remove them"
    )
    assert homes(tmp_path) == []


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (lambda array: array.astype(np.float32), r"it is an array of float32 \(12, 9, 3\): give"),
        (lambda array: array[..., :2], r"it is an array of uint8 \(12, 9, 2\): give"),
        (lambda array: array[None], r"it is an array of uint8 \(1, 12, 9, 3\): give"),
        (lambda array: array[:0], "it has no pixels"),
        (lambda _: b"", "it is empty"),
        (lambda _: b"GIF89a", "its content is broken"),
        (lambda _: "a.png", "str"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, form, reason):
    with pytest.raises((DataError, PluginError), match=reason):
        prepared(tmp_path, Listing(form))


def test_a_bug_of_the_plugin_is_its_own(tmp_path):
    def broken(_, position):
        raise KeyError(position)

    with pytest.raises(PluginError, match=r"dataset 'fake', split 'train', failed: KeyError"):
        prepared(tmp_path, Listing(before=broken))


@pytest.mark.parametrize("both", [{"load": None, "items": None}, {"load": print, "items": print}])
def test_items_and_load_exclude_each_other(both):
    with pytest.raises(ValueError, match="must give items or load, one of them"):
        DatasetSpec(**{**dict(make_spec()), **both})
