"""Equal files of a store are one; what takes room, what can go, and jobs as an archive."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
import time

import pytest
from command_line import SMALL, artefacts, cli, mistake, suite_file
from test_store import JOB, OTHER, folder

from transferbench.api.stores import export_store, gc_store, import_store, usage_of_store
from transferbench.errors import StoreError
from transferbench.identity import digest
from transferbench.store import CorruptArtefactError, Store
from transferbench.store.contents import SHARED_BYTES

THIRD = digest("a third job")
LARGE = bytes(range(256)) * (SHARED_BYTES // 256)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def write(store, job=JOB, files=(), **contents):
    with store.writing(job, "trial", files=files) as draft:
        for name, content in contents.items():
            draft.path(f"{name}.safetensors").write_bytes(content)


def inodes(store, *names):
    return {(folder(store, job) / f"{name}.safetensors").stat().st_ino for job, name in names}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def no_links(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


# --- one file of a content ------------------------------------------------------------------------


def test_equal_files_of_one_job_and_of_two_are_one_file(store):
    write(store, init=LARGE[::-1], best=LARGE, final=LARGE)
    write(store, OTHER, final=LARGE, init=b"small")
    assert len(inodes(store, (JOB, "best"), (JOB, "final"), (OTHER, "final"))) == 1
    assert len(inodes(store, (JOB, "init"), (JOB, "final"))) == 2
    for job in (JOB, OTHER):
        artefact = Store(store.root).artefact(job)
        assert artefact.path("final.safetensors").read_bytes() == LARGE
        assert artefact.fault() == ""
    assert [path.name for path in folder(store).iterdir() if path.name.startswith(".")] == []


def test_small_files_stay_alone(store):
    write(store, best=b"small", final=b"small")
    assert len(inodes(store, (JOB, "best"), (JOB, "final"))) == 2


@pytest.mark.usefixtures("no_links")
def test_a_file_system_without_hard_links_has_copies(store):
    write(store, best=LARGE, final=LARGE)
    assert len(inodes(store, (JOB, "best"), (JOB, "final"))) == 2
    assert store.artefact(JOB).fault() == ""
    assert not any((store.root / "contents").glob("*/*"))


def test_damage_is_found_in_all_that_share_it_and_does_not_spread(store):
    write(store, final=LARGE)
    write(store, OTHER, final=LARGE)
    flip(folder(store) / "final.safetensors")
    for job in (JOB, OTHER):
        with pytest.raises(CorruptArtefactError, match="does not have the sha256"):
            Store(store.root).artefact(job).path("final.safetensors")
    write(store, THIRD, final=LARGE)
    assert Store(store.root).artefact(THIRD).fault() == ""
    store.discard(JOB)
    write(store, JOB, final=LARGE)
    assert Store(store.root).artefact(JOB).fault() == ""
    assert len(inodes(store, (JOB, "final"), (THIRD, "final"))) == 1


def test_an_artefact_that_is_removed_takes_nothing_from_others(store):
    write(store, final=LARGE)
    write(store, OTHER, final=LARGE)
    store.remove(JOB)
    assert not store.is_done(JOB)
    assert Store(store.root).artefact(OTHER).fault() == ""
    assert not any((store.root / "partial").iterdir())


def test_contents_that_are_lost_lose_no_artefact(store):
    write(store, final=LARGE)
    shutil.rmtree(store.root / "contents")
    write(store, OTHER, final=LARGE)
    assert all(Store(store.root).artefact(job).fault() == "" for job in (JOB, OTHER))


# --- an artefact that gets more files -------------------------------------------------------------


def test_an_artefact_that_lacks_a_file_is_replaced_by_one_that_has_more(store):
    write(store, final=LARGE)
    with store.writing(JOB, "trial", files=["final.safetensors"]) as draft:
        assert draft.already_done
    write(store, files=["init.safetensors"], final=LARGE, init=b"init")
    artefact = Store(store.root).artefact(JOB)
    assert artefact.names == ("final.safetensors", "init.safetensors")
    assert artefact.fault() == ""
    assert not any(store.corrupt.iterdir())


def test_an_artefact_is_never_replaced_by_one_of_other_bits(store):
    write(store, final=LARGE)
    with pytest.raises(StoreError, match=r"it has other bits \(final.safetensors\): compute this"):
        write(store, files=["init.safetensors"], final=LARGE[::-1], init=b"init")
    assert Store(store.root).artefact(JOB).path("final.safetensors").read_bytes() == LARGE


# --- archives -------------------------------------------------------------------------------------


def test_an_archive_brings_finished_jobs_to_another_store(store, tmp_path):
    write(store, init=LARGE[::-1], best=LARGE, final=LARGE)
    write(store, OTHER, final=LARGE)
    archive = tmp_path / "jobs.tar"
    assert export_store(store.root, archive) == 2
    with tarfile.open(archive) as content:
        assert sum(name.startswith("contents/") for name in content.getnames()) == 2
    other = Store(tmp_path / "other")
    write(other, OTHER, final=LARGE)
    imported = import_store(other.root, archive)
    assert imported == ((JOB,), (OTHER,))
    assert Store(other.root).artefact(JOB).fault() == ""
    manifests = [(folder(each) / "manifest.json").read_bytes() for each in (store, other)]
    assert manifests[0] == manifests[1]
    assert len(inodes(other, (JOB, "best"), (JOB, "final"), (OTHER, "final"))) == 1


def test_an_import_never_overwrites(store, tmp_path):
    write(store, final=LARGE)
    export_store(store.root, tmp_path / "jobs.tar")
    other = Store(tmp_path / "other")
    write(other, final=LARGE[::-1])
    assert import_store(other.root, tmp_path / "jobs.tar").present == (JOB,)
    assert Store(other.root).artefact(JOB).path("final.safetensors").read_bytes() == LARGE[::-1]


def rewritten(archive, change):
    """The archive with its members changed: name, content -> the same, or None to leave it out."""
    with tarfile.open(archive) as content:
        members = [(each, content.extractfile(each).read()) for each in content]
    with tarfile.open(archive, "w") as content:
        for entry, data in members:
            changed = change(entry.name, data)
            if changed is not None:
                entry.name, entry.size = changed[0], len(changed[1])
                content.addfile(entry, io.BytesIO(changed[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: (n, d[:-1] + b"x" if n.startswith("contents/") else d),
         "the archive is damaged: final.safetensors of job .* does not have the sha256"),
        (lambda n, d: (n, d[:-1] if n.startswith("contents/") else d), "has 16383 bytes, not the"),
        (lambda n, d: None if n.startswith("contents/") else (n, d), "is not in it"),
        (lambda n, d: (n, d.replace(b"trial", b"other")), "is not the manifest of that job"),
        (lambda n, d: (n, b'{"form": 9}' if n.endswith("-store.json") else d),
         "is not an archive of jobs that this version reads"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused(store, tmp_path, change, message):
    write(store, final=LARGE)
    archive = tmp_path / "jobs.tar"
    export_store(store.root, archive)
    rewritten(archive, change)
    with pytest.raises(StoreError, match=message):
        import_store(tmp_path / "other", archive)
    assert not Store(tmp_path / "other").is_done(JOB)
    assert not any((tmp_path / "other").glob("partial/*"))


def head(name, size, kind=tarfile.REGTYPE):
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def records(text):
    """A block of records of the next member."""
    return head("records", len(text), tarfile.XHDTYPE) + text.encode().ljust(512, b"\0")


FORM = head("transferbench-store.json", 11) + b'{"form": 1}'.ljust(512, b"\0")
DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (head("a", -512), "a ends before it begins"),
        (FORM + head("a", -512), "a ends before it begins"),
        (FORM + head("a", -2048), "a ends before it begins"),
        (FORM + records("14 size=-2048\n") + head("a", 0), "a ends before it begins"),
        (FORM + head("a", 2**80) + head("b", 0), "a bad head: (Overflow|Value)Error"),
        (FORM + head("a", 2**62, tarfile.GNUTYPE_LONGNAME), "a bad head: (MemoryError|Overflow)"),
        (FORM + head("a", 0, tarfile.GNUTYPE_LONGNAME) * 2000, "a bad head: RecursionError"),
        (head("transferbench-store.json", len(DEEP)) + DEEP.ljust(200_192, b"\0"),
         "is not an archive of jobs that this version reads"),
        (records("23 GNU.sparse.map=0,11\n") + FORM,
         "is not an archive of jobs that this version reads"),
    ],
)  # fmt: skip
def test_an_archive_made_to_do_harm_is_refused(tmp_path, content, message):
    (tmp_path / "jobs.tar").write_bytes(content + bytes(1024))
    with pytest.raises(StoreError, match=message):
        import_store(tmp_path / "store", tmp_path / "jobs.tar")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "jobs.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(StoreError, match="cannot be read as an archive of jobs"):
        import_store(tmp_path / "store", tmp_path / "jobs.tar")


def test_a_damaged_artefact_is_not_exported(store, tmp_path):
    write(store, final=LARGE)
    flip(folder(store) / "final.safetensors")
    with pytest.raises(CorruptArtefactError):
        export_store(store.root, tmp_path / "jobs.tar")
    assert not (tmp_path / "jobs.tar").exists()


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs with one store, of which one lies elsewhere."""
    base = tmp_path_factory.mktemp("runs")
    suite = suite_file(base, SMALL)
    first = ("run", suite, "--out", base / "here" / "first", "--jobs", 1)
    assert cli(*first).code == 0
    longer = SMALL["recipes"]["short"] | {"epochs": 1}
    other = suite_file(base / "other", SMALL, name="other", recipes={"short": longer})
    said = cli("run", other, "--out", base / "there" / "second", "--store", base / "here" / "store",
               "--jobs", 1)  # fmt: skip
    assert said.code == 0, said.err
    return base


