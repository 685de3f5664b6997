"""Atomic files: whole or absent, and in all else as if they were written in place."""

import os
import stat

import pytest

from transferbench.errors import StoreError
from transferbench.files import atomic_path, write_text


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a" / "b.txt", "x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a" / "b.txt") == 0o640


def test_a_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.txt"
    path.write_text("old")
    path.chmod(0o600)
    write_text(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_a_link_stays_and_its_target_is_written(tmp_path):
    target, link = tmp_path / "real" / "b.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [*target.parent.iterdir()] == [target]


def test_a_file_that_may_not_be_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    # For root, every file is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreError, match=r"cannot write .*a\.txt: Permission denied"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(StoreError, match=f"cannot write {path}: it is not a regular file; nothing"):
        write_text(path, "text")
    assert path.is_fifo()


def test_links_in_a_circle_are_replaced(tmp_path):
    path = tmp_path / "loop"
    path.symlink_to(path)
    write_text(path, "text")
    assert path.read_text() == "text"


def test_a_folder_in_its_place_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(StoreError, match=r"cannot write .*a\.txt: Is a directory"):
        write_text(tmp_path / "a.txt", "x")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.txt"]


@pytest.mark.parametrize("letter", ["a", "\N{GREEK SMALL LETTER ALPHA}"])
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path, letter):
    path = tmp_path / f"{letter * (250 // len(letter.encode()))}.txt"
    write_text(path, "x")
    assert path.read_text() == "x"


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [tmp_path / "a.txt"]
