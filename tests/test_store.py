"""The store: an artefact is complete or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from transferbench.errors import StoreError
from transferbench.identity import digest
from transferbench.store import Artefact, CorruptArtefactError, Store, artefact

JOB, OTHER = digest("a job"), digest("another job")


def write(store: Store, job: str = JOB, content: str = "first") -> None:
    with store.writing(job, "trial") as draft:
        draft.write_json("trial.json", {"content": content})
        draft.path("outputs.bin").write_bytes(content.encode() * 100)
        draft.facts["wall_seconds"] = 1.5


def write_and_raise(store: Store, error: BaseException) -> None:
    with store.writing(JOB, "trial") as draft:
        draft.write_json("trial.json", 1)
        raise error


def folder(store: Store, job: str = JOB) -> Path:
    return store.root / "jobs" / job[:2] / job


def check_all(artefact: Artefact) -> None:
    for name in artefact.names:
        artefact.path(name)


def set_aside(store: Store) -> list[Path]:
    return sorted((store.root / "corrupt").glob(f"{JOB}.*"))


def status(store: Store, job: str) -> str | None:
    if store.is_done(job):
        return "ok"
    failure = store.failure(job)
    return failure.status if failure else None


def run_here(function: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a function of this module in another process."""
    return subprocess.run(  # our own code
        [sys.executable, "-c", call(function, *args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def call(function: str, *args: object) -> str:
    tests = str(Path(__file__).parent)
    called = f"{function}({', '.join(repr(str(arg)) for arg in args)})"
    return f"import sys; sys.path.insert(0, {tests!r}); import test_store as t; t.{called}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


# --- writing and reading --------------------------------------------------------------------------


def test_what_is_written_is_read(store: Store) -> None:
    assert status(store, JOB) is None
    write(store)
    assert (status(store, JOB), store.is_done(JOB), store.is_done(OTHER)) == ("ok", True, False)
    artefact = Store(store.root).artefact(JOB)
    assert artefact.names == ("outputs.bin", "trial.json")
    assert artefact.json("trial.json") == {"content": "first"}
    assert artefact.path("outputs.bin").read_bytes() == b"first" * 100
    assert (artefact.job, artefact.kind, artefact.facts) == (JOB, "trial", {"wall_seconds": 1.5})


def test_nothing_is_created_by_reading(store: Store) -> None:
    assert status(store, JOB) is None
    assert store.failure(JOB) is None
    assert not store.root.exists()


def test_a_draft_is_not_seen_before_it_is_complete(store: Store) -> None:
    with store.writing(JOB, "trial") as draft:
        draft.write_json("trial.json", 1)
        assert status(store, JOB) is None
    assert store.is_done(JOB)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), StoreError("no")])
def test_a_draft_whose_writer_fails_is_removed(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        write_and_raise(store, error)
    assert caught.value is error
    assert status(store, JOB) is None
    assert list((store.root / "partial").iterdir()) == []


def test_the_first_artefact_is_kept(store: Store) -> None:
    write(store)
    with store.writing(JOB, "trial") as draft:
        assert draft.already_done
        draft.write_json("trial.json", {"content": "second"})
    assert store.artefact(JOB).json("trial.json") == {"content": "first"}
    assert list((store.root / "partial").iterdir()) == []


def test_a_missing_job_and_a_missing_file_are_told(store: Store) -> None:
    with pytest.raises(StoreError, match=f"no finished job {JOB} .it has not finished"):
        store.artefact(JOB)
    write(store)
    with pytest.raises(StoreError, match=r"left no file 'x'; there are: outputs.bin, trial.json"):
        store.artefact(JOB).path("x")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "", ".", "..", "manifest.json", "a\n"]
)
def test_names_stay_in_the_folder(store: Store, name: str) -> None:
    with (
        pytest.raises(StoreError, match=r"an artefact cannot hold a file named .* use letters"),
        store.writing(JOB, "trial") as draft,
    ):
        draft.path(name)


