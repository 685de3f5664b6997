"""Whatever is damaged in a store is noticed, set aside and written again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import (
    HARMS,
    dangle,
    empty,
    flip,
    link_away,
    make_empty_folder,
    make_file,
    make_folder,
    make_pipe,
)

from transferbench.errors import StoreError
from transferbench.identity import digest
from transferbench.store import CorruptArtefactError, Store, documents

JOB = digest("a job")
Harm = Callable[[Path], None]


def write(store: Store, content: str = "first") -> None:
    with store.writing(JOB, "trial") as draft:
        draft.write_json("trial.json", {"content": content})
        draft.path("outputs.bin").write_bytes(content.encode() * 100)
        draft.facts["wall_seconds"] = 1.5


def folder_of(store: Store) -> Path:
    return store.root / "jobs" / JOB[:2] / JOB


def is_sound(store: Store) -> bool:
    """Whether a reader gets all that was written."""
    if not store.is_done(JOB):
        return False
    artefact = store.artefact(JOB)
    try:
        for name in artefact.names:
            artefact.path(name)
    except CorruptArtefactError as error:
        return error.job != JOB
    return True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    write(store)
    return store


def check_healing(store: Store, *, set_aside: bool = True) -> None:
    """A damaged artefact is noticed and replaced, with a discard before or without."""
    assert not is_sound(Store(store.root))
    again = Store(store.root)
    assert (again.discard(JOB) is not None) == set_aside
    assert not again.is_done(JOB)
    assert not again.damage(JOB)
    write(again, "second")
    assert is_sound(again)
    assert again.artefact(JOB).json("trial.json") == {"content": "second"}
    assert len(list((store.root / "corrupt").iterdir())) == int(set_aside)
    assert list((store.root / "partial").iterdir()) == []


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["manifest.json", "trial.json", "outputs.bin"])
def test_a_damaged_file_is_noticed_and_written_again(store: Store, name: str, harm: Harm) -> None:
    harm(folder_of(store) / name)
    check_healing(store)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["manifest.json", "trial.json", "outputs.bin"])
def test_a_writer_replaces_what_damage(store: Store, name: str, harm: Harm) -> None:
    harm(folder_of(store) / name)
    write(store, "second")
    assert is_sound(Store(store.root))
    assert store.artefact(JOB).json("trial.json") == {"content": "second"}
    assert len(list((store.root / "corrupt").iterdir())) == 1


@pytest.mark.parametrize(
    "harm", [make_file, make_empty_folder, make_folder, dangle, make_pipe, link_away]
)
def test_something_else_in_the_place_of_an_artefact_is_set_aside(store: Store, harm: Harm) -> None:
    harm(folder_of(store))
    if harm is link_away:  # the same files: nothing is lost
        assert is_sound(store)
        return
    check_healing(store)


def test_an_artefact_that_is_gone_is_written_again(store: Store) -> None:
    folder_of(store).rename(store.root / "elsewhere")
    check_healing(store, set_aside=False)


def test_each_byte_of_a_manifest_counts(store: Store) -> None:
    path = folder_of(store) / "manifest.json"
    content = path.read_bytes()
    for number in range(len(content)):
        changed = bytearray(content)
        changed[number] ^= 1 + number % 3
        path.write_bytes(changed)
        assert store.damage(JOB), changed
    path.write_bytes(content)
    assert is_sound(store)


def test_a_manifest_of_an_older_version_has_no_seal_and_is_read(store: Store) -> None:
    path = folder_of(store) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    path.write_text(json.dumps(manifest, separators=(",", ":")))
    assert is_sound(Store(store.root))
    assert store.artefact(JOB).facts == {"wall_seconds": 1.5}


def test_foreign_files_beside_an_artefact_harm_nothing(store: Store) -> None:
    (folder_of(store) / ".nfs000000001").write_text("x")
    (folder_of(store) / "notes").mkdir()
    assert is_sound(Store(store.root))
    flip(folder_of(store) / "trial.json")
    check_healing(store)


@pytest.mark.parametrize("harm", [make_file, dangle])
@pytest.mark.parametrize("name", ["failures", "partial", "leases", "corrupt"])
def test_a_file_in_the_place_of_a_folder_is_set_aside_and_a_broken_link_is_told(
    store: Store, name: str, harm: Harm
) -> None:
    harm(store.root / name)
    again = Store(store.root)
    if harm is dangle:
        message = rf"{name} is a link to /nowhere/at/all, which is not a folder; mount what it"
        with pytest.raises(StoreError, match=message):
            again.prepare()
        return
    again.prepare()
    assert is_sound(again)
    assert [path.read_text() for path in store.root.rglob(f"{name}.*")] == ["garbage"]


def test_a_file_in_the_place_of_all_jobs_is_set_aside(store: Store) -> None:
    make_file(store.root / "jobs")
    write(Store(store.root), "second")
    assert is_sound(store)


def test_a_file_in_the_place_of_a_folder_of_jobs_is_set_aside(store: Store) -> None:
    make_file(folder_of(store).parent)
    write(store, "second")
    assert is_sound(store)
    assert [path.read_text() for path in (store.root / "corrupt").iterdir()] == ["garbage"]


@pytest.mark.parametrize("harm", [flip, empty, make_folder, dangle, make_pipe])
def test_a_damaged_failure_counts_as_none_and_is_written_again(tmp_path: Path, harm: Harm) -> None:
    store = Store(tmp_path / "store")
    store.record_failure(JOB, "trial", "failed", "first")
    path = store.root / "failures" / f"{JOB}.json"
    harm(path)
    assert store.failure(JOB) is None
    store.record_failure(JOB, "trial", "failed", "second")
    failure = store.failure(JOB)
    assert failure is not None
    assert failure.message == "second"
    harm(path)
    write(store)
    assert is_sound(store)
    assert not os.path.lexists(path)


@pytest.mark.parametrize("make", [make_folder, make_file, empty, dangle, make_pipe])
def test_a_damaged_lease_keeps_nobody_waiting(tmp_path: Path, make: Harm) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    lease = store.root / "leases" / JOB
    lease.touch()
    make(lease)
    write(store)
    assert is_sound(store)


def test_what_the_system_refuses_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(documents.os, "open", refuse)
        with pytest.raises(StoreError, match=r"Too many open files; a program may have"):
            store.discard(JOB)
    artefact = store.artefact(JOB)
    with monkeypatch.context() as patch:
        patch.setattr("transferbench.store.artefact.file_digest", refuse)
        with pytest.raises(StoreError, match=r"Too many open files; a program may have"):
            artefact.path("trial.json")
    assert is_sound(store)


def test_a_folder_that_may_not_be_written_is_told_before_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StoreError, match=r"cannot write .*: Permission denied"):
        write(store)