@pytest.fixture
def runs(finished, tmp_path):
    """A copy of them; the run elsewhere is registered where it is now."""
    subprocess.run(["/bin/cp", "-a", finished, tmp_path / "runs"], check=True)  # hard links stay
    store = Store(tmp_path / "runs" / "here" / "store")
    (registered,) = (store.root / "runs").iterdir()
    registered.unlink()
    described = tmp_path / "runs" / "there" / "second" / "run.json"
    content = json.loads(described.read_text())
    described.write_text(json.dumps(content | {"store": "../../here/store"}))
    store.register_run(described.parent)
    return tmp_path / "runs"


def test_a_run_beside_a_link_to_the_store_is_remembered(tmp_path):
    store = Store(tmp_path / "data" / "store")
    store.prepare()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "store").symlink_to(store.root)
    for run in (tmp_path / "project" / "run", tmp_path / "data" / "run"):
        run.mkdir()
        Store(tmp_path / "project" / "store").register_run(run)
    assert store.registered_runs() == [tmp_path / "project" / "run"]


def test_the_room_is_told_by_kind_state_and_suite(runs):
    store = runs / "here" / "store"
    usage = usage_of_store(store)
    sizes = {(row.group, row.name): row for row in usage.rows}
    assert sizes["kind", "trial"].jobs == 4
    assert sizes["kind", "diagnosis"].jobs == 4
    assert {name for group, name in sizes if group == "suite"} == {"tiny@1.0", "other@1.0"}
    files = [path for path in store.rglob("*") if path.is_file() and "contents" not in path.parts
             and not {"runs", "leases"} & set(path.relative_to(store).parts)]  # fmt: skip
    assert usage.total.files == len(files)
    assert usage.total.size_bytes == sum(path.stat().st_size for path in files)
    assert usage.total.disk_bytes == sum(
        {p.stat().st_ino: p.stat().st_size for p in files}.values()
    )
    said = cli("store", "du", store)
    assert said.code == 0
    assert "stored state" in said.out
    assert json.loads(cli("store", "du", store, "--json").out)["total"]["files"] == len(files)


