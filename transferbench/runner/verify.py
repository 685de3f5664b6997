"""Verifying a store: everything is read, and what is damaged is computed again, bit for bit.

An artefact that another kind of machine computed, or other code of a plugin file, is not computed
again here unless that is asked for, since its bits may differ; whether they do is told by the
digests of what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, NamedTuple, TypeAlias

from transferbench.data.cache import discard, other_formats, verify_cache
from transferbench.data.files import forget
from transferbench.errors import StoreError, TransferbenchError, listing
from transferbench.plan import Job, Work
from transferbench.plan.plugins import codes_of, plugins_in
from transferbench.registry import Registry, open_registry
from transferbench.runner.entries import entries_in
from transferbench.runner.execute import grouping_of, machine_of, start_executor
from transferbench.runner.executors import Outcome
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.options import Options
from transferbench.runner.outside import Outside, check_datasets, check_weights
from transferbench.runner.recomputed import different_origin, digests_in, measured_on, other_bits
from transferbench.runner.schedule import JobSchedule, Watcher
from transferbench.runner.survey import Survey, survey
from transferbench.store import Manifest, Store

__all__ = ["Repair", "Verification", "run_verification"]

LISTED = 5
UNKNOWN_JOB = (
    "nothing tells how it was computed: run its suite again, or name the run's folder with --run"
)

RepairOutcome: TypeAlias = Literal["repaired", "other bits", "not recomputed", "lost", "removed"]


class Repair(NamedTuple):
    """Something that was damaged, and what became of it.

    ``repaired``: as it was, bit for bit. ``other bits``: computed again, and not the same.
    ``not recomputed``: another kind of machine, or other code, computed it.
    ``lost``: it cannot be computed here.
    ``removed``: decoded images that no job of the store needs, or whose source is not here.
    """

    title: str
    fault: str
    outcome: RepairOutcome
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """What verifying a store came to; ``repairs`` is empty where everything was sound."""

    store: str
    artefacts: int
    files: int
    size_bytes: int
    repairs: tuple[Repair, ...]
    outside: tuple[Outside, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written, as far as it can be reached."""
        return all(repair.outcome in {"repaired", "removed"} for repair in self.repairs) and all(
            thing.status != "other content" for thing in self.outside
        )


def run_verification(
    options: Options,
    watcher: Watcher,
    *,
    runs: Sequence[Path] = (),
    weights: Sequence[str] = (),
    recompute: bool = False,
) -> Verification:
    """Read the store of ``options`` in full, and compute again what is damaged.

    ``runs``: folders of runs besides those that lie next to the store. ``weights``: files or
    folders of external weights. ``recompute``: also what another kind of machine computed.

    Raises: ``StoreError`` where there is no store, ``DataError`` where ``weights`` are not there.
    """
    store = Store(Path(str(options.store)))
    state = survey(store, runs)
    recorded = [entry for run in state.runs for entry in entries_in(run.described)]
    external = check_weights(state.jobs.values(), weights, recorded)
    registry = open_registry(options.plugins, strict=True)
    cache = store.datasets
    damaged = {problem.folder: problem.problem for problem in verify_cache(cache)}
    for folder in damaged:
        discard(folder)
    forget(cache)
    data_root = None if options.data_root is None else Path(options.data_root)
    outside = list(check_datasets(state.jobs.values(), registry, cache, data_root))
    repairs = [_decoded_again(store, folder, problem) for folder, problem in damaged.items()]
    healer = _Healer(store, state, options, watcher, external.paths, registry, recompute=recompute)
    repairs += healer.heal()
    return Verification(
        str(store.root), state.artefacts, state.files, state.size_bytes, tuple(repairs),
        (*outside, *external.outside), tuple(_notes(store, state, registry, external.unused)),
    )  # fmt: skip


def _decoded_again(store: Store, folder: Path, problem: str) -> Repair:
    """What became of a damaged folder of decoded images; what nothing needs is moved away."""
    title = f"decoded images {folder.name[:12]}"
    if not any(each.folder == folder for each in verify_cache(folder.parent)):
        return Repair(title, problem, "repaired")
    aside = store.corrupt / f"datasets-{folder.name[:12]}-{token_hex(4)}"
    aside.parent.mkdir(exist_ok=True)
    folder.rename(aside)
    return Repair(title, problem, "removed", "a run that needs them decodes them again")


def _notes(store: Store, state: Survey, registry: Registry, unused: Iterable[str]) -> Iterable[str]:
    yield from map(str, registry.problems)
    yield from (f"no trial of the store started from the weights {path}" for path in unused)
    if state.foreign:
        names = listing([str(path) for path in state.foreign], LISTED)
        yield f"these are not artefacts, and were left alone: {names}"
    if older := other_formats(store.datasets):
        names = listing([folder.name[:12] for folder in older], LISTED)
        yield (f"{len(older)} folder(s) of decoded images have an older format, and are prepared "
               f"again when needed; remove freely: {names}")  # fmt: skip
    if aside := list(store.corrupt.glob("*")):
        yield f"{len(aside)} artefact(s) were set aside in {store.corrupt}; remove freely"


# --- artefacts --------------------------------------------------------------------------------


