"""The cache of decoded data: whole or absent, checked when read, the same for every process."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from transferbench.data import files
from transferbench.data.cache import StoredForm, missing, prepare, read_file
from transferbench.data.decoded import faults_of, read_manifest, write_manifest
from transferbench.errors import DataError, PluginError, StoreError
from transferbench.specs import DataFile, DatasetSpec, DatasetSplit, Params

SIZE = 4


class FakeParams(Params):
    shade: int = 1


class FakeLoader:
    """Counts its calls; ``change`` may spoil a split before it is handed over."""

    def __init__(self, channels=1, change=lambda split: split):
        self.channels, self.change, self.calls = channels, change, 0

    def __call__(self, params, split, root, image_size):  # noqa: ARG002  # the protocol
        self.calls += 1
        train = split == "train"
        shape = (6, image_size, image_size, self.channels)
        images = np.random.default_rng(train).integers(0, 256, shape).astype(np.uint8)
        labels = np.array([0, 1, 2, 0, 1, 2], np.int64)
        groups = np.array([f"{split}-{index // 2}" for index in range(6)])
        return self.change(DatasetSplit(images, labels, groups))


def make_spec(load=None, **changes):
    facts = {
        "name": "fake",
        "version": 1,
        "summary": "six images",
        "source": "a generator",
        "license": "none",
        "params": FakeParams,
        "load": None if "items" in changes else load or FakeLoader(),
        "classes": lambda params, root: ("a", "b", "c"),
        "channels": 1,
        "grouping": "pair",
    }
    return DatasetSpec(**(facts | changes))


def get(spec, cache, params=None, channels=1, image_size=SIZE, data_root=None):
    return prepare(
        spec,
        params or {},
        StoredForm(image_size, channels),
        cache=cache,
        data_root=data_root,
    )


def homes(cache):
    """The folders of decoded data, and those that are being written."""
    own = [path for path in cache.iterdir() if path.name not in {"verified", "unfinished"}]
    return [*own, *(cache / "unfinished").glob("*")]


def test_a_dataset_is_decoded_once_and_read_only(tmp_path):
    load = FakeLoader()
    first = get(make_spec(load), tmp_path)
    second = get(make_spec(load), tmp_path)
    assert load.calls == 2  # one for each split
    assert second.fingerprint == first.fingerprint
    assert second.classes == ("a", "b", "c")
    assert (second.task, second.metric) == ("multi-class", "accuracy")
    expected = load(None, "train", None, SIZE)
    for array, values in zip(second.splits["train"][:3], expected, strict=True):
        assert np.array_equal(array, values)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]


def test_fingerprint_is_the_hash_that_is_written_down(tmp_path):
    split = get(make_spec(), tmp_path).splits["test"]
    header = (
        b'{"groups":["test-0","test-0","test-1","test-1","test-2","test-2"],'
        b'"images":["uint8",[6,4,4,1]],"labels":["int64",[6]]}'
    )
    raw = split.images.tobytes() + split.labels.astype("<i8").tobytes()
    assert split.fingerprint == hashlib.sha256(header + raw).hexdigest()


def is_test(split):
    return split.groups[0].startswith("test")


def one_pixel(split):
    split.images[3, 2, 1, 0] ^= 1
    return split


def one_label(split):
    split.labels[:2] = split.labels[1::-1]
    return split


def one_group(split):
    split.groups[0] = split.groups[0].replace("-0", "-9")
    return split


@pytest.mark.parametrize("change", [one_pixel, one_label, one_group])
def test_fingerprints_change_with_the_smallest_change(tmp_path, change):
    plain = get(make_spec(), tmp_path / "plain")
    other = get(make_spec(FakeLoader(change=change)), tmp_path / "other")
    assert other.fingerprint != plain.fingerprint
    for name, split in plain.splits.items():
        assert other.splits[name].fingerprint != split.fingerprint


def test_fingerprints_do_not_depend_on_the_name_or_the_version(tmp_path):
    a = get(make_spec(), tmp_path)
    b = get(make_spec(name="other", version=2), tmp_path)
    assert a.fingerprint == b.fingerprint
    assert len(homes(tmp_path)) == 2


@pytest.mark.parametrize(
    "changes", [{"params": {"shade": 2}}, {"image_size": 5}, {"channels": 3}], ids=str
)
def test_each_request_has_its_own_folder(tmp_path, changes):
    get(make_spec(), tmp_path)
    get(make_spec(), tmp_path, **changes)
    assert len(homes(tmp_path)) == 2


def test_parameters_may_come_parsed(tmp_path):
    get(make_spec(), tmp_path, params=FakeParams(shade=3))
    get(make_spec(), tmp_path, params={"shade": 3})
    assert len(homes(tmp_path)) == 1


def test_wrong_parameters_are_the_users_mistake(tmp_path):
    with pytest.raises(DataError, match=r"parameters of dataset 'fake': .*\n.*shade"):
        get(make_spec(), tmp_path, params={"shade": "dark"})


# --- channels ---------------------------------------------------------------------------------


def test_one_channel_is_repeated(tmp_path):
    grey = get(make_spec(), tmp_path).splits["train"].images
    colour = get(make_spec(), tmp_path, channels=3).splits["train"].images
    assert colour.shape == (6, SIZE, SIZE, 3)
    assert np.array_equal(colour, np.concatenate([grey] * 3, axis=-1))


def test_three_channels_become_luma(tmp_path):
    spec = make_spec(FakeLoader(channels=3), channels=3)
    colour = get(spec, tmp_path, channels=3).splits["train"].images
    grey = get(spec, tmp_path).splits["train"].images[..., 0]
    exact = colour.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(grey - exact).max() <= 0.5 + 1e-9


def test_white_stays_white(tmp_path):
    def white(split):
        return split._replace(images=np.full_like(split.images, 255))

    spec = make_spec(FakeLoader(channels=3, change=white), channels=3)
    assert np.all(get(spec, tmp_path).splits["train"].images == 255)


# --- half, broken and contended ---------------------------------------------------------------


def test_an_interrupted_decode_leaves_nothing(tmp_path):
    def interrupted(split):
        if is_test(split):  # as a user does it, from outside
            # Not before it has begun to wait: an interrupted start of a process leaves it behind.
            command = f"sleep 0.2; kill -INT {os.getpid()}"
            with subprocess.Popen(["/bin/sh", "-c", command]):
                time.sleep(5)
        return split

    with pytest.raises(KeyboardInterrupt):
        get(make_spec(FakeLoader(change=interrupted)), tmp_path)
    assert homes(tmp_path) == []
    assert len(get(make_spec(), tmp_path).splits) == 2


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    drafts = tmp_path / "unfinished"
    for name, hours in [("old", 25), ("busy", 23)]:
        file = put(drafts / name, name="train.images.npy")
        for path in (file, drafts / name):
            os.utime(path, (time.time() - hours * 3600,) * 2)
    get(make_spec(), tmp_path)
    assert [path.name for path in drafts.iterdir()] == ["busy"]


def test_a_folder_that_is_sealed_again_is_whole(tmp_path):
    """As by a process that takes over what one left that was killed before it published it."""
    get(make_spec(), tmp_path)
    (home,) = homes(tmp_path)
    sealed = read_manifest(home)
    write_manifest(home, {name: sealed[name] for name in sealed.keys() - {"format", "files"}})
    assert read_manifest(home) == sealed
    assert list(faults_of(home, sealed, 0)) == []


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, remove])
@pytest.mark.parametrize(
    "name", ["manifest.json", "train.images.npy", "test.labels.npy", "test.groups.npy"]
)
def test_damage_is_found_and_repaired(tmp_path, damage, name):
    load = FakeLoader()
    whole = get(make_spec(load), tmp_path)
    fingerprint, pixels = whole.fingerprint, whole.splits["train"].images.copy()
    (home,) = homes(tmp_path)
    damage(home / name)
    again = get(make_spec(load), tmp_path)
    assert load.calls == 4
    assert again.fingerprint == fingerprint
    assert np.array_equal(again.splits["train"].images, pixels)
    assert homes(tmp_path) == [home]


def test_an_edited_manifest_is_not_believed(tmp_path):
    get(make_spec(), tmp_path)
    (home,) = homes(tmp_path)
    sealed = json.loads((home / "manifest.json").read_text())
    sealed["manifest"]["fingerprint"] = "0" * 64
    (home / "manifest.json").write_text(json.dumps(sealed))
    load = FakeLoader()
    assert get(make_spec(load), tmp_path).fingerprint != "0" * 64
    assert load.calls == 2


def test_another_process_may_finish_first(tmp_path):
    other = FakeLoader()

    def overtaken(split):
        if is_test(split):
            get(make_spec(other), tmp_path)
        return split

    late = get(make_spec(FakeLoader(change=overtaken)), tmp_path)
    assert other.calls == 2
    assert late.fingerprint == get(make_spec(other), tmp_path).fingerprint
    assert len(homes(tmp_path)) == 1


class UnreadablePath(type(Path())):
    """A folder on a disk that takes everything and gives nothing back."""

    def read_text(self, encoding=None):
        raise OSError(f"cannot read {self} as {encoding}")


def test_a_place_that_keeps_nothing_is_said(tmp_path):
    with pytest.raises(StoreError, match="is corrupt right after it was written: check the disk"):
        get(make_spec(), UnreadablePath(tmp_path))


CHILD = """
import sys
import time
from pathlib import Path
from transferbench.data.cache import StoredForm, prepare
from transferbench_plugins.datasets.glyphs import GLYPHS
found = prepare(GLYPHS, GLYPHS.tiny, StoredForm(28, 1), cache=Path(sys.argv[1]),
                data_root=None)