def test_what_runs_refer_to_stays(runs):
    cleaning = gc_store(runs / "here" / "store", delete=True)
    assert [each for each in cleaning.unused if each.kind != "content"] == []
    assert {run.name for run in cleaning.runs} == {"first", "second"}
    for run in (runs / "here" / "first", runs / "there" / "second"):
        assert cli("status", run).out.count(" ok ") == 3


def test_what_no_run_refers_to_is_listed_and_only_then_removed(runs):
    store = runs / "here" / "store"
    shutil.rmtree(runs / "there")
    before = sorted(path.name for path in artefacts(store))
    said = cli("store", "gc", store)
    assert said.code == 0
    assert "there/second used this store, or may have, and is not there any more" in said.err
    assert "can be freed: give --delete to do it" in said.out
    assert sorted(path.name for path in artefacts(store)) == before
    room = usage_of_store(store).total.disk_bytes
    message = mistake("store", "gc", store, "--delete")
    assert "second used this store, or may have, and run.json there cannot be read" in message
    assert sorted(path.name for path in artefacts(store)) == before
    cleaning = gc_store(store, delete=True, forget=True)
    freed = sum(each.size_bytes for each in cleaning.unused) + cleaning.equal_bytes
    assert room - usage_of_store(store).total.disk_bytes == freed > 0
    counts = {kind: sum(each.kind == kind for each in cleaning.unused)
              for kind in ("pretrain", "trial", "diagnosis", "decoded images")}  # fmt: skip
    assert counts == {"pretrain": 1, "trial": 2, "diagnosis": 2, "decoded images": 0}
    assert len(list(artefacts(store))) == len(before) - 5
    assert cli("verify", store).code == 0
    assert gc_store(store).unused == ()


