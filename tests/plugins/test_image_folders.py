"""A folder of pictures: none is lost or added in silence, whatever lies in it and is its name."""

import os
import re
import shutil
import socket
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from command_line import cli, suite_file
from PIL import Image
from pydantic import ValidationError
from tiny_suite import TINY

from transferbench.data import folders
from transferbench.data.cache import StoredForm, prepare
from transferbench.data.items import decoded_split
from transferbench.errors import DataError
from transferbench_plugins.datasets import _group_keys
from transferbench_plugins.datasets.image_folder import IMAGE_FOLDER, ImageFolderParams

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
TWO = {"train": "train", "test": "test"}


def paint(path, value=100, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 0, 0)).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Two splits of two classes, two pictures of each."""
    for shift, split in enumerate(("train", "test")):
        for count, name in enumerate(("cat", "dog")):
            for index in range(2):
                paint(tmp_path / "image-folder" / split / name / f"{index}.png",
                      10 + 100 * shift + 40 * count + 5 * index)  # fmt: skip
    return tmp_path / "image-folder"


def load(root, split="train", **params):
    return decoded_split(IMAGE_FOLDER, ImageFolderParams(**params), split, root, 8)


def groups(root, split="train", **params):
    return load(root, split, **(params or TWO)).groups.tolist()


def notes(root, **params):
    return IMAGE_FOLDER.notes(ImageFolderParams(**(params or TWO)), root)


def fault(root, **params):
    """What both the look at the folders and the reading of the training split say."""
    params = ImageFolderParams(**(params or TWO))
    with pytest.raises(DataError) as first:
        IMAGE_FOLDER.notes(params, root)
    with pytest.raises(DataError) as second:
        [decoded_split(IMAGE_FOLDER, params, split, root, 8) for split in ("train", "test")]
    assert str(first.value) == str(second.value)
    return str(first.value)


# --- which files are taken ------------------------------------------------------------------------


def test_all_endings_of_pictures_are_taken(root):
    endings = (".tiff", ".jfif", ".jpe", ".jp2", ".pnm", ".dib", ".tga", ".PNG", ".apng", ".webp")
    for number, ending in enumerate(endings):
        paint(root / "train" / "cat" / f"new{number}{ending}")
    assert sum("new" in group for group in groups(root)) == len(endings)


def test_what_is_taken_and_ignored_is_counted(root):
    for name in ("notes.txt", "MORE.TXT", "scan.heic", "README", "paper.pdf", "chart.eps",
                 ".hidden.png", "._0.png", ".DS_Store", "Thumbs.db", "x.an ending of many words",
                 ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/a/0.png", "a/.cache/1.png",
                 "@eaDir/0.jpg/thumb.jpg"):  # fmt: skip
        (root / "train" / "cat" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / "cat" / name).write_bytes(b"none")
    (root / "train" / "beside.png").touch()
    (root / "train" / ".git").mkdir()
    (root / "train" / "__MACOSX").mkdir()
    train, test = notes(root)
    assert train == (
        "'train' has 4 pictures in 2 classes; 16 other files: 8 hidden, 2 .txt, 1 .eps (needs "
        "Ghostscript), 1 .heic (Pillow cannot open it), 1 .pdf (Pillow cannot open it), 1 of other "
        "endings, 1 outside the class folders, 1 without an ending"
    )
    assert test == "'test' has 4 pictures in 2 classes; no other files"
    assert len(groups(root)) == 4


def test_domains_in_the_place_of_classes_are_noticed(root):
    """Real pictures of cats and dogs, and drawn ones."""
    (root / "train").rename(root / "real")
    (root / "test").rename(root / "drawn")
    assert notes(root, train=".")[1] == (
        "each class of '.' has the folders cat, dog inside, as domains of classes have: if these "
        "are the classes, name one domain in train"
    )
    assert len(notes(root, train="real")) == 1
    paint(root / "real" / "beside.png")
    assert len(notes(root, train=".")) == 1
    for domain in ("real", "drawn"):
        (root / f"{domain}_train.txt").touch()
    message = fault(root, train=".")
    assert "has DomainNet's domains with their lists, and no class folders: use the" in message


def test_the_counts_are_a_fact_of_the_prepared_data(root, tmp_path):
    (root / "test" / "dog" / "notes.txt").touch()
    for _ in range(2):
        dataset = prepare(IMAGE_FOLDER, TWO, StoredForm(8, 3), cache=tmp_path / "cache",
                          data_root=tmp_path)  # fmt: skip
        assert dataset.notes[1] == "'test' has 4 pictures in 2 classes; 1 other file: 1 .txt"


def test_the_command_line_says_what_was_taken_and_ignored(root, tmp_path):
    (root / "train" / "cat" / "notes.txt").touch()
    target = TINY["targets"]["handwriting"] | {
        "dataset": {"name": "image-folder", "params": TWO},
        "labels_per_class": 1,
        "validation": 0,
    }
    path = suite_file(tmp_path, TINY, targets={"handwriting": target})
    said = cli("prepare", path, "--data-root", tmp_path, "--out", tmp_path / "run")
    assert said.code == 0, said
    assert "handwriting: 'train' has 4 pictures in 2 classes; 1 other file: 1 .txt\n" in said.err
    assert "handwriting: 'test' has 4 pictures in 2 classes; no other files\n" in said.err


def test_links_are_followed(root, tmp_path):
    for index in range(5):
        paint(tmp_path / "elsewhere" / "deep" / f"{index}.png")
    paint(tmp_path / "emu" / "0.png")
    paint(tmp_path / "single.png")
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "cat" / "linked.png").symlink_to(tmp_path / "single.png")
    for split in ("train", "test"):
        (root / split / "emu").symlink_to(tmp_path / "emu")
    names = groups(root)
    assert names[:8] == ["train/cat/0.png", "train/cat/1.png", "train/cat/linked.png",
                         *(f"train/cat/more/deep/{index}.png" for index in range(5))]  # fmt: skip
    assert names[-1] == "train/emu/0.png"
    assert load(root, **TWO).labels.tolist() == [0] * 8 + [1] * 2 + [2]


def test_a_folder_is_read_again_where_a_link_leads_elsewhere(root):
    paint(root / "more" / "cat" / "2.png", 60)
    shutil.copytree(root / "train", root / "more", dirs_exist_ok=True)
    (root / "train").rename(root / "first")
    for target, count in [("first", 4), ("more", 5)]:
        (root / "train").unlink(missing_ok=True)
        (root / "train").symlink_to(target)
        data = prepare(IMAGE_FOLDER, TWO, StoredForm(8, 3), cache=root.parent / "cache",
                       data_root=root.parent)  # fmt: skip
        assert len(data.splits["train"].labels) == count
        assert data.notes[0] == f"'train' has {count} pictures in 2 classes; no other files"


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../dog", "deep"])
def test_a_link_that_counts_pictures_twice_is_refused(root, target):
    paint(root / "train" / "cat" / "deep" / "2.png")
    (root / "train" / "cat" / "link").symlink_to(target)
    assert "train/cat/link leads to /" in fault(root)
    assert "whose pictures would count twice: remove the link" in fault(root)


def test_two_classes_cannot_be_one_folder(root):
    for split in ("train", "test"):
        (root / split / "kitten").symlink_to("cat")
    assert "train/kitten leads to " in fault(root)


def test_two_splits_cannot_be_one_folder(root):
    (root / "again").symlink_to("train")
    message = fault(root, train="train", test="again")
    assert "folders 'train' and 'again' are the same or one contains the other" in message
    assert "'.' and 'test' are the same or one contains" in fault(root, train=".", test="test")


# --- what should be a picture and is none ---------------------------------------------------------


def dangling(path):
    path.symlink_to("nothing")


def to_itself(path):
    path.symlink_to(path.name)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()  # noqa: PTH109  # a socket's path is short
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(before)


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (os.mkfifo, "is not a file but a pipe, a socket or a device: remove it"),
        (listening, "is not a file but a pipe, a socket or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file but a pipe, a socket"),
        (os.mkdir, "is a folder without pictures, not a picture: remove it"),
        (dangling, "is a link to nothing, where nothing is: restore that, or remove the link"),
        (to_itself, "is a link to x.png, where nothing is"),
    ],
)
def test_what_has_the_name_of_a_picture_and_is_none_is_named(root, create, reason):
    create(root / "train" / "cat" / "x.png")
    assert f"train/cat/x.png {reason}" in fault(root)


def test_a_folder_may_be_called_like_a_picture(root):
    paint(root / "train" / "cat" / "frames.rgb" / "2.png")
    assert "train/cat/frames.rgb/2.png" in groups(root)


def test_a_link_to_a_lost_folder_is_named(root):
    (root / "train" / "emu").symlink_to("/no/such/folder")
    assert "train/emu is a link to /no/such/folder, where nothing is" in fault(root)


def test_a_key_is_one_however_its_letters_are_written(root):
    paint(root / "train" / "cat" / f"{NFC}_1.png", 7)
    paint(root / "test" / "cat" / f"{NFD}_2.png", 8)
    for split in ("train", "test"):
        for path in (root / split).rglob("[01].png"):
            path.rename(path.with_name(f"{split}{path.parent.name}_{path.name}"))
    keys = [set(groups(root, split, **TWO, group="^([^_]+)_")) for split in ("train", "test")]
    assert set.intersection(*keys) == {NFC}


def test_a_link_into_a_hidden_folder_is_followed(root):
    (root / "train" / ".store").mkdir()
    (root / "train" / "cat").rename(root / "train" / ".store" / "cat")
    (root / "train" / "cat").symlink_to(Path(".store") / "cat")
    assert load(root, **TWO).labels.tolist() == [0, 0, 1, 1]
    assert "'train' has 4 pictures in 2 classes; 1 other file: 1 hidden" in notes(root)


def test_pipes_and_links_that_are_no_pictures_are_counted(root):
    os.mkfifo(root / "train" / "cat" / "pipe")
    (root / "train" / "cat" / "gone.txt").symlink_to("nothing")
    assert "2 other files: 1 .txt, 1 without an ending" in notes(root)[0]


# --- what never ends --------------------------------------------------------------------------


def refused(root):
    """The message of preparing the data, which has to end soon."""
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        prepare(IMAGE_FOLDER, TWO, StoredForm(8, 3), cache=root.parent / "cache",
                data_root=root.parent)  # fmt: skip
    assert time.monotonic() - started < 20
    return str(caught.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("target", ["/proc", "/proc/self/task", "/dev/fd"])
def test_a_link_to_what_the_system_makes_up_is_refused(root, target):
    (root / "train" / "cat" / "link").symlink_to(target)
    assert re.search(r"train/cat/link leads to /(proc|dev)\b.*, where nothing is stored: remove the"
                     " link", refused(root))  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/maps"])
def test_a_file_without_a_size_is_not_read(root, target):
    """Reading the messages of the kernel waits for the next one."""
    (root / "train" / "cat" / "x.png").symlink_to(target)
    assert "train/cat/x.png cannot be read (it is empty): replace or remove it" in refused(root)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"P6 8 8 255\n"])
def test_a_file_that_is_too_large_is_not_read(root, content):
    with (root / "train" / "cat" / "x.png").open("wb") as stream:
        stream.write(content)
        stream.truncate(50 * 10**9)  # takes no room
    assert ("train/cat/x.png cannot be read (it has 50.0 GB, more than a picture may have): replace"
            in refused(root))  # fmt: skip


def test_a_link_to_a_huge_tree_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_LINKED_FOLDERS", 20)
    for number in range(19):
        paint(tmp_path / "elsewhere" / f"{number}" / "x.png")
    (root / "train" / "cat" / "link").symlink_to(tmp_path / "elsewhere")
    assert "train/cat/link/9/x.png" in groups(root)
    (tmp_path / "elsewhere" / "one" / "more").mkdir(parents=True)
    expected = (f"train/cat/link leads to {tmp_path / 'elsewhere'}, and links lead to more than 20 "
                "folders: link the folders of pictures alone")  # fmt: skip
    assert expected in refused(root)


def test_faults_are_listed_together(root):
    for index in range(12):
        dangling(root / "train" / "cat" / f"x{index:02d}.png")
    assert fault(root).count("\n  ") == 9
    assert "and 2 more" in fault(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(root):
    (root / "train" / "cat" / "0.png").chmod(0)
    with pytest.raises(DataError, match=r"0.png cannot be read \(Permission denied\)"):
        load(root, **TWO)
    (root / "train" / "cat").chmod(0)
    assert "train/cat cannot be read (Permission denied)" in fault(root)
    (root / "train" / "cat").chmod(0o700)


# --- empty classes ------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_named_with_its_split(root, split):
    for name in ("train", "test"):
        paint(root / name / "emu" / "0.png")
    (root / split / "emu" / "0.png").rename(root / split / "emu" / "0.heic")
    assert fault(root).endswith(
        f"class 'emu' has no picture in '{split}' (1 other file: 1 .heic (Pillow cannot open it)): "
        "add pictures, or remove its folder"
    )


def test_a_share_without_a_class_is_named(root):
    for share, split in [(0.001, "test"), (0.999, "train")]:
        with pytest.raises(DataError) as error:
            notes(root, train="train", test_share=share)
        assert str(error.value).startswith(
            f"dataset 'image-folder': with test_share {share} no picture of class 'cat', 'dog' is "
            f"in the split {split!r}: add pictures, choose another share, or "
        )


# --- names ------------------------------------------------------------------------------------


def test_a_name_is_compared_as_it_is_read(root):
    paint(root / "train" / NFC / "0.png")
    paint(root / "test" / NFD / "0.png", 200)
    assert IMAGE_FOLDER.classes(ImageFolderParams(**TWO), root) == (NFC, "cat", "dog")
    assert load(root, "train", **TWO).labels.tolist() == [0, 1, 1, 2, 2]
    test = load(root, "test", **TWO)
    assert test.labels.tolist() == [0, 1, 1, 2, 2]
    assert test.images[0, 0, 0].tolist() == [200, 0, 0]
    assert notes(root)[2:] == [
        r"class 'café' is written 'caf\xe9' and 'cafe\u0301': taken as the same"
    ]


@pytest.mark.parametrize(
    ("train", "test", "difference"),
    [
        ("Emu", "emu", "only one has: Emu, emu ('Emu' in 'train' is 'emu' in 'test')"),
        ("emu", " emu", "('emu' in 'train' is ' emu' in 'test')"),
        ("emu bird", "emu_bird", "('emu bird' in 'train' is 'emu_bird' in 'test')"),
        ("ﬁsh", "fish", r"('\ufb01sh' in 'train' is 'fish' in 'test')"),
        ("emu", ".emu", "only one has: emu ('emu' in 'train' only)"),
        ("emu", "ibis", "only one has: emu, ibis ('emu' in 'train' only; 'ibis' in 'test' only)"),
        ("e" * 250, "ibis", "'ibis' in 'test' only"),
        ("---", "+++", "('---' in 'train' only; '+++' in 'test' only)"),
    ],
)
def test_classes_that_differ_are_named(root, train, test, difference):
    paint(root / "train" / train / "0.png")
    paint(root / "test" / test / "0.png")
    with pytest.raises(DataError) as error:
        IMAGE_FOLDER.classes(ImageFolderParams(**TWO), root)
    assert difference in str(error.value)
    assert difference in fault_of_loading(root)


def fault_of_loading(root):
    with pytest.raises(DataError) as error:
        load(root, **TWO)
    return str(error.value)


UNPRINTABLE = "has characters that cannot be printed"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (" ", "a class is called ' ', which shows nothing"),
        ("a\nb", rf"the name of class 'a\nb' {UNPRINTABLE}"),
        ("a\x1b[1mb", rf"the name of class 'a\x1b[1mb' {UNPRINTABLE}"),
        (os.fsdecode(b"caf\xe9"), rf"the name of class 'caf\udce9' {UNPRINTABLE}"),
        ("\u200b\u202e", r"a class is called '\u200b\u202e', which shows nothing"),
        ("a\u2028b", rf"the name of class 'a\u2028b' {UNPRINTABLE}"),
        ("cat ", "2 classes look the same: 'cat', 'cat '"),
        ("c\u200bat", r"2 classes look the same: 'cat', 'c\u200bat'"),
    ],
)
def test_names_that_cannot_be_told_apart_or_printed_are_refused(root, name, reason):
    for split in ("train", "test"):
        paint(root / split / name / "0.png")
    message = fault(root)
    assert message == f"dataset 'image-folder': in 'train' {reason}: rename the folders"


def test_two_spellings_in_a_folder_are_refused(root):
    paint(root / "train" / NFC / "0.png")
    paint(root / "train" / NFD / "0.png")
    assert r"in 'train' 2 classes look the same: 'cafe\u0301', 'caf\xe9': rename" in fault(root)


def test_any_name_of_a_file_is_taken(root):
    names = [os.fsdecode(b"caf\xe9.png"), "a\nb.png", " .png", f"{'x' * 240}.png", "ünï.png"]
    for number, name in enumerate(names):
        paint(root / "train" / "cat" / name, number)
    keys = groups(root)
    assert "train/cat/caf\\udce9.png" in keys
    assert len(set(keys)) == 4 + len(names)
    "".join(keys).encode()
    assert len(groups(root, train="train", test="test", group="^(.)")) == 4 + len(names)


def test_a_missing_folder_is_named(root):
    assert "there is no folder" in fault(root, train="tr\0ain")


# --- keys of groups -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(" * 2000 + "a" + ")" * 2000, "is not a regular expression: nested too deeply"),
        ("(a{99999999999})", "is not a regular expression: the repetition number is too large"),
        ("(a", "is not a regular expression: missing"),
        ("a*", r"needs a group \(...\) that matches the grouping key"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, message):
    with pytest.raises(ValidationError, match=message):
        ImageFolderParams(group=pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "^(a*)*c"])
def test_a_pattern_that_never_ends_is_stopped(root, monkeypatch, pattern):
    monkeypatch.setattr(_group_keys, "LIMIT_SECONDS", 0.3)
    paint(root / "train" / "cat" / f"{'a' * 60}.png")
    with pytest.raises(DataError, match=r"was not through 5 names after 0 s: some repeats inside"):
        load(root, **TWO, group=pattern)


@pytest.mark.parametrize("params", [{}, TWO])
def test_a_pattern_that_makes_a_group_of_each_class_is_named_with_what_it_gives(root, params):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for old in (root / split / name).iterdir():
                old.unlink()
            for i in range(3):
                paint(root / split / name / f"{name}_{split}{i}.png")
    with pytest.raises(DataError) as caught:
        load(root, group="^([a-z]+)_", **(params or {"train": "train"}))
    assert str(caught.value) == (
        "dataset 'image-folder': the group pattern '^([a-z]+)_' makes one group of each class, so "
        "that no class can be divided: it gives 'cat' of cat_train0.png and 'dog' of "
        "dog_train0.png; let it match what tells the groups of a class apart, or leave it out"
    )


def test_keys_come_from_the_first_group(root):
    keys = np.array([key for split in TWO for key in groups(root, split, **TWO, group=r"(\d)\.")])
    assert keys.tolist() == ["0", "1", "0", "1"] * 2