@pytest.mark.parametrize("job", ["", "../../x", JOB[:-1], JOB.upper(), JOB + "\n", JOB + ".swap"])
def test_ids_are_hashes(store: Store, job: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: status(store, job),
        lambda: store.artefact(job),
        lambda: store.discard(job),
        lambda: store.record_failure(job, "trial", "failed", "x"),
        lambda: store.writing(job, "trial").__enter__(),
    ]
    for attempt in calls:
        with pytest.raises(StoreError, match="is not the id of a job: give 64 hexadecimal digits"):
            attempt()


def test_json_holds_no_nan(store: Store) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), store.writing(JOB, "t") as draft:
        draft.write_json("history.json", [float("nan")])


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_an_artefact_holds_plain_files_only(store: Store, make: Callable[[Path], None]) -> None:
    with (
        pytest.raises(StoreError, match="plain files only; 'odd' is not one"),
        store.writing(JOB, "trial") as draft,
    ):
        make(draft.path("odd"))
    assert status(store, JOB) is None


def test_a_thousand_jobs_are_looked_up_in_no_time(store: Store) -> None:
    jobs = [digest(number) for number in range(50)]
    for job in jobs:
        write(store, job)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        assert all(store.is_done(job) for job in jobs * 20)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


# --- failures -------------------------------------------------------------------------------------


def test_a_failure_is_kept_but_never_served(store: Store) -> None:
    store.record_failure(JOB, "trial", "oom", "MemoryError: no room", "Traceback ...")
    assert (status(store, JOB), store.is_done(JOB)) == ("oom", False)
    failure = store.failure(JOB)
    assert failure is not None
    assert (failure.kind, failure.message) == ("trial", "MemoryError: no room")
    assert failure.traceback == "Traceback ..."
    with pytest.raises(StoreError, match=r"\(oom: MemoryError: no room\); run the suite again"):
        store.artefact(JOB)


def test_the_last_failure_counts_and_a_success_removes_it(store: Store) -> None:
    store.record_failure(JOB, "trial", "timeout", "took longer than 5 s")
    store.record_failure(JOB, "trial", "failed", "ValueError")
    assert status(store, JOB) == "failed"
    write(store)
    assert (status(store, JOB), store.failure(JOB)) == ("ok", None)
    assert list((store.root / "failures").iterdir()) == []
    store.record_failure(JOB, "trial", "failed", "another run's attempt")
    assert (status(store, JOB), store.failure(JOB)) == ("ok", None)


def test_a_message_that_is_no_text_is_kept(store: Store) -> None:
    store.record_failure(JOB, "trial", "failed", "no file 'a\udcff'")
    failure = store.failure(JOB)
    assert failure is not None
    assert failure.message == r"no file 'a\udcff'"


def test_a_garbled_failure_counts_as_none(store: Store) -> None:
    store.record_failure(JOB, "trial", "failed", "x")
    (store.root / "failures" / f"{JOB}.json").write_text("{")
    assert (status(store, JOB), store.failure(JOB)) == (None, None)


# --- corruption -----------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    later = path.stat().st_mtime_ns + 10**9  # a coarse clock may show no change by itself
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link_away(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("verified", [True, False])
def test_a_flipped_byte_is_found(store: Store, verified: bool) -> None:
    write(store)
    if verified:
        check_all(store.artefact(JOB))
    path = folder(store) / "outputs.bin"
    flip(path)
    artefact = store.artefact(JOB)
    assert artefact.json("trial.json") == {"content": "first"}
    with pytest.raises(
        CorruptArtefactError, match=r"outputs.bin does not have the sha256"
    ) as error:
        artefact.path("outputs.bin")
    assert error.value.job == JOB


def test_a_file_is_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store)
    hashed = []
    real = artefact.file_digest
    monkeypatch.setattr(artefact, "file_digest", lambda path: hashed.append(path) or real(path))
    for _ in range(2):
        path = store.artefact(JOB).path("outputs.bin")
    assert hashed == [path]
    assert Store(store.root).artefact(JOB).path("outputs.bin") == path
    assert hashed == [path, path]


def test_a_flip_that_keeps_the_times_is_found(store: Store) -> None:
    write(store)
    path = store.artefact(JOB).path("outputs.bin")
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptArtefactError, match=r"outputs.bin does not have the sha256"):
        store.artefact(JOB).path("outputs.bin")


