"""A run: skip what is done, execute the rest, collect what was measured, judge the claims."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from transferbench.claims import Verdict, judge
from transferbench.executors import Executor, Outcome
from transferbench.executors.inprocess import InProcessExecutor
from transferbench.executors.local import LocalExecutor
from transferbench.planning import Planned, plugin_variable
from transferbench.records import Record
from transferbench.runfolder import (
    collect_records,
    describe_run,
    environment,
    job_statuses,
    write_json,
    write_text,
)
from transferbench.scheduling import Watcher, execute
from transferbench.store import CorruptArtefactError

__all__ = ["Finished", "execute_plan", "frame_of"]

ATTEMPTS = 3
"""How often a run goes back to compute again what it finds corrupted while collecting."""


@dataclass(frozen=True)
class Finished:
    """A run that came to its end: what was measured, the verdicts, and what went wrong."""

    planned: Planned
    outcomes: Mapping[str, Outcome]
    records: tuple[Record, ...]
    verdicts: Mapping[str, list[Verdict]]

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """One row for each record, a column for each coordinate."""
        return frame_of(self.records)

    @cached_property
    def statuses(self) -> pd.DataFrame:
        """One row for each job."""
        return job_statuses(self.planned.plan, self.planned.store)

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of the jobs that did not finish."""
        return [outcome for outcome in self.outcomes.values() if outcome.status != "ok"]


def frame_of(records: tuple[Record, ...]) -> pd.DataFrame:
    """The tidy table of ``records``."""
    return pd.DataFrame([record.row() for record in records])


def execute_plan(planned: Planned, watcher: Watcher) -> Finished:
    """Compute what is not in the store, and write the run's folder.

    An interrupt loses nothing that was finished; the same call goes on from there.
    """
    _check_writable(planned)
    outcomes: dict[str, Outcome] = {}
    for attempt in range(ATTEMPTS):
        outcomes |= _compute(planned, watcher)
        try:
            records = tuple(collect_records(planned.plan, planned.store))
            break
        except CorruptArtefactError as error:
            if attempt == ATTEMPTS - 1:
                raise
            planned.store.discard(error.job)
    return _write(planned, outcomes, records)


def _compute(planned: Planned, watcher: Watcher) -> dict[str, Outcome]:
    jobs, store = planned.plan.jobs, planned.store
    if all(store.is_done(job) for job in jobs):
        watcher.planned(len(jobs), len(jobs))
        return {}
    with _executor(planned) as executor:
        return execute(jobs, store, executor, watcher)


def _executor(planned: Planned) -> Executor:
    # torch comes with the jobs, and a run that has nothing to compute needs neither.
    from transferbench.jobs import start_engine
    from transferbench.workbench import Machine, find_device

    options = planned.options
    device = find_device(options.device)
    machine = Machine(
        store=planned.store.root.absolute(),
        cache=(planned.store.root / "datasets").absolute(),
        data_root=None if options.data_root is None else options.data_root.absolute(),
        device=str(device),
        plugins=tuple(path.absolute() for path in options.plugins),
        plugin_variable=plugin_variable(),
        weights=_weight_files(planned),
        micro_batch=options.micro_batch,
        compile=options.compile,
    )
    start = partial(start_engine, machine)
    if options.jobs == 1:
        return InProcessExecutor(start)
    slots = options.jobs or (1 if device.type == "cuda" else len(os.sched_getaffinity(0)))
    return LocalExecutor(start, slots, options.time_limit_seconds)


def _weight_files(planned: Planned) -> dict[str, str]:
    """The file behind each tag that was given as one."""
    found = {}
    for entry, (_, given) in zip(planned.plan.entries, planned.asked, strict=True):
        if entry.weights is not None and Path(given).is_file():
            found[entry.weights.tag] = str(Path(given).absolute())
    return found


def _check_writable(planned: Planned) -> None:
    """Find out before hours of work, not after, that nothing can be written."""
    planned.store.prepare()
    probe = planned.folder / ".writable"
    write_text(probe, "")
    probe.unlink()


def _write(planned: Planned, outcomes: dict[str, Outcome], records: tuple[Record, ...]) -> Finished:
    folder, plan = planned.folder, planned.plan
    frame = frame_of(records)
    verdicts = {entry.name: judge(plan.suite, frame, entry.name) for entry in plan.entries}
    lines = "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records)
    write_text(folder / "records.jsonl", lines)
    write_json(
        folder / "claims.json",
        {name: [one.model_dump(mode="json") for one in found] for name, found in verdicts.items()},
    )
    write_json(folder / "environment.json", environment(plan, planned.store))
    # Last: a folder with a run.json is a run that came to its end.
    write_json(folder / "run.json", describe_run(planned))
    return Finished(planned, outcomes, records, verdicts)
