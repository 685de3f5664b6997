"""The plan of a request: its jobs, with those that are in the store already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transferbench.plan import Plan, plan_resolved
from transferbench.registry import Registry
from transferbench.runner.collect import done_jobs
from transferbench.runner.options import Options
from transferbench.runner.request import Request, RequestedEntry, make_request
from transferbench.store import Store
from transferbench.suite import Suite

__all__ = ["Planned", "plan_request", "plan_suite"]


@dataclass(frozen=True, repr=False)
class Planned:
    """A plan with all that its execution needs.

    ``entries``: those of the plan, as they were requested.
    ``notes``: what the user should know and need not act on.
    """

    plan: Plan
    registry: Registry
    options: Options
    changed: tuple[str, ...]
    entries: tuple[RequestedEntry, ...]
    folder: Path
    store: Store
    notes: tuple[str, ...] = ()

    @property
    def suite(self) -> Suite:
        """The suite as it is run."""
        return self.plan.suite

    def __repr__(self) -> str:
        entries = ", ".join(entry.name for entry in self.plan.entries)
        jobs = f"{len(self.plan.jobs)} jobs, {len(self.done)} already done"
        return f"<Planned {self.suite.id} of {entries}; {jobs}; {self.folder}>"

    @cached_property
    def done(self) -> set[str]:
        """The jobs that are in the store; read once."""
        return done_jobs(self.plan.jobs, self.store)


def plan_suite(suite: str | Suite, options: Options) -> Planned:
    """The plan of what ``options`` request of ``suite``. Raises: as the two stages."""
    return plan_request(make_request(suite, options))


def plan_request(request: Request) -> Planned:
    """The jobs of the requested entries, and of those that earlier runs in the folder finished.

    Raises: ``SuiteError``, ``UnknownNameError``, ``PluginError``.
    """
    entries = (*request.earlier, *request.entries)
    plan = _plan(request, entries)
    unfinished = [entry for entry in request.earlier if not _is_done(entry, plan, request.store)]
    if unfinished:
        entries = tuple(entry for entry in entries if entry not in unfinished)
        plan = _plan(request, entries)
    notes = (*request.notes, *map(_unfinished_note, unfinished), *_left_out_notes(plan))
    return Planned(plan, request.registry, request.options, request.changed, entries,
                   request.folder, request.store, notes)  # fmt: skip


def _plan(request: Request, entries: Iterable[RequestedEntry]) -> Plan:
    return plan_resolved(request.suite, [requested.entry for requested in entries], request.facts)


def _is_done(requested: RequestedEntry, plan: Plan, store: Store) -> bool:
    jobs = plan.jobs_of(requested.entry.name)
    return done_jobs(jobs, store) == jobs


def _unfinished_note(requested: RequestedEntry) -> str:
    name = requested.entry.name
    return f"the earlier entry {name} is unfinished and left out; run it to go on"


def _left_out_notes(plan: Plan) -> Iterator[str]:
    """A note on the arms that entries with external weights go without."""
    external = [entry.name for entry in plan.entries if entry.weights is not None]
    # The arms are the same whichever external weights an entry has.
    if external and (arms := plan.left_out[external[0]]):
        reasons = ", ".join(f"{arm} ({why})" for arm, why in arms.items())
        yield (
            f"{', '.join(external)}: external weights cannot start {reasons}; these arms are left "
            "out, and claims on them stay undecided"
        )
