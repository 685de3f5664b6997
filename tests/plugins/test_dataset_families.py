"""Families of datasets: torchvision's, and those of Hugging Face from files and from the hub."""

from __future__ import annotations

import io
import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import suite_file
from official_layouts import draw, loaded, noise, prepared, refused
from pydantic import ValidationError
from tiny_suite import TINY

from transferbench.conformance import check_plugin
from transferbench.errors import PluginError, SuiteError, UnknownNameError
from transferbench.registry import load_registry
from transferbench.suite.loading import load_suite
from transferbench_plugins.datasets import torchvision_data
from transferbench_plugins.datasets.huggingface import HUGGINGFACE
from transferbench_plugins.datasets.torchvision_data import TORCHVISION

REGISTRY = load_registry()

# --- names ----------------------------------------------------------------------------------------


def test_a_member_sets_its_parameter():
    spec = REGISTRY.dataset("torchvision/MNIST")
    assert spec.parse({}).dataset == "MNIST"
    assert spec.with_params(spec.parse({})).folder == "torchvision/MNIST"
    assert REGISTRY.origin("dataset", "torchvision/MNIST").startswith("transferbench ")
    assert REGISTRY.dataset("huggingface/owner/name").parse({}).dataset == "owner/name"


def test_a_member_is_not_named_twice():
    spec = REGISTRY.dataset("torchvision/MNIST")
    assert spec.accepts({"dataset": "MNIST"})
    with pytest.raises(ValidationError, match="the dataset's name says another one"):
        spec.parse({"dataset": "CIFAR10"})


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("torchvision/MNISt", UnknownNameError, "no torchvision dataset named 'MNISt'; did you me"),
        ("torchvison/MNIST", UnknownNameError, "no dataset named 'torchvison'; did you mean 'torc"),
        ("digits/MNIST", PluginError, "dataset 'digits' has no members, so no 'digits/MNIST'"),
    ],
)
def test_names_that_nothing_offers_are_refused(name, kind, message):
    with pytest.raises(kind, match=message):
        REGISTRY.dataset(name)


def test_a_suite_names_a_member(tmp_path):
    def suite(name, **params):
        dataset = {"dataset": {"name": name, "params": params}}
        target = TINY["targets"]["handwriting"] | dataset
        path = suite_file(tmp_path, TINY, targets={"handwriting": target})
        return load_suite(str(path), REGISTRY)

    assert suite("torchvision/MNIST").targets["handwriting"].dataset.name == "torchvision/MNIST"
    with pytest.raises(SuiteError, match="no torchvision dataset named 'MNISt'"):
        suite("torchvision/MNISt")
    with pytest.raises(SuiteError, match="the dataset's name says another one"):
        suite("torchvision/MNIST", dataset="USPS")


# --- torchvision ----------------------------------------------------------------------------------


def idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path):
    draws = np.random.default_rng(0)
    raw = tmp_path / "data" / "torchvision" / "MNIST" / "MNIST" / "raw"
    for part, count in (("train", 20), ("t10k", 10)):
        idx(raw / f"{part}-images-idx3-ubyte", draws.integers(0, 256, (count, 8, 8)))
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path / "data"


def test_torchvision_opens_its_own_files(mnist, tmp_path):
    data = prepared(TORCHVISION, mnist, tmp_path, dataset="MNIST")
    assert len(data.classes) == 10
    assert data.splits["train"].labels.tolist() == [*range(10), *range(10)]
    raw = (mnist / "torchvision/MNIST/MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
    pixels = np.frombuffer(raw, np.uint8).reshape(10, 8, 8, 1)
    assert np.array_equal(data.splits["test"].images, np.repeat(pixels, 3, axis=3))
    assert data.splits["test"].groups[0] == "test-0"


def test_without_a_published_split_a_hash_selects_test_pictures(tmp_path):
    root = tmp_path / "data" / "torchvision" / "EuroSAT"
    for name in ("Forest", "River"):
        for index in range(8):
            draw(root / "eurosat" / "2750" / name / f"{index}.jpg")
    parts = [loaded(TORCHVISION, root, split, dataset="EuroSAT", test_share=0.4)
             for split in ("train", "test")]  # fmt: skip
    keys = [set(part.groups.tolist()) for part in parts]
    assert not keys[0] & keys[1]
    assert keys[0] | keys[1] == {f"all-{index}" for index in range(16)}
    assert set(parts[0].labels.tolist()) == {0, 1}


def test_files_that_are_not_there_come_with_the_command(mnist, tmp_path):
    (mnist / "torchvision" / "USPS").mkdir()
    message = refused(TORCHVISION, mnist, tmp_path, dataset="USPS")
    assert "dataset 'torchvision/USPS': torchvision does not open it in " in message
    assert "import torchvision.datasets as d; d.USPS('" in message
    assert "', train=True, download=True)" in message


def test_the_listed_classes_are_torchvisions():
    import torchvision.datasets as library

    assert all(hasattr(library, name) for name in torchvision_data.KNOWN_CLASSES)


# --- Hugging Face ---------------------------------------------------------------------------------

FEATURES = {
    "img": {"_type": "Image"},
    "kind": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    "person": {"_type": "Value", "dtype": "string"},
}


def content():
    stream = io.BytesIO()
    noise().save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def table(count=4, features=FEATURES, **changes):
    columns = {
        "img": [content() for _ in range(count)],
        "kind": [index % 2 for index in range(count)],
        "person": [f"p{index // 2}" for index in range(count)],
    } | changes
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else {}
    return pa.table(columns).replace_schema_metadata(metadata)


def save_parquet(folder, split="train", name="data/{}-00000-of-00001.parquet", **options):
    path = folder / name.format(split)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(**options), path, row_group_size=2)


