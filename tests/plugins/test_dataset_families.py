"""Families of datasets: torchvision's, and those of Hugging Face from files and from the hub."""

from __future__ import annotations

import bz2
import io
import json
import struct
import sys
from pathlib import Path
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


def idx(path, array, kind=8):
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes())


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


def test_the_class_of_a_digit_is_read_where_files_say_more_of_it(tmp_path):
    raw = tmp_path / "data" / "torchvision" / "QMNIST" / "QMNIST" / "raw"
    draws = np.random.default_rng(0)
    for part in ("train", "test"):
        facts = draws.integers(0, 10**5, (20, 8))
        facts[:, 0] = np.arange(20) % 10
        idx(raw / f"qmnist-{part}-images-idx3-ubyte", draws.integers(0, 256, (20, 8, 8)))
        idx(raw / f"qmnist-{part}-labels-idx2-int", facts, kind=12)
    data = prepared(TORCHVISION, tmp_path / "data", tmp_path, dataset="QMNIST")
    assert data.classes[9] == "9 - nine"
    assert data.splits["test"].labels.tolist() == [*range(10), *range(10)]


def lists(folder, **files):
    """Pictures ``a/0.jpg`` and ``b/1.jpg``, and text files."""
    for name in ("a/0.jpg", "b/1.jpg"):
        draw(folder / name)
    for name, text in files.items():
        path = folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "pictures", "files", "classes"),
    [
        ("DTD", "dtd/dtd/images", {"labels/{}1.txt": "b/1.jpg\na/0.jpg\n"}, ("a", "b")),
        ("Food101", "food-101/images", {"meta/{}.json": '{"b": ["b/1"], "a": ["a/0"]}'},
         ("a", "b")),
        ("OxfordIIITPet", "oxford-iiit-pet/images",
         {"annotations/{}.txt": "b/1 2 1 1\na/0 1 1 1\n"}, ("A/0", "B/1")),
        ("FGVCAircraft", "fgvc-aircraft-2013b/data/images",
         {"variants.txt": "A\nB\n", "images_variant_{}.txt": "b/1 B\na/0 A\n"}, ("A", "B")),
    ],
)  # fmt: skip
def test_labels_of_lists_are_indices_of_their_classes(tmp_path, name, pictures, files, classes):
    parts = [torchvision_data.KNOWN_CLASSES[name].train["split"], "test"]
    files = {file.format(part): text for file, text in files.items() for part in parts}
    lists(tmp_path / pictures, **files)
    spec = TORCHVISION.parse({"dataset": name})
    assert TORCHVISION.classes(spec, tmp_path) == classes
    for split in ("train", "test"):
        assert loaded(TORCHVISION, tmp_path, split, dataset=name).labels.tolist() == [1, 0]


def test_usps_is_read_from_its_packed_text(tmp_path):
    line = "{} " + " ".join(f"{index + 1}:{(-1) ** index}" for index in range(256)) + "\n"
    for name in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / name).write_bytes(bz2.compress("".join(map(line.format, (1, 10))).encode()))
    split = loaded(TORCHVISION, tmp_path, dataset="USPS")
    assert split.labels.tolist() == [0, 9]


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


def test_the_order_of_pictures_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    pictures = tmp_path / "SUN397" / "SUN397"
    for name in ("a/abbey/sun_1", "a/abbey/sun_2", "b/bog/sun_0", "b/bog/sun_3"):
        draw(pictures / f"{name}.jpg")
    (pictures / "ClassName.txt").write_text("/a/abbey\n/b/bog\n")
    parts, listed = [], Path.rglob
    for reverse in (False, True):
        monkeypatch.setattr(Path, "rglob", lambda folder, pattern, reverse=reverse: sorted(
            listed(folder, pattern), reverse=reverse))  # fmt: skip
        for split in ("train", "test"):
            part = loaded(TORCHVISION, tmp_path / "SUN397", split, dataset="SUN397", test_share=0.4)
            parts.append((part.labels.tolist(), part.groups.tolist(), part.images.tolist()))
    assert parts[:2] == parts[2:]


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
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    save_parquet(folder, "train", "data/{}-00000-of-00002.parquet")
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
    next((folder / "data").glob("train*")).unlink()
    save_to_disk(folder / "train", table())
    assert "split 'train' is in train and 'test' in data: put both into one" in fault(label="kind")
    path.unlink()
    save_to_disk(folder / "test", table())
    (folder / "train" / "data-00001-of-00002.arrow").unlink()
    assert "train is no whole folder of save_to_disk (" in fault()


@pytest.mark.parametrize(
    "name",
    [
        "data/{}_unlabelled-00000-of-00001.parquet",
        "data/{}-extra.parquet",
        "data/{}ing.parquet",
        "other/{}_2/0000.parquet",
        "data/._{}.parquet",
        ".cache/{}-00000-of-00001.parquet",
        "__MACOSX/{}/0000.parquet",
    ],
)
def test_files_of_another_name_are_not_of_the_split(folder, name):
    save_parquet(folder, "train", name)
    assert len(loaded(HUGGINGFACE, folder, dataset="owner/pets").labels) == 4


