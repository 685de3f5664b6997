"""What executors and the scheduler cost besides the jobs, as two tables of Markdown.

With PYTHONPATH=tests:tests/clusters, by which workers import this module as well:

python tests/clusters/overhead.py growth              growth to 10,000 jobs
python tests/clusters/overhead.py EXECUTOR [...]      500 jobs of 0.2 s through each executor
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tabulate import tabulate
from tiny_suite import tiny_suite

from transferbench.identity import file_digest
from transferbench.plan import DatasetFacts, Entry, Job, Work, make_plan
from transferbench.registry import identity, load_registry
from transferbench.runner.collect import job_states
from transferbench.runner.executors import Outcome
from transferbench.runner.executors.offers import choose_executor
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.options import Options
from transferbench.runner.schedule import JobSchedule, SilentWatcher
from transferbench.store import Store
from transferbench.store.documents import MANIFEST, FileFacts, Manifest, write_document

JOBS, SECONDS, SLOTS = 500, 0.2, 2
OPTIONS = {
    "local": {},
    "slurm": {"chunks": SLOTS, "idle_seconds": 5, "time": 30},
    "ray": {},
}
"""Of each executor, for as many slots."""
WHAT = ("planning", "scheduling", "status")
GROWTH = (1_250, 2_500, 5_000, 10_000)


class Sleeping(ExecutorContext):
    """Its jobs sleep and publish an artefact."""

    def start(self, device, slots=1, group=None):  # noqa: ARG002  # as its base class
        return partial(start, self.store.root)


def start(root):
    store = Store(root)

    def run(job):
        with store.writing(job.id, job.kind) as draft:
            time.sleep(SECONDS)
            draft.write_json("measurements.json", [])

    return run


def jobs_of(n):
    names = [f"{i:064x}" for i in range(n)]
    return {name: Job(name, "trial", {}, (), name[-4:], Work(0.0, 0.0)) for name in names}


def through(name):
    """Wall seconds of all jobs, from the start of the executor to its end."""
    with tempfile.TemporaryDirectory(prefix="overhead") as folder:
        store = Store(Path(folder) / "store")
        store.prepare()
        jobs = jobs_of(JOBS)
        slots = None if name == "slurm" else SLOTS
        context = Sleeping(Options(jobs=slots), None, store, Path(folder) / "run", jobs)
        spec, options = choose_executor(name, OPTIONS.get(name, {}))
        began = time.perf_counter()
        with spec.build(context, options) as executor:
            outcomes = JobSchedule(jobs, set(), store, executor, SilentWatcher()).run()
        seconds = time.perf_counter() - began
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    return seconds


def compare_executors(names):
    ideal = JOBS * SECONDS / SLOTS
    rows = []
    for name in names:
        seconds = through(name)
        rows.append([name, seconds, seconds / ideal, 1000 * (seconds - ideal) * SLOTS / JOBS])
    heads = ["executor", "wall s", f"of {ideal:.0f} s", "overhead, ms a job"]
    show(rows, heads, ("", ".1f", ".2f", ".1f"))


def show(rows, heads, formats):
    sys.stdout.write(tabulate(rows, heads, "github", floatfmt=formats) + "\n")


class Instant:
    """Every job is done as soon as it is waited for."""

    slots, device = 64, "cpu"

    def __init__(self):
        self.busy = []

    def free(self, _lane=""):
        return self.slots - len(self.busy)

    def submit(self, work):
        self.busy += work.jobs

    def wait(self, _timeout=None):
        jobs, self.busy = self.busy[:1], self.busy[1:]
        return [Outcome(job, "ok", "", "", 0.0) for job in jobs]


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def planned(n):
    """A function that makes a plan of about so many jobs."""
    registry = load_registry()
    suite = tiny_suite(replicates=max(1, n // 14))
    spec, params = registry.resolve_backbone("fixup-resnet8")
    entry = Entry(spec.name, identity(spec, spec.parse(params)), spec.license, spec.source)
    names = ("source:source", "target:handwriting")
    facts = dict.fromkeys(names, DatasetFacts("0" * 64, 10, "multi-class", "accuracy", 400, 200))
    return lambda: make_plan(suite, [entry], registry, facts)


def publish(store, job):
    """An artefact as a job leaves it, without waiting for the disk."""
    folder = store.folder_of(job.id)
    folder.mkdir(parents=True)
    path = folder / "measurements.json"
    path.write_text("[]", "utf-8")
    facts = {path.name: FileFacts(sha256=file_digest(path), size_bytes=2)}
    write_document(folder / MANIFEST, Manifest(id=job.id, kind=job.kind, files=facts, facts={}))


def grow():
    rows = []
    for n in GROWTH:
        make, plans = planned(n), []
        planning = cpu_seconds(lambda make=make, plans=plans: plans.append(make()))
        jobs = plans[0].jobs
        with tempfile.TemporaryDirectory(prefix="overhead") as folder:
            store = Store(Path(folder))
            store.prepare()
            executor = Instant()
            schedule = JobSchedule(jobs, set(), store, executor, SilentWatcher())
            scheduling = cpu_seconds(schedule.run)
            for job in jobs.values():
                publish(store, job)
            reader = Store(Path(folder))
            status = cpu_seconds(lambda jobs=jobs, reader=reader: job_states(jobs, reader))
        times = (planning, scheduling, status)
        rows.append([len(jobs), *times, *(1e6 * each / len(jobs) for each in times)])
    heads = ["jobs", *(f"{what} {unit}" for unit in ("s", "µs a job") for what in WHAT)]
    show(rows, heads, ("", *[".2f"] * len(WHAT), *[".0f"] * len(WHAT)))


if __name__ == "__main__":
    import overhead  # by a name under which workers have its functions too

    if sys.argv[1:] == ["growth"]:
        grow()
    else:
        overhead.compare_executors(sys.argv[1:] or ["local"])