def save_to_disk(folder, content_of_rows, features=FEATURES):
    """As ``Dataset.save_to_disk`` writes it, in two files."""
    folder.mkdir(parents=True)
    names = [f"data-0000{index}-of-00002.arrow" for index in range(2)]
    halves = content_of_rows.slice(0, 2), content_of_rows.slice(2)
    for name, part in zip(names, halves, strict=True):
        with pa.ipc.new_stream(str(folder / name), part.schema) as writer:
            writer.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data" / "huggingface" / "owner" / "pets"
    for split in ("train", "test"):
        save_parquet(path, split, person=[f"{split}{index // 2}" for index in range(4)])
    return path


@pytest.fixture
def fault(folder, tmp_path):
    data = folder.parents[2]
    return lambda **params: refused(HUGGINGFACE, data, tmp_path, dataset="owner/pets", **params)


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_files_are_read_with_the_columns_that_they_declare(form, folder, tmp_path):
    if form == "saved":
        for split in ("train", "test"):
            rows = pq.read_table(next((folder / "data").glob(f"{split}*")))
            save_to_disk(folder / split, rows)
        (folder / "data").rename(tmp_path / "away")
    data = prepared(HUGGINGFACE, tmp_path / "data", tmp_path, dataset="owner/pets", group="person")
    assert data.classes == ("cat", "dog")
    assert data.splits["train"].labels.tolist() == [0, 1, 0, 1]
    assert data.splits["train"].groups.tolist() == ["train0", "train0", "train1", "train1"]
    source = tmp_path / "away" if form == "saved" else folder / "data"
    rows = pq.read_table(next(source.glob("test*"))).column("img").to_pylist()
    from PIL import Image

    expected = np.asarray(Image.open(io.BytesIO(rows[3]["bytes"])))
    assert np.array_equal(data.splits["test"].images[3], expected)


def test_columns_without_a_declaration_are_found_by_name(folder):
    columns = {"image": [content()["bytes"] for _ in range(4)], "label": ["b", "a", "b", "a"]}
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
        next((folder / "data").glob(f"{split}*")).unlink()
    split = loaded(HUGGINGFACE, folder, dataset="owner/pets")
    assert split.labels.tolist() == [1, 0, 1, 0]
    assert split.groups[0] == "train-0"


def test_several_files_and_row_groups_keep_their_order(folder):
    save_parquet(folder, "train", "data/{}-00001-of-00002.parquet", count=5)
    split = loaded(HUGGINGFACE, folder, dataset="owner/pets")
    assert len(split.labels) == 9
    rows = pq.read_table(folder / "data" / "train-00001-of-00002.parquet").column("img")
    from PIL import Image

    expected = np.asarray(Image.open(io.BytesIO(rows[4].as_py()["bytes"])))
    assert np.array_equal(split.images[8], expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"test": "validation"}, "no split 'validation' in "),
        ({"label": "knid"}, "has no column 'knid'; did you mean 'kind'?"),
        ({"label": "img"}, "in column 'img', expected a number or a name: give another column"),
        ({"image": "person"}, "cannot be read (No such file or directory)"),
    ],
)
def test_the_first_mismatch_is_said(fault, params, message):
    assert message in fault(**params)


def test_files_of_other_content_are_said(folder, fault):
    path = next((folder / "data").glob("test*"))
    pq.write_table(table(kind=[0, 1, -1, 0]), path)
    assert "row 2 has the label -1, which is none of 2 classes; rows without labels" in fault()
    pq.write_table(table(features=None), path)
    pq.write_table(table(features=None), next((folder / "data").glob("train*")))
    assert "has the columns img, kind, person: say with the parameter label" in fault()
    path.write_bytes(b"PAR1")
    assert "cannot be read (" in fault(label="kind")
    save_to_disk(folder / "train", table())
    (folder / "train" / "data-00001-of-00002.arrow").unlink()
    assert "train is no whole folder of save_to_disk (" in fault()


def test_the_hub_is_read_at_a_revision(tmp_path, monkeypatch):
    requested = []

    def load_dataset(name, configuration, *, revision, split):
        if revision == "lost":
            raise FileNotFoundError("no such revision")
        requested.append((name, configuration, revision, split))
        return SimpleNamespace(data=SimpleNamespace(table=table()))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    params = {"dataset": "owner/pets", "revision": "abc"}
    data = prepared(HUGGINGFACE, None, tmp_path, **params)
    assert data.splits["test"].labels.tolist() == [0, 1, 0, 1]
    assert set(requested) == {("owner/pets", None, "abc", split) for split in ("train", "test")}
    message = refused(HUGGINGFACE, None, tmp_path, **(params | {"revision": "lost"}))
    assert "the hub gave no split 'train' of revision 'lost' (no such revision)" in message


def test_the_hub_without_its_library_is_refused_with_the_way_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = refused(HUGGINGFACE, None, tmp_path, dataset="owner/pets", revision="abc")
    assert (
        "which is not installed: pip install 'transferbench[huggingface]', or download" in message
    )


def test_without_a_folder_the_way_on_is_said(tmp_path):
    message = refused(HUGGINGFACE, None, tmp_path, dataset="owner/pets")
    assert "put them in FOLDER/huggingface/owner/pets and pass --data-root FOLDER" in message


@pytest.mark.parametrize("name", ["torchvision/MNIST", "huggingface/owner/pets"])
@pytest.mark.usefixtures("mnist", "folder")
def test_families_conform(name, tmp_path):
    results = check_plugin(REGISTRY.dataset(name), data_root=tmp_path / "data")
    assert [result.message for result in results if not result.ok] == []
    assert len([result for result in results if result.status == "passed"]) > 5