def spoil_a_row(content):
    described = json.loads(content)
    described["jobs"][0]["kind"] = "of a later version"
    return json.dumps(described).encode()


@pytest.mark.parametrize(
    ("run", "spoil"),
    [
        ("there/second", lambda content: content[:-9]),
        ("here/beside", lambda content: content[:-9]),
        ("here/beside", lambda content: content.replace(b'"jobs"', b'"jpbs"')),
        ("here/beside", spoil_a_row),
        ("here/first/earlier/0123", lambda content: content[:-9]),
    ],
    ids=["registered", "cut", "no jobs", "a row", "earlier"],
)
def test_jobs_of_a_run_that_cannot_be_read_stay(runs, run, spoil):
    store = runs / "here" / "store"
    content = (runs / "there" / "second" / "run.json").read_bytes()
    shutil.rmtree(runs / "there")
    shutil.rmtree(store / "runs")
    folder = runs / run
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(content.replace(b"../../here/store", b"../store"))
    if run.startswith("there"):
        Store(store).register_run(folder)
    (folder / "run.json").write_bytes(spoil((folder / "run.json").read_bytes()))
    before = artefacts(store)
    assert gc_store(store).gone == (folder,)
    assert str(folder) in mistake("store", "gc", store, "--delete")
    assert artefacts(store) == before
    gc_store(store, delete=True, forget=True)
    assert len(artefacts(store)) < len(before)


def test_compiled_code_is_counted_and_may_go_after_a_day(runs):
    store = Store(runs / "here" / "store")
    code = store.compiled / "fxgraph" / "ab" / "code.py"
    code.parent.mkdir(parents=True)
    code.write_text("compiled")
    rows = {row.name: row for row in usage_of_store(store.root).rows}
    assert (rows["compiled code"].files, rows["compiled code"].size_bytes) == (1, 8)
    assert "compiled code" not in {each.kind for each in gc_store(store.root, delete=True).unused}
    assert code.exists()
    assert cli("verify", store.root).code == 0
    os.utime(code, (0, 0))
    (unused,) = [each for each in gc_store(store.root).unused if each.kind == "compiled code"]
    assert unused.size_bytes == 8
    assert code.exists()
    gc_store(store.root, delete=True)
    assert not store.compiled.exists()


def test_data_of_no_run_go_and_are_decoded_again(runs):
    store = runs / "here" / "store"
    described = runs / "here" / "first" / "run.json"
    content = json.loads(described.read_text())
    shutil.rmtree(runs / "there")
    sources = [row for row in content["jobs"] if row["kind"] == "pretrain"]
    described.write_text(json.dumps(content | {"jobs": sources}))
    cleaning = gc_store(store, delete=True, forget=True)
    assert [each.name for each in cleaning.unused if each.kind == "decoded images"] == [
        "digits at 8 px"
    ]
    assert not any((store / "datasets" / "unfinished").iterdir())


def first_trial(runs):
    rows = json.loads((runs / "here" / "first" / "run.json").read_text())["jobs"]
    return next(row["id"] for row in rows if row["kind"] == "trial")


def test_unfinished_drafts_of_living_processes_stay(runs):
    store = Store(runs / "here" / "store")
    old = time.time() - 2 * 24 * 3600
    with store.writing(THIRD, "trial") as draft:
        draft.write_json("trial.json", 1)
        dead = store.root / "partial" / f"{OTHER}.{store.host}.999999999.1.{'0' * 8}"
        dead.mkdir()
        fresh = store.root / "partial" / f"{JOB}.{store.host}.999999998.1.{'0' * 8}"
        fresh.mkdir()
        os.utime(dead, (old, old))
        (planned,) = {path.name for path in artefacts(store.root)} & {first_trial(runs)}
        interrupted = [store.root / "unfinished" / job for job in (planned, OTHER, THIRD)]
        for path in interrupted:
            path.mkdir(exist_ok=True)
            os.utime(path, (old, old))
        cleaning = gc_store(store.root, delete=True)
        removed = [each.path for each in cleaning.unused if each.kind == "unfinished"]
        assert removed == [interrupted[1], dead]
        assert interrupted[0].exists()
        assert fresh.exists()
    assert store.is_done(THIRD)