@pytest.mark.parametrize("damage", [truncate, Path.unlink, link_away])
def test_a_file_of_another_size_is_not_done(store: Store, damage: Callable[[Path], None]) -> None:
    write(store)
    damage(folder(store) / "outputs.bin")
    assert status(store, JOB) is None


def test_a_file_that_goes_while_it_is_used_is_corrupt(store: Store) -> None:
    write(store)
    artefact = store.artefact(JOB)
    link_away(folder(store) / "trial.json")
    with pytest.raises(CorruptArtefactError, match=r"trial.json is not a regular file"):
        artefact.path("trial.json")
    shutil.rmtree(folder(store))
    with pytest.raises(CorruptArtefactError, match=r"cannot be read .*No such file"):
        artefact.path("outputs.bin")


def with_name(name: str) -> Callable[[dict[str, object]], object]:
    fact = {"sha256": digest(""), "size_bytes": 0}
    return lambda manifest: manifest | {"files": {name: fact}}


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest | {"id": OTHER},
        lambda manifest: manifest | {"status": "failed"},
        lambda manifest: manifest | {"schema_version": 2},
        lambda manifest: manifest | {"files": None},
        lambda _: [],
        with_name("../../../../etc/hostname"),
        with_name("/etc/hostname"),
    ],
)
def test_a_manifest_of_another_form_is_not_done(
    store: Store, change: Callable[[dict[str, object]], object]
) -> None:
    write(store)
    path = folder(store) / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert status(store, JOB) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"null", b"[" * 100_000])
def test_a_garbled_manifest_is_not_done_and_is_replaced(store: Store, content: bytes) -> None:
    write(store)
    (folder(store) / "manifest.json").write_bytes(content)
    assert status(store, JOB) is None
    write(store, content="second")
    assert store.artefact(JOB).json("trial.json") == {"content": "second"}


def test_a_corrupt_artefact_is_replaced_and_put_aside(store: Store) -> None:
    write(store)
    flip(folder(store) / "outputs.bin")
    write(store, content="second")
    check_all(store.artefact(JOB))
    assert store.artefact(JOB).json("trial.json") == {"content": "second"}
    (aside,) = set_aside(store)
    assert (aside / "outputs.bin").exists()


def test_discard_takes_the_corrupt_and_leaves_the_sound(store: Store) -> None:
    assert not store.discard(JOB)
    for number in range(2):
        write(store)
        assert not store.discard(JOB)
        assert store.is_done(JOB)
        flip(folder(store) / "trial.json")
        assert store.discard(JOB)
        assert status(store, JOB) is None
        assert len(set_aside(store)) == number + 1


# --- several writers, and dead ones ---------------------------------------------------------------


def write_in_turn(root: str, name: str) -> None:
    """Wait for the other writer to be here too, then write."""
    (Path(root).parent / name).touch()
    while len(list(Path(root).parent.glob("writer-*"))) < 2:
        time.sleep(0.01)
    store = Store(Path(root))
    with store.writing(JOB, "trial") as draft:
        print(draft.already_done)  # noqa: T201  # read by the test
        time.sleep(0.3)
        draft.write_json("trial.json", name)
    check_all(store.artefact(JOB))


