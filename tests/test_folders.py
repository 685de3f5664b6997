"""What is below a folder: links are followed, none leads round, and any name can be shown."""

import inspect
import os
import sys

import pytest

from transferbench.data.folders import printable, walk
from transferbench.errors import DataError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def names(root):
    return sorted(os.path.relpath(entry.path, root) for entry, entered in walk(root) if not entered)


def test_links_to_folders_are_followed(tmp_path):
    touch(tmp_path / "elsewhere" / "deep" / "1")
    touch(tmp_path / "root" / "2")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == ["2", "link/deep/1"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "a/b"])
def test_a_link_that_leads_back_is_shown_and_not_entered(tmp_path, target):
    touch(tmp_path / "root" / "a" / "b" / "1")
    (tmp_path / "root" / "z").symlink_to(target)
    assert names(tmp_path / "root") == ["a/b/1", "z"]


def test_links_that_double_with_each_step_are_walked_once(tmp_path):
    for depth in range(40):  # 2**40 paths, 41 folders
        touch(tmp_path / f"{depth + 1}" / "file")
        (tmp_path / f"{depth}").mkdir(exist_ok=True)
        for name in ("x", "y"):
            (tmp_path / f"{depth}" / name).symlink_to(f"../{depth + 1}")
    assert len(names(tmp_path / "0")) == 40 + 40


def test_links_with_hidden_names_are_not_entered(tmp_path):
    touch(tmp_path / "elsewhere" / "1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == [".link"]


def test_links_to_nothing_and_to_themselves_are_shown(tmp_path):
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "itself").symlink_to("itself")
    assert names(tmp_path) == ["dangling", "itself"]


def test_a_folder_may_be_left_out(tmp_path):
    touch(tmp_path / "a" / "1")
    touch(tmp_path / "b" / "2")
    below = walk(tmp_path, without=tmp_path / "a" / ".." / "b")
    assert [entry.name for entry, _ in below if entry.is_file()] == ["1"]


def test_folders_may_be_deeper_than_calls(tmp_path):
    path = tmp_path.joinpath(*["d"] * 200)
    touch(path / "file")
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        assert len(names(tmp_path)) == 1
    finally:
        sys.setrecursionlimit(depth)


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"folder .*absent cannot be read \(No such file or dir"):
        list(walk(tmp_path / "absent"))


def test_names_that_are_no_text_are_escaped():
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\udce9.png"
    assert printable("a\x1b[1m\n") == "a\\x1b[1m\\n"
    assert printable("café \u200d") == "café \u200d"