def test_copies_in_an_older_store_become_one(runs):
    store = runs / "here" / "store"
    shutil.rmtree(store / "contents")
    for job in artefacts(store):
        for path in job.iterdir():
            copy = path.with_name("copy")
            shutil.copy2(path, copy)
            copy.replace(path)
    before = usage_of_store(store).total
    assert before.disk_bytes == before.size_bytes
    cleaning = gc_store(store)
    assert cleaning.equal_files > 0
    assert usage_of_store(store).total == before
    gc_store(store, delete=True)
    after = usage_of_store(store).total
    assert before.disk_bytes - after.disk_bytes == cleaning.equal_bytes
    assert after.size_bytes == before.size_bytes
    assert gc_store(store).equal_files == 0
    assert cli("verify", store).code == 0


def test_a_store_without_runs_is_not_emptied(store):
    write(store, final=LARGE)
    with pytest.raises(StoreError, match="everything in it would be unused: name the folders"):
        gc_store(store.root, delete=True)
    assert store.is_done(JOB)


def test_the_jobs_of_one_run_are_exported(runs, tmp_path):
    store = runs / "here" / "store"
    assert export_store(store, tmp_path / "jobs.tar", runs=[runs / "there" / "second"]) == 5
    said = cli("store", "import", tmp_path / "new", tmp_path / "jobs.tar")
    assert said.out == f"5 jobs are new in {tmp_path / 'new'}; 0 were there before\n"
    suite = runs / "other" / "suite.yaml"
    said = cli("run", suite, "--out", tmp_path / "again", "--store", tmp_path / "new", "--jobs", 1)
    assert "5 jobs: 5 already done, 0 to run" in said.err


def test_mistakes_are_messages(tmp_path):
    assert "is not a store: it has no folder 'jobs'" in mistake("store", "du", tmp_path)
    assert "is not a store" in mistake("store", "gc", tmp_path, "--delete")
    assert "is not a store" in mistake("store", "export", tmp_path, tmp_path / "a.tar")
    assert "a.tar" in mistake("store", "import", tmp_path / "store", tmp_path / "a.tar")


# --- states ---------------------------------------------------------------------------------------


def states(store):
    """The stored states of each kind of training."""
    return {kind: {path.stem for job in artefacts(store) for path in job.glob("*.safetensors")
                   if json.loads((job / "manifest.json").read_text())["kind"] == kind} - {"outputs"}
            for kind in ("pretrain", "trial")}  # fmt: skip


def test_only_final_states_and_those_that_are_read_are_stored(tmp_path):
    """Then a suite that reads more trains again, with the same bits."""
    suite = suite_file(tmp_path, SMALL)
    run = ("run", suite, "--out", tmp_path / "run", "--jobs", 1)
    assert cli(*run, "--keep", "final").code == 0
    store = tmp_path / "store"
    assert states(store) == {"pretrain": {"final"}, "trial": {"final"}}
    records = (tmp_path / "run" / "records.jsonl").read_text()
    more = suite_file(tmp_path / "more", SMALL, name="more",
                      diagnostics={"d": {"name": "spectrum", "params": {"of": ["init"]}}},
                      claims={})  # fmt: skip
    said = cli("run", more, "--out", tmp_path / "more-run", "--store", store, "--jobs", 1)
    assert said.code == 0, said.err
    assert "2 finished training(s) did not store states that are read now" in said.err
    assert states(store)["trial"] >= {"final", "init"}
    assert (tmp_path / "more-run" / "records.jsonl").read_text()
    assert cli(*run).code == 0
    assert (tmp_path / "run" / "records.jsonl").read_text() == records
    assert not any((store / "corrupt").iterdir())


def test_another_value_is_refused():
    import transferbench

    with pytest.raises(ValueError, match="keep must be all or final, not 'some'"):
        transferbench.plan_run("quickstart", keep="some")


def test_jobs_of_a_run_that_an_older_version_wrote_stay(runs):
    store = runs / "here" / "store"
    for run in (runs / "here" / "first", runs / "there" / "second"):
        content = json.loads((run / "run.json").read_text())
        rows = [{key: row[key] for key in row if key != "payload"} for row in content["jobs"]]
        (run / "run.json").write_text(json.dumps(content | {"jobs": rows}))
    before = sorted(path.name for path in artefacts(store))
    cleaning = gc_store(store, delete=True)
    assert {each.kind for each in cleaning.unused} <= {"content"}
    assert sorted(path.name for path in artefacts(store)) == before
    assert len(list((store / "datasets").glob("?" * 64))) == 2
