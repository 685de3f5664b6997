"""The plan of a run: what is requested, resolved and decoded, as jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from transferbench.errors import listing
from transferbench.plan import DatasetFacts, Plan, plan_resolved
from transferbench.plan.plugins import plugins_in
from transferbench.plan.resolve import ResolvedSuite, reasons_text, resolve_suite
from transferbench.registry import Registry, blamed, kind_of, open_registry
from transferbench.registry.guard import only_plugins_run
from transferbench.runner.collect import ENDED, finished_codes
from transferbench.runner.datasets import (
    DataReport,
    count_copies,
    facts_of,
    prepare_datasets,
    refuse_impossible,
    refuse_unknown_labels,
    report_on,
)
from transferbench.runner.destination import refuse_folder
from transferbench.runner.earlier import EarlierRun, earlier_run
from transferbench.runner.entries import RequestedEntry, other_entries, recorded_entries
from transferbench.runner.executors.offers import choose_executor
from transferbench.runner.options import Options
from transferbench.runner.other_code import CodeReport, Codes, report_code
from transferbench.runner.request import make_request
from transferbench.runner.run_store import requested_store
from transferbench.runner.states import lacking_states
from transferbench.store import Store
from transferbench.suite import Suite

__all__ = ["Planned", "plan_suite", "with_entries_finished_since"]

LISTED = 4
"""Entries, or plugins, that a note names."""


@dataclass(frozen=True, repr=False)
class Planned:
    """A plan with all that its execution needs.

    ``entries``: those of the plan, as they were requested; ``own``: those of this very request.
    ``facts``: of the suite's datasets.
    ``notes``: what the user should know and need not act on; ``data``: the part on the data.
    ``superseded``: a run of another suite in the same folder, moved to earlier/ before this one
    is written.
    """

    plan: Plan
    registry: Registry
    options: Options
    changed: tuple[str, ...]
    entries: tuple[RequestedEntry, ...]
    folder: Path
    store: Store
    notes: tuple[str, ...] = ()
    data: DataReport = field(default_factory=DataReport)
    superseded: EarlierRun | None = None
    own: tuple[RequestedEntry, ...] = ()
    facts: Mapping[str, DatasetFacts] = field(default_factory=dict)

    @property
    def suite(self) -> Suite:
        """The suite as it is run."""
        return self.plan.suite

    def __repr__(self) -> str:
        entries = ", ".join(entry.name for entry in self.plan.entries)
        jobs = f"{len(self.plan.jobs)} jobs, {len(self.done)} already done"
        return f"<Planned {self.suite.id} of {entries}; {jobs}; {self.folder}>"

    @cached_property
    def finished(self) -> Mapping[str, Codes]:
        """The jobs that are in the store, each with the code that computed it; read once."""
        return finished_codes(self.plan.jobs, self.store)

    @cached_property
    def lacking(self) -> Mapping[str, str]:
        """Trainings in the store without a state that jobs still to be computed read, with it."""
        return lacking_states(self.plan, self.registry, self.store, self.finished)

    @property
    def done(self) -> set[str]:
        """The jobs that are in the store, with all that the others read."""
        return self.finished.keys() - self.lacking.keys()

    @cached_property
    def code(self) -> CodeReport:
        """The code of its plugins, beside that of the finished jobs."""
        before = earlier_run(self.folder)
        accepted = before.accepted_code if before and before.digest == self.suite.digest else {}
        return report_code(
            self.plan, self.finished, self.registry, accepted, accept=self.options.accept_code
        )


@only_plugins_run()
def plan_suite(suite: str | Suite, options: Options) -> Planned:
    """The jobs of the requested entries, and of those that earlier runs in the folder finished.

    Datasets that are not decoded yet are decoded: their pixels are part of ids.
    Raises: ``SuiteError``, ``UnknownNameError``, ``PluginError``, ``DataError``, ``ExecutorError``.
    """
    choose_executor(options.executor, options.executor_options)  # its mistakes are told first
    registry = open_registry(options.plugins, strict=True)
    request = make_request(suite, options, registry)
    resolved = resolve_suite(request.suite, registry)
    store, store_notes = requested_store(request.folder, options.store)
    refuse_folder(request.folder, store)
    interrupted = store.interrupted()
    store.tidy()
    datasets = prepare_datasets(resolved, store, options, registry)
    copies = count_copies(datasets.values())
    facts = facts_of(resolved, datasets, copies)
    own = tuple(request.entries)
    plan, entries, unfinished = _plan_with_finished(resolved, own, request.earlier, facts, store)
    data = report_on(resolved, datasets, copies)
    notes = (*store_notes, *store.set_aside, *request.notes, *data.notes,
             *(f"{plan.jobs[job].title}: {writer}, {ENDED}"
               for job, writer in interrupted.items() if job in plan.jobs),
             *_notes(plan, unfinished, store), *_single_image_notes(plan, registry),
             *_unused_files(plan, registry, options.plugins))  # fmt: skip
    planned = Planned(plan, registry, options, request.changed, entries, request.folder, store,
                      notes, data, request.superseded, own, facts)  # fmt: skip
    left = (job for name, job in plan.jobs.items() if name not in planned.finished)
    refuse_impossible(plan, datasets, left)
    refuse_unknown_labels(plan, datasets, registry)
    return planned


def with_entries_finished_since(planned: Planned) -> Planned:
    """``planned`` with the entries that other processes have finished in the same folder.

    The same object where there are none.
    """
    recorded = recorded_entries(planned.folder, planned.suite.digest)
    others, _ = other_entries(recorded, planned.entries, planned.registry)
    if not others:
        return planned
    resolved = resolve_suite(planned.suite, planned.registry)
    earlier = [*planned.entries[: -len(planned.own)], *others]
    plan, entries, _ = _plan_with_finished(
        resolved, planned.own, earlier, planned.facts, planned.store
    )
    if len(entries) == len(planned.entries):
        return planned
    return replace(planned, plan=plan, entries=entries)


def _plan_with_finished(
    resolved: ResolvedSuite,
    own: tuple[RequestedEntry, ...],
    earlier: Sequence[RequestedEntry],
    facts: Mapping[str, DatasetFacts],
    store: Store,
) -> tuple[Plan, tuple[RequestedEntry, ...], list[RequestedEntry]]:
    """The plan of ``own`` entries and of ``earlier`` ones that are finished; and the others."""
    entries = (*earlier, *own)
    plan = plan_resolved(resolved, [requested.entry for requested in entries], facts)
    unfinished = [entry for entry in earlier if not _is_done(entry, plan, store)]
    if unfinished:
        entries = tuple(requested for requested in entries if requested not in unfinished)
        plan = plan_resolved(resolved, [requested.entry for requested in entries], facts)
    return plan, entries, unfinished


def _is_done(requested: RequestedEntry, plan: Plan, store: Store) -> bool:
    """Whether all jobs of an entry finished; what is damaged since is computed again."""
    jobs = plan.jobs_of(requested.entry.name)
    return all(store.is_done(job) or store.damage(job) for job in jobs)


def _notes(plan: Plan, unfinished: Sequence[RequestedEntry], store: Store) -> Iterator[str]:
    """Notes on the entries and the arms that the plan goes without."""
    if unfinished:
        names = listing([requested.entry.name for requested in unfinished], LISTED)
        yield (
            f"left out, since not finished in the store {store.root}: {names}; run an entry again"
            " to go on with it"
        )
    external = [entry.name for entry in plan.entries if entry.weights is not None]
    # The arms are the same whichever external weights an entry has.
    if external and (arms := plan.left_out[external[0]]):
        reasons = ", ".join(f"{arm} ({why})" for arm, why in arms.items())
        yield (
            f"{', '.join(external)}: external weights cannot start {reasons}; these arms are left "
            "out, and claims on them stay undecided"
        )
    for entry in plan.entries:
        if entry.weights and entry.weights.license != "unknown":
            yield (
                f"{entry.name}: weights from {entry.weights.origin}, licence "
                f"{entry.weights.license}, pre-trained on {entry.weights.pretrained_on}"
            )
    for name in external:
        if unmeasured := plan.unmeasured[name]:
            yield f"{name}: not measured of P: {reasons_text(unmeasured)}"


def _unused_files(plan: Plan, registry: Registry, files: Sequence[str | Path]) -> Iterator[str]:
    """Notes on plugin files of which nothing runs in any job."""
    used = {(use.kind, use.name.partition("/")[0]) for job in plan.jobs.values()
            for use in plugins_in(job.payload, ())} if files else set()  # fmt: skip
    for file in dict.fromkeys(Path(file).resolve() for file in files):
        offers = [(kind_of(spec), spec.name) for spec in registry.offered_by(str(file))]
        if offers and used.isdisjoint(offers):
            listed = listing([f"{kind} {name!r}" for kind, name in offers], LISTED)
            yield (
                f"no job of this run uses {file.name}, which offers {listed}: name it in the "
                "suite, or a backbone with --backbone"
            )


def _single_image_notes(plan: Plan, registry: Registry) -> Iterator[str]:
    """Notes on entries with batch statistics that a recipe trains on single images."""
    trainings = [job.payload for job in plan.jobs.values() if "recipe" in job.payload]
    single = [payload["backbone"] for payload in trainings
              if payload["recipe"]["batch_size"] == 1 and not payload.get("frozen")]  # fmt: skip
    for entry in plan.entries:
        if entry.backbone in single:
            spec = registry.backbone(entry.backbone["name"])
            with blamed(f"backbone {spec.name!r}"):
                affected = spec.batch_statistics(spec.parse(entry.backbone["params"]))
            if affected:
                yield (
                    f"a recipe trains {entry.name} on batches of one image (batch_size: 1), and it "
                    "normalises by statistics of its batch, those of that image alone; give the "
                    "recipe a batch_size of at least 2"
                )
