"""A store that several hosts share: nothing but speed rests on locks."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from damage import flip
from interleaving import Turns

from transferbench.errors import StoreError
from transferbench.identity import digest
from transferbench.store import CorruptArtefactError, Store, lease

JOBS = tuple(digest(f"job {number}") for number in range(3))


def folder_of(store: Store, job: str) -> Path:
    return store.root / "jobs" / job[:2] / job


class Host:
    """A run on one of the hosts: computes what is not done, and reads everything at its end."""

    def __init__(self, root: Path, name: str, seed: int, computed: Counter[str]) -> None:
        self.store = Store(root)
        self.store.host = name
        self.name = name
        self.random = random.Random(f"{name} {seed}")
        self.computed = computed

    def run(self) -> None:
        self.store.prepare()
        jobs = list(JOBS)
        self.random.shuffle(jobs)
        for job in jobs:
            if self.store.damage(job):
                self.store.discard(job)
            if not self.store.is_done(job):
                self.compute(job)
        for job in jobs:
            for _ in range(3):
                if not self.store.settle([job]) and self.reads(job):
                    break
                self.store.discard(job)
                self.compute(job)
            else:
                raise AssertionError(f"{self.name} never gets {job}")
        self.store.prepare()

    def compute(self, job: str) -> None:
        with self.store.writing(job, "trial") as draft:
            if draft.already_done:
                return
            self.computed[job] += 1
            draft.write_json("trial.json", {"job": job})
            draft.path("outputs.bin").write_bytes(job.encode() * 10)
            draft.facts["host"] = self.name

    def reads(self, job: str) -> bool:
        try:
            return content_is_right(self.store, job)
        except CorruptArtefactError:
            return False


def content_is_right(store: Store, job: str) -> bool:
    artefact = store.artefact(job)
    assert artefact.names == ("outputs.bin", "trial.json")
    assert artefact.read("outputs.bin", Path.read_bytes) == job.encode() * 10
    return bool(artefact.json("trial.json") == {"job": job})


def watch(store: Store) -> None:
    """A reader: what is done is complete."""
    for job in JOBS * 4:
        if store.is_done(job):
            assert content_is_right(store, job)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which one job is damaged in its manifest, and one in a file."""
    host = Host(tmp_path_factory.mktemp("damaged") / "store", "before", 0, Counter())
    for job in JOBS[:2]:
        host.compute(job)
    flip(folder_of(host.store, JOBS[0]) / "manifest.json")
    flip(folder_of(host.store, JOBS[1]) / "outputs.bin")
    return host.store.root


@contextmanager
def one_step(turns: Turns) -> Iterator[None]:
    """The library's own mutexes must not be held by a program that waits for its turn."""
    acquired, release = lease._acquired, lease.SoftFileLease.release
    with pytest.MonkeyPatch.context() as patch:

        def undivided(call: Callable[..., object]) -> Callable[..., object]:
            def run(*args: object) -> object:
                with turns.undivided():
                    return call(*args)

            return run

        patch.setattr(lease, "_acquired", undivided(acquired))
        patch.setattr(lease.SoftFileLease, "release", undivided(release))
        patch.setattr(lease, "POLL_SECONDS", 0)
        yield


def interleave(root: Path, seed: int, hosts: int = 2, *, reader: bool) -> tuple[Counter[str], int]:
    computed: Counter[str] = Counter()
    turns = Turns(seed)
    programs = [Host(root, f"host-{number}", seed, computed).run for number in range(hosts)]
    if reader:
        programs.append(lambda: watch(Store(root)))
    with one_step(turns):
        turns.run(programs)
    store = Store(root)
    assert all(content_is_right(store, job) for job in JOBS)
    assert list((root / "partial").iterdir()) == []
    return computed, turns.steps


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_acquired", lambda *_: True)


@pytest.mark.usefixtures("no_leases")
@pytest.mark.parametrize("seed", range(100))
def test_two_hosts_without_locks_lose_nothing_and_compute_nothing_thrice(
    tmp_path: Path, seed: int
) -> None:
    computed, steps = interleave(tmp_path / "store", seed, reader=True)
    assert steps > 100
    assert max(computed.values()) <= 2


@pytest.mark.usefixtures("no_leases")
@pytest.mark.parametrize("seed", range(100))
def test_two_hosts_without_locks_heal_a_damaged_store(
    tmp_path: Path, damaged: Path, seed: int
) -> None:
    root = tmp_path / "store"
    shutil.copytree(damaged, root)
    computed, steps = interleave(root, seed, reader=False)
    assert steps > 100
    assert max(computed.values()) <= 2


@pytest.mark.parametrize("seed", range(10))
def test_with_leases_each_job_is_computed_once(tmp_path: Path, seed: int) -> None:
    computed, _ = interleave(tmp_path / "store", seed, hosts=3, reader=True)
    assert computed == dict.fromkeys(JOBS, 1)


def no_lock(*_: object) -> None:
    """A lock that holds nobody back."""