def test_of_two_writers_one_wins_and_both_see_it(store: Store) -> None:
    writers = [
        subprocess.Popen(  # our own code
            [sys.executable, "-c", call("write_in_turn", store.root, f"writer-{number}")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    waited = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert sorted(waited) == ["False", "True"]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert store.artefact(JOB).json("trial.json") == f"writer-{waited.index('False')}"


def test_what_dead_writers_left_is_removed_and_the_living_stay(store: Store) -> None:
    with store.writing(JOB, "trial") as draft:
        draft.write_json("trial.json", 1)
        (living,) = (store.root / "partial").iterdir()
        assert run_here("die_while_writing", store.root).returncode == -signal.SIGKILL
        assert len(list((store.root / "partial").iterdir())) == 2
        Store(store.root).prepare()
        assert list((store.root / "partial").iterdir()) == [living]
    assert store.is_done(JOB)


def die_while_writing(root: str) -> None:
    with Store(Path(root)).writing(OTHER, "trial") as draft:
        draft.write_json("stale.json", 1)
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_attempt_left_does_not_get_into_the_next(store: Store) -> None:
    assert run_here("die_while_writing", store.root).returncode == -signal.SIGKILL
    began = time.monotonic()
    write(store, OTHER)
    assert time.monotonic() - began < 1
    assert store.artefact(OTHER).names == ("outputs.bin", "trial.json")


def leave_a_child(root: str) -> None:
    """A process forked while writing keeps a copy of the lock's descriptor."""
    store = Store(Path(root))
    with store.writing(JOB, "trial") as draft:
        child = os.fork()
        if child == 0:
            time.sleep(60)
        draft.write_json("trial.json", 1)
    with store.writing(JOB, "trial") as draft:
        assert draft.already_done
    os.kill(child, signal.SIGKILL)


def test_a_child_that_lives_on_holds_no_lock(store: Store) -> None:
    assert run_here("leave_a_child", store.root).returncode == 0


def act_until(count: int, root: Path) -> None:
    """Fail, then write over something corrupt, dying at the ``count``-th touch of the disk."""
    touches = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal touches
        if event in {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir"}:
            touches += str(args[0]).startswith(str(root))
            if touches == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    store = Store(root)
    store.record_failure(JOB, "trial", "failed", "an attempt")
    write(store, content="second")
    os._exit(0)


def crash_everywhere(base: str) -> None:
    """Die at each touch of the disk in turn; the store must be sound and go on each time."""
    template = Store(Path(base) / "template")
    write(template, OTHER)
    write(template)
    flip(folder(template) / "trial.json")
    for count in range(1, 1000):
        root = Path(base) / str(count)
        shutil.copytree(template.root, root)
        if (child := os.fork()) == 0:
            act_until(count, root)
        died = os.waitpid(child, 0)[1] != 0
        check_after_crash(Store(root))
        shutil.rmtree(root)
        if not died:
            print(count)  # noqa: T201  # read by the test
            return


def check_after_crash(store: Store) -> None:
    check_all(store.artefact(OTHER))
    if folder(store).exists():
        content = "second" if store._is_intact(JOB) else "first"
        assert (folder(store) / "outputs.bin").read_bytes() == content.encode() * 100
        assert store.is_done(JOB), "something half written is seen"
    write(store, content="third")
    check_all(store.artefact(JOB))
    assert store.artefact(JOB).json("trial.json")["content"] in {"second", "third"}
    assert store.failure(JOB) is None
    assert list((store.root / "partial").iterdir()) == []


def test_a_crash_at_any_point_leaves_a_sound_store(tmp_path: Path) -> None:
    done = run_here("crash_everywhere", tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def write_for_ever(root: str) -> None:
    store = Store(Path(root))
    for number in range(10_000):
        write(store, digest(number), content="x" * 20_000)


def test_a_writer_killed_at_any_moment_leaves_a_sound_store(store: Store) -> None:
    for _ in range(2):
        with subprocess.Popen(  # our own code
            [sys.executable, "-c", call("write_for_ever", store.root)]
        ) as writer:
            before = len(list((store.root / "jobs").glob("*/*")))
            while len(list((store.root / "jobs").glob("*/*"))) < before + 5:
                time.sleep(0.01)
            time.sleep(random.random() / 50)  # any moment will do
            writer.kill()
        jobs = [path.name for path in (store.root / "jobs").glob("*/*")]
        for job in jobs:
            check_all(store.artefact(job))
    store.prepare()
    assert list((store.root / "partial").iterdir()) == []


# --- a disk that refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["/proc/transferbench", "{tmp}/file/run"])
def test_an_unwritable_root_is_told(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(Path(root.format(tmp=tmp_path)))
    attempts: list[Callable[[], object]] = [
        store.prepare,
        lambda: write(store),
        lambda: store.record_failure(JOB, "trial", "failed", "x"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError) as caught:
            attempt()
        assert f"cannot write {store.root}" in str(caught.value)
        in_the_way = "check the path, where a file stands in the place of a folder"
        free = "MiB free there); choose another folder with --out"
        assert (in_the_way if "file" in root else free) in str(caught.value)
    assert status(store, JOB) is None


def test_a_writers_own_errors_stay_its_own(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), store.writing(JOB, "trial"):
        (tmp_path / "images.npy").read_bytes()
    with pytest.raises(StoreError, match="No such file"), store.writing(JOB, "trial") as draft:
        draft.path("never-written").read_bytes()


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: path.write_bytes(bytes(3_000_000)),
    "safetensors": lambda path: save_file({"weight": np.zeros(750_000, np.float32)}, path),
}


def fill(root: str) -> None:
    """Write more than there is room for; what each way of writing is told is printed."""
    store = Store(Path(root))
    write(store)
    for name, writer in WRITERS.items():
        try:
            with store.writing(OTHER, "trial") as draft:
                writer(draft.path(name))
        except StoreError as error:
            print(error)  # noqa: T201  # read by the test
    check_all(store.artefact(JOB))
    assert not store.is_done(OTHER)
    assert list((store.root / "partial").iterdir()) == []
    write(store, OTHER)


def fill_with_a_limit(root: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    fill(root)


def check_refusals(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 0, done.stderr
    refusals = done.stdout.splitlines()
    assert len(refusals) == len(WRITERS)
    assert all(f"{OTHER}: {reason} (" in line and "--out" in line for line in refusals), refusals


def test_a_file_beyond_the_limit_is_told(store: Store) -> None:
    check_refusals(run_here("fill_with_a_limit", store.root), "File too large")


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if shutil.which("unshare") is None:
        pytest.skip("a small disk of one's own needs unshare")
    if subprocess.run([*own, "sh", "-c", mount], check=False).returncode:  # as above
        pytest.skip("a small disk of one's own needs user namespaces")
    code = call("fill", tmp_path / "run")
    done = subprocess.run(  # our own code
        [*own, "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    check_refusals(done, "No space left on device")


# --- any order of things --------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "raise", "fail", "flip", "truncate", "discard", "reopen"]),
        st.sampled_from([JOB, OTHER]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_any_sequence_keeps_what_is_intact(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = Store(Path(root))
        store.prepare()
        expected: dict[str, str] = {}
        for number, (step, job) in enumerate(steps):
            store = take(store, step, job, number)
            expected[job] = follow(expected.get(job, "none"), step)
            for each, state in expected.items():
                assert look(Store(store.root), each) == state, (steps, number)


def take(store: Store, step: str, job: str, number: int) -> Store:
    damage = {"flip": flip, "truncate": truncate}
    if step == "write":
        write(store, job, content=str(number))
    elif step == "raise":
        with pytest.raises(ZeroDivisionError), store.writing(job, "trial") as draft:
            draft.write_json("trial.json", 1 / 0)
    elif step == "fail":
        store.record_failure(job, "trial", "failed", "x")
    elif step in damage and store.is_done(job):
        damage[step](folder(store, job) / "outputs.bin")
    elif step == "discard":
        store.discard(job)
    return Store(store.root) if step == "reopen" else store


def follow(state: str, step: str) -> str:
    """What a job's state becomes; a hidden failure shows again when its artefact goes."""
    artefact, _, failed = state.partition("+")
    if step == "write":
        return "sound" if artefact != "sound" else state
    if step == "fail":
        return f"{artefact}+failed"
    if step == "flip" and artefact in {"sound", "flipped"}:
        artefact = "flipped" if artefact == "sound" else "sound"
    elif (step == "truncate" and artefact in {"sound", "flipped"}) or (
        step == "discard" and artefact == "flipped"
    ):
        artefact = "none"
    return f"{artefact}+failed" if failed else artefact


def look(store: Store, job: str) -> str:
    failed = "+failed" if (store.root / "failures" / f"{job}.json").exists() else ""
    if not store.is_done(job):
        assert status(store, job) == ("failed" if failed else None)
        return "none" + failed
    assert status(store, job) == "ok"
    try:
        check_all(store.artefact(job))
    except CorruptArtefactError:
        return "flipped" + failed
    return "sound" + failed