@dataclass
class _Healer:
    """Computes damaged artefacts again, and compares them with what was there before."""

    store: Store
    state: Survey
    options: Options
    watcher: Watcher
    weights: Mapping[str, str]
    registry: Registry
    recompute: bool
    settled: dict[str, Repair] = field(default_factory=dict)

    def heal(self) -> list[Repair]:
        """What became of every damaged job, in the order of their ids."""
        faults = self.state.faults
        before = {job: self.store.manifest(job) for job in faults}
        for job in faults:
            if job not in self.state.jobs:
                self._settle(job, "lost", UNKNOWN_JOB)
            elif reason := self._different_origin(job, before[job]):
                self._settle(job, "not recomputed", f"{reason}, so that its bits may differ: "
                             "verify it there, or here with --recompute")  # fmt: skip
        asides = {job: self.store.discard(job) for job in faults}
        needed = [job for job in faults if job not in self.settled]
        outcomes = self._computed(needed)
        for job in needed:
            outcome = outcomes.get(job)
            if outcome is not None and outcome.status != "ok":
                self._settle(job, "lost", self._reason(job, outcomes))
            else:
                self._compare(job, before[job], asides[job])
        return [self.settled[job] for job in sorted(faults)]

    def _settle(self, job: str, outcome: RepairOutcome, detail: str = "") -> None:
        self.settled[job] = Repair(self._title(job), self.state.faults[job], outcome, detail)

    def _title(self, job: str) -> str:
        return self.state.jobs[job].title if job in self.state.jobs else f"job {job[:12]}"

    def _reason(self, job: str, outcomes: Mapping[str, Outcome]) -> str:
        """Why a job was not computed: its own error, or that of the first job that it needs."""
        if outcomes[job].status == "skipped":
            for need in self.state.jobs[job].requires:
                if need in outcomes and outcomes[need].status != "ok":
                    return f"needs {self._title(need)}: {outcomes[need].message}"
        return outcomes[job].message

    def _different_origin(self, job: str, before: Manifest | None) -> str:
        """Which other machine, or code of a file, computed an artefact; "" where not known."""
        if before is None or self.recompute:
            return ""
        return different_origin(before, {**self._machine, "code": self._code(job)}, "here")

    def _code(self, job: str) -> Mapping[str, Any]:
        """The code here of the plugin files that a job needs."""
        payload, jobs = self.state.jobs[job].payload, self.state.jobs
        subjects = [jobs[each].payload for each in payload.get("subjects", ()) if each in jobs]
        # The pixels of a dataset are in the ids.
        uses = [use for use in plugins_in(payload, subjects) if use.kind != "dataset"]
        try:
            codes = codes_of(uses, self.registry)
        except TransferbenchError:  # it cannot be computed here, which is said when it is tried
            return {}
        return {plugin: code.code for plugin, code in codes.items() if code.loose}

    @cached_property
    def _machine(self) -> Mapping[str, Any]:
        from transferbench.engine.kernels import machine_facts
        from transferbench.engine.resources import find_device

        return machine_facts(find_device(self.options.device), 0)

    def _computed(self, needed: Sequence[str]) -> Mapping[str, Outcome]:
        """How the jobs ended that are computed again, and what they require of the store."""
        jobs, done, refused = self._with_requirements(needed)
        if jobs.keys() <= done | refused.keys():
            return refused
        code = self.registry.file_codes
        machine = machine_of(self.options, self.store, self.weights)._replace(code=code)
        context = ExecutorContext(
            self.options, machine, self.store, self.store.root, jobs, frozenset(done)
        )
        with start_executor(context) as executor:
            grouping = grouping_of(context, executor)
            schedule = JobSchedule(
                jobs, done, self.store, executor, self.watcher, refused, grouping=grouping
            )
            return refused | schedule.run()

    def _with_requirements(
        self, needed: Sequence[str]
    ) -> tuple[dict[str, Job], set[str], dict[str, Outcome]]:
        """The jobs with all that they require; which are done; and which cannot be computed."""
        jobs: dict[str, Job] = {}
        done: set[str] = set()
        refused: dict[str, Outcome] = {}
        frontier = list(needed)
        while frontier:
            name = frontier.pop()
            if name in jobs:
                continue
            job = self.state.jobs.get(name) or Job(name, "trial", {}, (), name[:12], Work(0, 0))
            jobs[name] = job
            if self.store.is_done(name):
                done.add(name)
            elif name in self.settled or not job.payload:
                reason = self.settled[name].detail if name in self.settled else UNKNOWN_JOB
                refused[name] = Outcome(name, "failed", reason, "", 0.0)
            else:
                frontier += job.requires
        return jobs, done, refused

    def _compare(self, job: str, before: Manifest | None, aside: Path | None) -> None:
        """Settle a job that was computed again, by the digests of what was there before."""
        manifest = self.store.manifest(job)
        if manifest is None:
            raise StoreError(f"job {job} is gone as soon as it is computed: check the disk")
        left = digests_in(aside) if aside else set()
        if not left:
            self._settle(job, "repaired", "nothing was left to compare it with")
        elif differing := other_bits(before, left, manifest):
            sound = self.state.jobs.keys() - self.state.faults.keys()
            measured = measured_on(job, self.state.jobs, sound)
            self._settle(job, "other bits", differing + measured)
        else:
            self._settle(job, "repaired")