def no_such_call(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("flock", [no_lock, no_such_call])
@pytest.mark.parametrize("seed", range(5))
def test_file_locks_that_hold_nobody_or_fail_change_nothing(
    tmp_path: Path, seed: int, flock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, flock)
    computed, _ = interleave(tmp_path / "store", seed, reader=True)
    assert computed == dict.fromkeys(JOBS, 1)


# --- what is left behind --------------------------------------------------------------------------


def age(path: Path, hours: float) -> None:
    """As if nothing had touched a draft for so long."""
    then = time.time() - hours * 3600
    for each in (*path.iterdir(), path):
        os.utime(each, (then, then))


def leave(store: Store, host: str, hours: float) -> Path:
    """A draft of a writer on ``host`` whose process is gone, which is not to be seen elsewhere."""
    store.prepare()
    draft = store.root / "partial" / f"{JOBS[0]}.{host}.4194304.1700000000.01234567"
    draft.mkdir()
    (draft / "trial.json").write_text("{}")
    age(draft, hours)
    return draft


@pytest.mark.parametrize(
    ("host", "hours", "stays"),
    [("host-0", 0, False), ("host-1", 0, True), ("host-1", 23, True), ("host-1", 25, False)],
    ids=["dead here", "new elsewhere", "today elsewhere", "yesterday elsewhere"],
)
def test_drafts_of_other_hosts_are_removed_by_age_alone(
    tmp_path: Path, host: str, hours: float, stays: bool
) -> None:
    store = Store(tmp_path / "store")
    store.host = "host-0"
    draft = leave(store, host, hours)
    store.prepare()
    assert draft.exists() == stays


def test_a_draft_whose_lease_is_touched_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.host = "host-0"
    draft = leave(store, "host-1", 100)
    (store.root / "leases" / JOBS[0]).touch()
    store.prepare()
    assert draft.exists()


@pytest.mark.parametrize("name", [JOBS[0], f"{JOBS[0]}.swap"])
def test_drafts_of_older_versions_are_removed_by_age(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    draft = store.root / "partial" / name
    draft.mkdir()
    store.prepare()
    assert draft.exists()
    age(draft, 25)
    store.prepare()
    assert not draft.exists()


def test_leases_that_nobody_touches_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    for number, hours in enumerate((23, 25)):
        lease_file = store.root / "leases" / JOBS[number]
        lease_file.touch()
        os.utime(lease_file, (time.time() - hours * 3600,) * 2)
    store.prepare()
    assert [path.name for path in (store.root / "leases").iterdir()] == [JOBS[0]]


def test_a_draft_that_another_host_removed_is_begun_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.writing(JOBS[0], "trial") as draft:
        shutil.rmtree(next((store.root / "partial").iterdir()))
        draft.write_json("trial.json", {"job": JOBS[0]})
        draft.path("outputs.bin").write_bytes(JOBS[0].encode() * 10)
    assert content_is_right(store, JOBS[0])


def test_a_draft_that_loses_a_file_is_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    message = r"trial.json of job .* is not there any more: something else removed it while the"
    with pytest.raises(StoreError, match=message):
        lose_a_file(store)
    assert not store.is_done(JOBS[0])


def lose_a_file(store: Store) -> None:
    with store.writing(JOBS[0], "trial") as draft:
        draft.write_json("trial.json", {"job": JOBS[0]})
        shutil.rmtree(next((store.root / "partial").iterdir()))
        draft.path("outputs.bin").write_bytes(b"x")


def test_the_folder_of_all_jobs_may_go_while_a_job_is_computed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.writing(JOBS[0], "trial") as draft:
        shutil.rmtree(store.root / "jobs")
        draft.write_json("trial.json", {"job": JOBS[0]})
        draft.path("outputs.bin").write_bytes(JOBS[0].encode() * 10)
    assert content_is_right(store, JOBS[0])


# --- caches of file systems -----------------------------------------------------------------------


def test_a_job_that_another_host_finished_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says for a while that there is nothing, until a folder is opened."""
    store = Store(tmp_path / "store")
    Host(store.root, "host-1", 0, Counter()).compute(JOBS[0])
    opened = Counter[str]()
    real_open, real_scandir = os.open, os.scandir

    def cached_open(path: str, *args: int) -> int:
        if JOBS[0] in str(path) and opened["jobs"] < 2:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return real_open(path, *args)

    def scandir(path: Path) -> os.ScandirIterator[str]:
        opened[Path(path).name] += 1
        return real_scandir(path)  # type: ignore[return-value]  # as the real one

    monkeypatch.setattr(os, "open", cached_open)
    monkeypatch.setattr(os, "scandir", scandir)
    assert not store.is_done(JOBS[0])
    began = time.monotonic()
    assert store.settle([JOBS[0], JOBS[1]]) == {JOBS[1]}
    assert time.monotonic() - began < 10
    assert store.is_done(JOBS[0])
    assert opened["jobs"] >= 2


def test_a_rename_that_a_file_system_repeats_is_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    real = Path.rename

    def twice(self: Path, target: Path) -> Path:
        real(self, target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", twice)
        Host(store.root, "host-1", 0, Counter()).compute(JOBS[0])
    assert content_is_right(store, JOBS[0])