print(found.fingerprint, int(found.splits["train"].images.sum()))
"""


def test_two_processes_may_prepare_at_once(tmp_path):
    children = [
        subprocess.Popen(  # our own interpreter and script
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert said[0] == said[1]
    assert len(homes(tmp_path)) == 1


# --- promises ---------------------------------------------------------------------------------


def spoilt(**arrays):
    return lambda split: split._replace(**{k: v(split) for k, v in arrays.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt(images=lambda s: s.images / 255), "images are float64, expected uint8"),
        (
            spoilt(images=lambda s: s.images[:, :3]),
            r"images have shape \(6, 3, 4, 1\), expected \(N, 4, 4, 1\)",
        ),
        (spoilt(images=lambda s: s.images[:0]), "there are no images"),
        (spoilt(labels=lambda s: s.labels + 1), "labels are not all in range: expected 0 to 2"),
        (spoilt(labels=lambda s: s.labels - 1), "labels are not all in range: expected 0 to 2"),
        (
            spoilt(labels=lambda s: s.labels.astype(np.int32)),
            "labels are int32 of 1 axes, expected int64 of 1",
        ),
        (spoilt(labels=lambda s: s.labels % 2), "there are 3 classes, but no image of c"),
        (spoilt(groups=lambda s: s.groups[:-1]), r"have different lengths: \[6, 6, 5\]"),
        (
            spoilt(groups=lambda s: s.groups.astype(object)),
            "groups are object, expected one string or integer per image",
        ),
    ],
)
def test_a_broken_split_names_dataset_and_property(tmp_path, change, message):
    with pytest.raises(PluginError, match=rf"dataset 'fake', split 'train': .*{message}"):
        get(make_spec(FakeLoader(change=change)), tmp_path)
    assert homes(tmp_path) == []


def test_groups_may_not_cross_splits(tmp_path):
    def crossing(split):
        split.groups[5] = "both"
        return split

    message = r"dataset 'fake': splits 'train' and 'test' share 1 group\(s\) by pair, .*'both'"
    with pytest.raises(PluginError, match=message):
        get(make_spec(FakeLoader(change=crossing)), tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "b"), r"two classes have one name: \['a', 'b', 'b'\]"),
        (("a",), r"labels are not all in range: expected 0 to 0 for 1 classes"),
    ],
)
def test_classes_must_be_told_apart(tmp_path, names, message):
    with pytest.raises(PluginError, match=message):
        get(make_spec(classes=lambda params, root: names), tmp_path)


def test_one_class_is_nothing_to_learn(tmp_path):
    load = FakeLoader(change=spoilt(labels=lambda s: s.labels * 0))
    with pytest.raises(PluginError, match=r"it has 1 class\(es\), too few to classify"):
        get(make_spec(load, classes=lambda params, root: ("a",)), tmp_path)


def rows(split):
    return np.eye(3, dtype=np.float32)[split.labels]


def test_multi_label_rows_are_kept(tmp_path):
    load = FakeLoader(change=spoilt(labels=rows))
    prepared = get(make_spec(load, task="multi-label", metric="auc"), tmp_path)
    assert prepared.splits["test"].labels.shape == (6, 3)
    assert prepared.splits["test"].labels.dtype == np.float32
    assert (prepared.task, prepared.metric) == ("multi-label", "auc")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda s: rows(s) / 2, "labels are not all in range: expected 0 and 1"),
        (lambda s: rows(s)[:, :2], "labels have 2 columns, expected one for each of 3 classes"),
        (lambda s: rows(s).astype(bool), "labels are bool of 2 axes, expected float32 of 2"),
    ],
)
def test_broken_multi_label_rows_are_refused(tmp_path, labels, message):
    load = FakeLoader(change=spoilt(labels=labels))
    with pytest.raises(PluginError, match=message):
        get(make_spec(load, task="multi-label"), tmp_path)


# --- files ------------------------------------------------------------------------------------

CONTENT = b"some pixels" * 100
FILE = DataFile(
    path="sub/pixels.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size_bytes=len(CONTENT),
    origin="https://example.org/pixels",
)


def filed(**changes):
    return make_spec(files=(FILE,), needs_root=True, **changes)


def put(root, content=CONTENT, name=FILE.path):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("folder", ["fake", "."])
def test_files_lie_under_the_name_or_in_the_root_itself(tmp_path, folder):
    put(tmp_path / "data" / folder)
    assert missing(filed(), tmp_path / "data") == []
    assert get(filed(), tmp_path / "cache", data_root=tmp_path / "data").fingerprint


def test_a_declared_file_may_be_packed(tmp_path):
    put(tmp_path / "fake", gzip.compress(CONTENT), FILE.path + ".gz")
    assert get(filed(), tmp_path / "cache", data_root=tmp_path).fingerprint
    assert read_file(tmp_path / "fake", FILE) == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1] + b"!", "expected 1100 bytes with sha256 .*, found 1100 bytes with sha256"),
        (CONTENT[:-5], "expected 1100 bytes .*, found 1095 bytes"),
        (CONTENT + b"x", "expected 1100 bytes .*, found more"),
    ],
)
def test_other_content_is_named(tmp_path, content, message):
    put(tmp_path / "fake", content)
    complete = rf"pixels.bin is not the declared content: {message}.*get it again from https"
    with pytest.raises(DataError, match=complete):
        get(filed(), tmp_path / "cache", data_root=tmp_path)
    with pytest.raises(DataError, match=complete):
        read_file(tmp_path / "fake", FILE)


def test_a_truncated_archive_is_named(tmp_path):
    put(tmp_path / "fake", gzip.compress(CONTENT)[:-9], FILE.path + ".gz")
    with pytest.raises(DataError, match=r"pixels.bin.gz cannot be read \(.*get it again from"):
        get(filed(), tmp_path / "cache", data_root=tmp_path)


def rewrite(path, content):
    """Other content of the same size, with the times kept."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path, monkeypatch):
    path = put(tmp_path / "fake")
    get(filed(), tmp_path / "cache", data_root=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(files, "_verified_blocks", None)
        get(filed(), tmp_path / "cache", data_root=tmp_path)
    rewrite(path, b"x" * len(CONTENT))
    with pytest.raises(DataError, match="not the declared content"):
        get(filed(), tmp_path / "cache", data_root=tmp_path)


def test_an_absent_file_is_read_with_advice(tmp_path):
    with pytest.raises(DataError, match=r"no file .*pixels.bin: get it from https://example.org"):
        read_file(tmp_path, FILE)


def test_missing_data_says_where_to_get_it(tmp_path):
    advice = "get them from https://example.org/pixels; put them in FOLDER/fake and pass"
    (tmp_path / "empty").mkdir()
    for root, problem in [
        (None, "no data root was given"),
        (tmp_path / "absent", "there is no folder .*absent/fake"),
        (tmp_path / "empty", "there is no folder .*empty/fake"),
    ]:
        with pytest.raises(DataError, match=rf"dataset 'fake' reads .*{problem}: {advice}"):
            get(filed(), tmp_path / "cache", data_root=root)
    put(tmp_path / "empty" / "fake", name="another.bin")
    (lacking,) = missing(filed(), tmp_path / "empty")
    assert f"{tmp_path / 'empty' / 'fake'} has no sub/pixels.bin" in lacking


def test_a_missing_distribution_says_how_to_install_it(tmp_path):
    with pytest.raises(
        DataError, match=r"needs the distribution 'no-such-thing', .*pip install no"
    ):
        get(make_spec(requires=("no-such-thing",)), tmp_path)


# --- folders without declared files -------------------------------------------------------------


class FolderLoader(FakeLoader):
    """The first byte of ``a/1.png`` is a pixel."""

    def __call__(self, params, split, root, image_size):
        images, labels, groups = super().__call__(params, split, root, image_size)
        images[0, 0, 0, 0] = (root / "a" / "1.png").read_bytes()[0]
        return DatasetSplit(images, labels, groups)


def from_folder(load):
    return make_spec(load, needs_root=True)


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "data", name="a/1.png", content=b"1")
    return tmp_path / "data"


