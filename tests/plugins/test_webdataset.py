"""Pictures in tar files: keys, labels, groups and offsets, and each mistake."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from official_layouts import labels_by_group, loaded, noise, prepared, refused
from pydantic import ValidationError

from transferbench.conformance import check_plugin
from transferbench_plugins.datasets.webdataset import WEBDATASET


def picture(form="PNG"):
    stream = io.BytesIO()
    noise().save(stream, form)
    return stream.getvalue()


def shard(path, samples):
    """A tar file of ``(name, content)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in samples:
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def labelled(first, count=3):
    for number in range(first, first + count):
        facts = {"species": ["cat", "dog"][number % 2], "person": f"p{number // 2}"}
        yield f"a/{number:04d}.png", picture()
        yield f"a/{number:04d}.cls", str(number % 2)
        yield f"a/{number:04d}.json", json.dumps(facts)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "webdataset"
    for number in range(2):
        shard(folder / f"train-{number:03d}.tar", labelled(4 * number, 4))
    shard(folder / "test-000.tar", labelled(0, 2))  # keys restart in each split
    return folder


@pytest.fixture
def fault(root, tmp_path):
    return lambda **params: refused(WEBDATASET, root.parent, tmp_path, **params)


def test_samples_are_read_from_all_shards(root, tmp_path):
    data = prepared(WEBDATASET, root.parent, tmp_path)
    assert data.classes == ("0", "1")
    assert data.splits["train"].labels.tolist() == [0, 1] * 4
    assert data.splits["train"].groups.tolist() == [f"train/a/{number:04d}" for number in range(8)]
    assert data.splits["test"].groups.tolist() == ["test/a/0000", "test/a/0001"]
    with tarfile.open(root / "train-001.tar") as archive:
        from PIL import Image

        stream = archive.extractfile("a/0005.png")
        pixels = np.asarray(Image.open(io.BytesIO(stream.read())))
    assert np.array_equal(data.splits["train"].images[5], pixels)


def test_fields_of_json_are_labels_and_groups(root):
    params = {"label": "json:species", "group": "json:person"}
    split = loaded(WEBDATASET, root, "test", **params)
    assert split.groups.tolist() == ["p0", "p0"]
    parsed = WEBDATASET.parse(params)
    assert WEBDATASET.classes(parsed, root) == ("cat", "dog")
    assert labels_by_group(WEBDATASET, root, "test", label="json:species", classes=("dog", "cat")) \
        == {"test/a/0000": 1, "test/a/0001": 0}  # fmt: skip


def test_indices_may_be_named(root):
    assert labels_by_group(WEBDATASET, root, "test", classes=("dark", "light")) == {
        "test/a/0000": 0, "test/a/0001": 1,
    }  # fmt: skip


def test_a_range_of_shards_names_each(root, fault):
    assert len(loaded(WEBDATASET, root, train="train-{000..001}.tar").labels) == 8
    assert len(loaded(WEBDATASET, root, train="train-{001..001}.tar").labels) == 4
    assert "there is no train-002.tar; " in fault(train="train-{000..002}.tar")


def test_other_files_of_a_sample_are_left_alone(root):
    samples = [("x.JPG", picture("JPEG")), ("x.cls", "1\n"), ("x.seg.png", picture()),
               ("y.b.txt", "no"), ("y.jpg", picture("JPEG")), ("y.cls", "0")]  # fmt: skip
    shard(root / "own.tar", samples)
    assert labels_by_group(WEBDATASET, root, train="own.tar") == {"train/x": 1, "train/y": 0}


@pytest.mark.parametrize(
    ("samples", "params", "message"),
    [
        ([("x.txt", "a"), ("x.cls", "0")], {}, "sample 'x' of "),
        ([("x.txt", "a"), ("x.cls", "0")], {}, " has no picture, only .cls, .txt"),
        ([("x.png", b"")], {}, "has no .cls, only .png: name another in label"),
        ([("x.png", b""), ("x.cls", "cat")], {"classes": ["dog"]},
         "has the label 'cat', which is none of 1 classes, nor an index of one"),
        ([("x.png", b""), ("x.json", "{")], {"label": "json:a"}, ".json cannot be read (Expecting"),
        ([("x.png", b""), ("x.json", '{"b": 1}')], {"label": "json:a"},
         ".json has no text or number 'a'; its fields are b"),
        ([("x.png", b""), ("x.json", "[1]")], {"label": "json:a"}, "its fields are none"),
        ([("x.png", b""), ("x.cls", " \n")], {}, "own.tar: .cls is empty: fill it, or leave the"),
        ([("x.png", b""), ("x.json", '{"a": ""}')], {"label": "json:a"},
         "own.tar: .json is empty at 'a': fill it, or leave the"),
        ([("x.png", b""), ("x.cls", "0"), ("x.json", '{"a": " "}')], {"group": "json:a"},
         "own.tar: .json is empty at 'a'"),
        ([("x.png", b""), ("x.cls", "-1")], {}, "has the label '-1', which is none of 2 classes"),
        ([("x.png", b""), ("x.cls", "0"), ("x.png", b"")], {}, "own.tar has a second x.png: give"),
    ],
)  # fmt: skip
def test_the_first_mismatch_is_said(root, fault, samples, params, message):
    shard(root / "own.tar", samples)
    assert message in fault(train="own.tar", **params)


def test_files_that_are_no_shards_are_said(root, fault):
    (root / "own.tar").write_bytes(b"no tar")
    assert "own.tar cannot be read as a tar file (" in fault(train="own.tar")
    assert "there is no other-*.tar; " in fault(train="other-*.tar")
    shard(root / "again.tar", [*labelled(0, 1)])
    assert "the key 'a/0000' is in *a*.tar twice" in fault(train="*a*.tar")


def test_a_broken_picture_is_named_by_its_key(root, fault):
    shard(root / "own.tar", [*labelled(0, 2), ("z.png", b"none"), ("z.cls", "0")])
    assert "picture 2 (train/z) cannot be read (its content is broken" in fault(train="own.tar")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": "{0..1}-{0..1}.tar"}, "has several ranges"),
        ({"label": "text:a"}, "must be json:FIELD"),
        ({"group": "json"}, "must be json:FIELD"),
        ({"train": "../x.tar"}, "must lie below"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        WEBDATASET.parse(params)


def test_it_conforms(root):
    results = check_plugin(WEBDATASET, data_root=root.parent)
    assert [result.message for result in results if not result.ok] == []