@pytest.mark.parametrize(
    "names",
    [
        ["{}.parquet"],
        ["data/{}-00000-of-00001-0a1b2c3d4e5f6789.parquet"],
        ["data/{}_0.parquet", "data/{}_1.parquet"],
        ["{}1.parquet", "{}2.parquet"],
        ["default/{}/0000.parquet", "default/{}/0001.parquet"],
        ["{}/part-00000-c000.parquet", "{}/part-00001-c000.parquet"],
        ["{}_pictures/{}.parquet"],
    ],
)
def test_files_of_a_split_are_named_in_several_ways(tmp_path, names):
    for split in ("train", "test"):
        for name in names:
            save_parquet(tmp_path, split, name.replace("{}", split))
    for split in ("train", "test"):
        assert len(loaded(HUGGINGFACE, tmp_path, split, dataset="x").labels) == 4 * len(names)


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002.parquet"],
        ["data/train-00001-of-00002.parquet", "data/train-00001-of-00003.parquet"],
        ["data/train-00000-of-00001.parquet", "data/train.parquet"],
        ["data/train-00000-of-00001.parquet", "data/train-00000-of-00001-0a1b.parquet"],
        ["data/train2014.parquet", "data/train2017.parquet"],
        ["train/data-00000-of-00002.parquet"],
    ],
)
def test_files_that_are_not_all_of_one_split_are_refused(folder, fault, names):
    next((folder / "data").glob("train*")).unlink()
    for name in names:
        save_parquet(folder, name=name)
    message = fault()
    assert all(name.partition("/")[2] in message for name in names)
    assert "of split 'train', not all its files from the first to the last: get what is" in message


def test_one_of_several_files_is_a_split_by_its_full_name(tmp_path):
    for index in (1, 10, 11, 12):
        save_parquet(tmp_path, name=f"fold_{index}.parquet", count=index)
    params = {"dataset": "x", "train": "fold_1", "test": "fold_12"}
    assert len(loaded(HUGGINGFACE, tmp_path, **params).labels) == 1
    assert len(loaded(HUGGINGFACE, tmp_path, "test", **params).labels) == 12


def test_of_several_configurations_one_is_named(tmp_path):
    for name, count in (("breeds", 4), ("colours", 6)):
        for split in ("train", "test"):
            save_parquet(tmp_path / "data/huggingface/pets" / name, split, count=count)
    data = tmp_path / "data"
    message = refused(HUGGINGFACE, data, tmp_path, dataset="pets")
    assert (
        "split 'train' is in breeds/data, colours/data: name one of these folders with" in message
    )
    message = refused(HUGGINGFACE, data, tmp_path, dataset="pets", configuration="colors")
    assert "there is no folder 'colors' of a configuration; " in message
    assert "pets has breeds/, colours/" in message
    root = data / "huggingface" / "pets"
    assert len(loaded(HUGGINGFACE, root, dataset="pets", configuration="colours").labels) == 6
    save_to_disk(root / "breeds" / "train", table())
    message = refused(HUGGINGFACE, data, tmp_path, dataset="pets", configuration="breeds")
    assert "split 'train' is in data, train: name one of these folders" in message


def test_splits_of_two_configurations_are_refused(tmp_path):
    root = tmp_path / "data" / "huggingface" / "pets"
    save_parquet(root, "train", "breeds/{}/0000.parquet")
    save_parquet(root, "test", "colours/{}/0000.parquet")
    message = refused(HUGGINGFACE, tmp_path / "data", tmp_path, dataset="pets")
    assert "split 'train' is in breeds/train and 'test' in colours/test: put both into" in message


def test_classes_are_declared_alike_by_all_files(folder, fault):
    other = FEATURES | {"kind": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    save_parquet(folder, "test", features=other)
    assert (
        "'train' and 'test' declare other classes in column 'kind', cat, dog and dog, " in fault()
    )
    next((folder / "data").glob("test*")).unlink()
    save_parquet(folder, "test", "data/{}_0.parquet")
    save_parquet(folder, "test", "data/{}_1.parquet", features=other)
    assert (
        "test_1.parquet declares other columns or classes than test_0.parquet: they are of two"
        in fault()
    )


@pytest.mark.parametrize(("params", "column"), [({}, "kind"), ({"group": "person"}, "person")])
def test_a_row_without_a_label_or_a_group_is_said(folder, fault, params, column):
    for split in ("train", "test"):
        save_parquet(folder, split, features=None, kind=["a", "b", "a", "b"])
    columns = {"kind": ["a", "b", "a", "b"]} | {column: ["a", "b", " ", "b"]}
    save_parquet(folder, "test", features=None, **columns)
    message = f"row 2 has ' ' in column {column!r}, expected a number or a name"
    assert message in fault(image="img", label="kind", **params)


@pytest.mark.parametrize(
    "params",
    [{"train": "../train"}, {"test": "/etc"}, {"configuration": ".."}, {"dataset": "../x"}],
)
def test_nothing_outside_the_folder_is_read(params):
    with pytest.raises(ValidationError, match="must lie below the dataset's root"):
        HUGGINGFACE.parse({"dataset": "owner/pets"} | params)


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
