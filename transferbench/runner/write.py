"""The folder of a run: ``run.json``, the records, the verdicts and the environment."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from transferbench.claims import Verdict
from transferbench.errors import StoreError
from transferbench.files import write_json, write_text
from transferbench.plan import NOT_MEASURED, Plan
from transferbench.runner.collect import Collected, JobState
from transferbench.runner.earlier import move_to_earlier
from transferbench.runner.folder import (
    CLAIMS,
    ENVIRONMENT,
    RECORDS,
    REPORT,
    RUN,
    RunJob,
    axes_of,
    read_run,
)
from transferbench.runner.planning import Planned
from transferbench.runner.run_store import store_facts
from transferbench.suite import TUNING

__all__ = ["write_plan", "write_results"]

PACKAGES = ("transferbench", "torch", "timm", "numpy", "pandas", "scikit-learn")


def write_plan(planned: Planned, states: Mapping[str, JobState]) -> None:
    """Write ``run.json`` before the work: an unwritable folder shows now, not after hours."""
    _refuse_obstacles(planned.folder)
    # Another process may have moved it, and written results of this suite, since the plan.
    if planned.superseded and planned.superseded.is_still_there:
        move_to_earlier(planned.superseded)
    described = _description(planned, states, {}, _recorded(planned))
    write_json(planned.folder / RUN, described)
    planned.store.register_run(planned.folder)


def _recorded(planned: Planned) -> dict[tuple[Any, ...], int]:
    """How many records the folder has of each cell, from an earlier run of the same suite."""
    with suppress(StoreError):
        run = read_run(planned.folder)
        if run.suite_digest == planned.suite.digest:
            return {job.axes: job.records for job in run.jobs if job.records is not None}
    return {}


def _refuse_obstacles(folder: Path) -> None:
    """Raise ``StoreError`` where a file of the run could not be written at its end."""
    for path in (folder / name for name in (RUN, RECORDS, CLAIMS, ENVIRONMENT, REPORT)):
        if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
            kind = "not writable" if path.is_file() else "no file"
            raise StoreError(
                f"cannot write {path}: it is {kind}; move it away, or choose another --out"
            )


def write_results(
    planned: Planned, collected: Collected, verdicts: Mapping[str, Sequence[Verdict]]
) -> None:
    """Write everything that a finished run leaves; ``verdicts``: of each entry."""
    folder = planned.folder
    lines = (f"{record.model_dump_json(exclude_none=True)}\n" for record in collected.records)
    write_text(folder / RECORDS, "".join(lines))
    write_json(folder / CLAIMS, verdicts)
    write_json(folder / ENVIRONMENT, _environment(collected.facts))
    recorded = Counter(axes_of(record, record.job) for record in collected.records)
    described = _description(planned, collected.states, collected.parameters, recorded)
    write_json(folder / RUN, described)


def _description(
    planned: Planned,
    states: Mapping[str, JobState],
    parameters: Mapping[str, int],
    recorded: Mapping[tuple[Any, ...], int],
) -> dict[str, Any]:
    """The content of ``run.json``: the suite, its entries and a row for each cell of a job."""
    plan = planned.plan
    return {
        "schema_version": 1,
        "suite_id": plan.suite.id,
        "suite_digest": plan.suite.digest,
        "changed": list(planned.changed),
        "data": planned.data._asdict(),
        "code": {"plugins": planned.code.plugins, "accepted": planned.code.accepted,
                 "notes": planned.code.notes, "mixtures": planned.code.mixture_notes},
        **store_facts(planned.store, planned.folder),
        "asked": [{"backbone": entry.backbone, "weights": entry.weights}
                  for entry in planned.entries],
        "entries": [vars(entry) | {"parameters": parameters.get(entry.name), "origin": origin,
                                   "left_out": plan.left_out[entry.name],
                                   "unmeasured": plan.unmeasured[entry.name]}
                    for entry, _, _, origin in planned.entries],
        "jobs": list(_job_rows(plan, states, recorded)),
        "suite": plan.suite,
    }  # fmt: skip


def _job_rows(
    plan: Plan, states: Mapping[str, JobState], recorded: Mapping[tuple[Any, ...], int]
) -> Iterator[dict[str, Any]]:
    """A row for each cell, with its job; source networks first, then tuning."""
    cells = [(cell.entry, cell.job) for cell in (*plan.tuned, *plan.cells)]
    cells += [(diagnosis.a.entry, diagnosis.job) for diagnosis in plan.measured]
    needs = ((entry, job) for entry, name in cells for job in plan.jobs[name].requires
             if plan.jobs[job].kind in NOT_MEASURED)  # fmt: skip
    rows = chain(
        ((job, {"entry": entry}) for entry, job in dict.fromkeys(needs)),
        ((cell.job, cell.axes | {"diagnostic": TUNING}) for cell in plan.tuned),
        ((cell.job, cell.axes) for cell in plan.cells),
        ((diagnosis.job, diagnosis.axes) for diagnosis in plan.measured),
    )
    for name, axes in rows:
        job = plan.jobs[name]
        row = {
            "id": job.id,
            "kind": job.kind,
            "label": job.title,
            "status": states[job.id].status,
            **axes,
        }
        yield {
            **row,
            "records": recorded.get(RunJob.model_validate(row).axes),
            "requires": list(job.requires),
            "payload": job.payload,
        }


def _environment(facts: Mapping[str, list[str]]) -> dict[str, Any]:
    """What the numbers were computed on and with."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "jobs": facts,
    }