def fingerprint(load, folder):
    return get(from_folder(load), folder.parent / "cache", data_root=folder).fingerprint


def test_an_unchanged_folder_costs_only_stats(folder, monkeypatch):
    load = FolderLoader()
    first = fingerprint(load, folder)
    monkeypatch.setattr(files, "_content", None)
    assert fingerprint(load, folder) == first
    assert load.calls == 2


def test_a_file_more_is_decoded(folder):
    load = FolderLoader()
    fingerprint(load, folder)
    put(folder, name="a/2.png")
    fingerprint(load, folder)
    assert load.calls == 4


def in_place(path):
    rewrite(path, b"2")


def by_a_copy(path):
    other = path.with_name("other")
    shutil.copy2(path, other)
    rewrite(other, b"2")
    other.replace(path)


@pytest.mark.parametrize("change", [in_place, by_a_copy])
def test_a_picture_that_changed_with_its_size_and_time_is_decoded_again(folder, change):
    load = FolderLoader()
    path = folder / "a" / "1.png"
    before, stat = fingerprint(load, folder), path.stat()
    change(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert fingerprint(load, folder) != before


def test_a_copy_of_a_folder_is_not_decoded_again(folder):
    load = FolderLoader()
    first = fingerprint(load, folder)
    shutil.copytree(folder, folder.with_name("copy"))
    assert fingerprint(load, folder.with_name("copy")) == first
    assert load.calls == 2


def test_pictures_behind_links_are_watched(folder):
    load = FolderLoader()
    elsewhere = folder.with_name("elsewhere")
    (folder / "a").rename(elsewhere)
    (folder / "a").symlink_to(elsewhere)
    (elsewhere / "itself").symlink_to(elsewhere)
    (elsewhere / "broken").symlink_to(elsewhere / "nothing")
    before = fingerprint(load, folder)
    rewrite(elsewhere / "1.png", b"2")
    assert fingerprint(load, folder) != before


def key(folder):
    return files.content_key(folder, folder.parent / "cache")


def relink(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("target", ["a", ".", "..", "nothing", "link"])
def test_links_that_are_not_followed_are_part_of_the_key(folder, target):
    put(folder, name="b/1.png")
    keys = [key(folder)]
    for other in ("b", target, "no-thing"):
        relink(folder / "link", other)
        keys += [key(folder), key(folder)]
    assert keys[1::2] == keys[2::2]
    assert len(set(keys)) == 4
    (folder / "link").unlink()
    assert key(folder) == keys[0]


def test_a_link_behind_a_link_is_part_of_the_key(folder, tmp_path):
    for name in ("a", "b"):
        put(tmp_path, name=f"elsewhere-{name}/1.png", content=name.encode())
        relink(folder / f"linked-{name}", tmp_path / f"elsewhere-{name}")
    relink(folder / "again", tmp_path / "current")
    keys = set()
    for name in ("a", "b"):
        relink(tmp_path / "current", f"elsewhere-{name}")
        keys.add(key(folder))
    assert len(keys) == 2


@pytest.mark.parametrize("create", [Path.mkdir, os.mkfifo])
def test_empty_folders_and_pipes_are_part_of_the_key(folder, create):
    before = key(folder)
    create(folder / "a" / "more")
    assert key(folder) != before


def test_the_key_of_files_is_that_of_their_names_and_contents(folder):
    put(folder, name="a.png", content=b"2")
    texts = ["/a.png", hashlib.sha256(b"2").hexdigest(),
             "/a/1.png", hashlib.sha256(b"1").hexdigest(), ""]  # fmt: skip
    assert key(folder) == hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_names_that_are_not_text_are_listed(folder):
    put(folder, name=os.fsdecode(b"a/caf\xe9.png"))
    assert fingerprint(FolderLoader(), folder)


def test_a_folder_that_changes_while_it_is_decoded_is_not_cached(folder):
    def growing(split):
        put(folder, name=f"a/{split.groups[0]}.png")
        return split

    message = r"data changed while they were decoded \(a/test-0\.png, a/train-0\.png\): wait until"
    with pytest.raises(DataError, match=message):
        fingerprint(FolderLoader(change=growing), folder)
    assert homes(folder.parent / "cache") == []


def test_a_link_that_changes_while_images_are_decoded_is_named(folder):
    def linking(split):
        relink(folder / "link", "a")
        return split

    with pytest.raises(DataError, match=r"data changed while they were decoded \(link\): wait"):
        fingerprint(FolderLoader(change=linking), folder)


def test_of_a_file_that_grows_no_more_is_read_than_it_had(folder):
    path = folder / "growing.png"
    path.write_bytes(b"before")
    expected = files._content(str(path), path.stat())
    state = path.stat()
    path.write_bytes(b"before and after")
    assert files._content(str(path), state) == expected != files._content(str(path), path.stat())


@pytest.mark.parametrize("cache", ["cache", "store/datasets", "runs/store/datasets"])
def test_the_store_may_lie_in_the_folder(folder, cache):
    load = FolderLoader()
    for name in ("jobs/1", "jobs/2"):
        get(from_folder(load), folder / cache, data_root=folder)
        if cache != "cache":
            put((folder / cache).parent, name=name)
    assert load.calls == 2


def test_marks_of_what_was_read_are_no_condition(folder):
    load = FolderLoader()
    first = fingerprint(load, folder)
    for mark in (folder.parent / "cache" / "verified").iterdir():
        mark.write_text("no digest")
    assert fingerprint(load, folder) == first
    assert load.calls == 2


def test_the_listing_sees_linked_folders_and_any_name(tmp_path):
    load = FakeLoader()
    spec = make_spec(load, needs_root=True)
    put(tmp_path / "data", name=os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "itself").symlink_to("itself")
    (tmp_path / "elsewhere").mkdir()
    for name, calls in [("1.png", 2), ("2.png", 4)]:
        put(tmp_path / "elsewhere", name=name)
        get(spec, tmp_path / "cache", data_root=tmp_path / "data")
        get(spec, tmp_path / "cache", data_root=tmp_path / "data")
        assert load.calls == calls


def test_what_a_plugin_says_of_its_files_is_kept(tmp_path):
    load = FakeLoader()
    spec = make_spec(load, notes=lambda params, root: [os.fsdecode(b"caf\xe9")])
    for _ in range(2):
        assert get(spec, tmp_path).notes == ("caf\\udce9",)
    assert load.calls == 2


# --- fields that parameters decide ----------------------------------------------------------------


def test_parameters_may_decide_fields(tmp_path):
    leak = "published with one pair in both"

    def shared(split):
        groups = split.groups.copy()
        groups[:2] = "both"
        return split._replace(groups=groups)

    spec = make_spec(FakeLoader(change=shared), by_params=lambda params: (
        {"shared_between_splits": leak} if params.shade == 2 else {}))  # fmt: skip
    with pytest.raises(PluginError, match="share 1 group"):
        get(spec, tmp_path, {"shade": 1})
    assert get(spec, tmp_path, {"shade": 2}).shared[0].keys == 1
    assert spec.with_params(FakeParams(shade=2)).shared_between_splits == leak
    assert spec.with_params(FakeParams(shade=1)) is spec


def test_parameters_decide_no_other_field(tmp_path):
    spec = make_spec(by_params=lambda params: {"version": 2})
    message = r"dataset 'fake' failed: ValueError: by_params gives version, which parameters cannot"
    with pytest.raises(PluginError, match=message):
        get(spec, tmp_path)


def test_a_class_without_images_needs_a_reason(tmp_path):
    def lacking(split):
        return split._replace(labels=np.minimum(split.labels, 1))

    with pytest.raises(PluginError, match="there are 3 classes, but no image of c"):
        get(make_spec(FakeLoader(change=lacking)), tmp_path / "a")
    spec = make_spec(FakeLoader(change=lacking), absent_classes="published so")
    assert get(spec, tmp_path / "b").classes == ("a", "b", "c")


def test_a_folder_of_its_own_is_the_root(tmp_path):
    spec = make_spec(needs_root=True, folder="many/one")
    message = "get them from a generator; put them in FOLDER/many/one and pass --data-root"
    assert message in missing(spec, tmp_path / "none")[0]
    (tmp_path / "many" / "one").mkdir(parents=True)
    assert missing(spec, tmp_path) == []
