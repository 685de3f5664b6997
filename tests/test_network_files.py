"""File systems of several hosts: what they answer late, twice, wrongly or never costs no job."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import test_slurm
from test_slurm import GRAPH, Publishes, context_of, hasty, schedule_of  # noqa: F401  # a fixture
from tiny_suite import tiny_suite

from transferbench.engine.jobs import start_engine
from transferbench.engine.resources import Machine
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.runner.slurm.control import ElementState
from transferbench.runner.slurm.executor import ArrayExecutor
from transferbench.runner.slurm.ledger import Entry, Ledger
from transferbench.runner.slurm.options import SlurmOptions
from transferbench.store import Store

JOB = "a" * 64


def error(number):
    return OSError(number, os.strerror(number))


class BusyServer:
    """Calls of the system as a busy server answers them: drawn by a seed.

    A call that was done fails as if its answer was lost, or is done again; a size is that of a
    moment ago; a file that is opened was replaced by another host.
    """

    def __init__(self, patch, seed):
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.faults = Counter()
        self.sizes, self.replaced = {}, set()
        names = ("link", "mkdir", "rename", "stat", "open")
        self.real = {name: getattr(os, name) for name in names}
        patch.setattr(os, "link", self.link)
        patch.setattr(os, "mkdir", self.again("mkdir"))
        patch.setattr(os, "rename", self.again("rename"))
        patch.setattr(os, "stat", self.stat)
        patch.setattr(os, "open", self.open)

    def draws(self, fault, share):
        with self.lock:
            happens = self.random.random() < share
            self.faults[fault] += happens
        return happens

    def link(self, *arguments, **options):
        if self.draws("link refused", 0.1):
            raise error(errno.EIO)
        self.real["link"](*arguments, **options)
        if self.draws("link whose answer was lost", 0.3):
            raise error(errno.EIO)
        if self.draws("link done again", 0.3):
            self.real["link"](*arguments, **options)

    def again(self, name):
        def call(*arguments, **options):
            self.real[name](*arguments, **options)
            if "/partial/" in str(arguments[0]) and self.draws(f"{name} done again", 0.3):
                self.real[name](*arguments, **options)

        return call

    def stat(self, path, *arguments, **options):
        status = self.real["stat"](path, *arguments, **options)
        if not str(path).endswith(".jsonl"):
            return status
        with self.lock:
            seen_at, earlier = self.sizes.setdefault(str(path), (time.monotonic(), status))
            if time.monotonic() - seen_at > 0.1:
                self.sizes[str(path)] = (time.monotonic(), status)
        self.faults["old size"] += earlier.st_size != status.st_size
        return earlier

    def open(self, path, *arguments, **options):
        descriptor = self.real["open"](path, *arguments, **options)
        if "/jobs/" not in str(path) or not str(path).endswith("manifest.json"):
            return descriptor
        key = (threading.get_ident(), str(path))
        if key in self.replaced:  # no file is replaced again at once
            self.replaced.discard(key)
        elif self.draws("stale", 0.3):
            self.replaced.add(key)
            os.close(descriptor)
            raise error(errno.ESTALE)
        return descriptor


class EndingCluster(test_slurm.Cluster):
    """A chunk that raises has ended, so that the run does not wait for it for ever."""

    def _chunk(self, session, name, restarts):
        try:
            super()._chunk(session, name, restarts)
        except BaseException as raised:
            self.elements[name] = ElementState("FAILED", detail=repr(raised))
            raise


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("seed", range(5))
def test_chunks_on_a_file_system_that_answers_wrongly_compute_every_job_once(
    seed, tmp_path, monkeypatch
):
    jobs = [*GRAPH, *(test_slurm.job_of(name, "b") for name in "f0123456789")]
    context = context_of(tmp_path, jobs)
    work = Publishes(context.store)
    cluster = EndingCluster(work)
    server = BusyServer(monkeypatch, seed)
    with ArrayExecutor(context, SlurmOptions(chunks=3, idle_seconds=20), cluster) as executor:
        outcomes = schedule_of(context, executor)
    cluster.join()
    monkeypatch.undo()
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert Counter(work.ran) == Counter(job.title for job in jobs)
    assert all(Store(tmp_path / "store").is_done(job.id) for job in jobs)
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert sum(map(bool, server.faults.values())) >= 5, server.faults


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_claim_whose_answer_was_lost_is_held(links, tmp_path, monkeypatch):
    first, second = Ledger(tmp_path, "1_0.0"), Ledger(tmp_path, "1_1.0")
    real = os.link

    def link(*arguments):
        if links:
            real(*arguments)
        raise error(errno.EIO)

    monkeypatch.setattr(os, "link", link)
    assert first.claim(JOB)
    assert first.holder(JOB) == "1_0.0"
    assert not second.claim(JOB)


def test_a_line_of_which_zeros_are_seen_first_is_read_later(tmp_path):
    writer, reader = Ledger(tmp_path, "1_0.0"), Ledger(tmp_path, "reader")
    writer.write(Entry("i" * 64, 0, "ok"))
    writer.write(Entry(JOB, 0, "ok"))
    path = tmp_path / "entries" / "1_0.0.jsonl"
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    path.write_bytes(content[: first + 9] + bytes(len(content) - first - 10) + b"\n")
    assert [entry.job for entry in reader.read()] == ["i" * 64]
    path.write_bytes(content)
    assert [entry.job for entry in reader.read()] == [JOB]


def test_entries_that_cannot_be_read_now_are_read_later(tmp_path, monkeypatch):
    Ledger(tmp_path, "1_0.0").write(Entry(JOB, 0, "ok"))
    reader, opened = Ledger(tmp_path, "reader"), Path.open
    with monkeypatch.context() as patch:

        def stale(path, *arguments, **options):
            if path.name == "1_0.0.jsonl":
                raise error(errno.ESTALE)
            return opened(path, *arguments, **options)

        patch.setattr(Path, "open", stale)
        assert list(reader.read()) == []
    assert [entry.job for entry in reader.read()] == [JOB]


def published(root):
    store = Store(root)
    with store.writing(JOB, "trial") as draft:
        draft.path("outputs.bin").write_bytes(b"x" * 100)
    return store


def test_a_file_that_another_host_replaced_is_read_again_and_is_no_damage(tmp_path, monkeypatch):
    published(tmp_path)
    store, opened, failed = Store(tmp_path), os.open, Counter()

    def replaced(path, *arguments, **options):
        failed[str(path)] += 1
        if JOB in str(path) and failed[str(path)] == 1:
            raise error(errno.ESTALE)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", replaced)
    assert store.is_done(JOB)
    monkeypatch.undo()
    from transferbench.store import artefact

    digest, calls = artefact.file_digest, []

    def stale(path):
        calls.append(path)
        if len(calls) == 1:
            raise error(errno.ESTALE)
        return digest(path)

    monkeypatch.setattr(artefact, "file_digest", stale)
    assert store.artefact(JOB).read("outputs.bin", Path.read_bytes) == b"x" * 100
    assert len(calls) == 2


def test_what_nfs_keeps_of_removed_files_is_no_part_of_an_artefact(tmp_path):
    store = Store(tmp_path)
    with store.writing(JOB, "trial") as draft:
        draft.path("outputs.bin").write_bytes(b"x")
        (draft.folder / ".nfs000000000000001200000001").write_bytes(b"removed")
    assert Store(tmp_path).artefact(JOB).names == ("outputs.bin",)


def test_a_job_sees_what_another_host_has_finished_just_now(tmp_path, monkeypatch):
    """This host has looked for it before, and believes that it is not there until it looks anew."""
    planned = plan_suite(tiny_suite(), Options(out=tmp_path / "run", device="cpu"))
    store, jobs = planned.store, planned.plan.jobs
    first = next(job for job in jobs.values() if job.kind == "pretrain")
    second = next(job for job in jobs.values() if first.id in job.requires)
    engine = start_engine(Machine(store.root, store.datasets, None, "cpu"))
    engine(first)
    folder, scandir = str(store.folder_of(first.id)), os.scandir
    opened = []

    def remembered(real):
        def call(path, *arguments, **options):
            if not opened and str(path).startswith(folder):
                raise error(errno.ENOENT)
            return real(path, *arguments, **options)

        return call

    def look(path="."):
        if str(path) == str(store.folder_of(first.id).parent):
            opened.append(path)
        return scandir(path)

    for name in ("open", "stat", "lstat"):
        monkeypatch.setattr(os, name, remembered(getattr(os, name)))
    monkeypatch.setattr(os, "scandir", look)
    engine(second)
    assert opened
    assert store.is_done(second.id)
