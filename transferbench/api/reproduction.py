"""Training some trials of a submission again, to see whether they give what it says."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from transferbench.errors import SubmissionError
from transferbench.files import write_json
from transferbench.plan import Job
from transferbench.records import Record
from transferbench.registry import open_registry
from transferbench.runner.collect import job_states
from transferbench.runner.execute import execute
from transferbench.runner.options import Options
from transferbench.runner.planning import Planned, plan_suite
from transferbench.runner.schedule import Watcher
from transferbench.store import Store
from transferbench.submission import Bundle, check
from transferbench.submission.bundle import TEXT, options_explained
from transferbench.submission.certificate import TOLERANCE, Certificate, Repeated, chosen_trials
from transferbench.submission.images import differing
from transferbench.submission.integrity import scored_rows
from transferbench.submission.pack import compared_images
from transferbench.submission.predictions import read_outputs, recompute_metric
from transferbench.submission.recompute import metric_of
from transferbench.suite.loading import bundled_suites

__all__ = ["reproduce"]

PACKAGES = ("transferbench", "torch", "numpy")


def reproduce(
    path: Path, trials: int, by: str, out: Path, options: Options, watcher: Watcher,
    *, seed: int | None = None,
) -> tuple[Certificate, Path]:  # fmt: skip
    """Train ``trials`` randomly chosen trials of a submission again, and write a certificate.

    What these trials need (source networks, tunings) is computed, too, in the store of ``options``,
    whose ``weights`` are those of the submission's entry, if timm does not have them.
    ``out``: the folder of certificates. ``seed``: of the choice; by default a new one.
    Raises: ``SubmissionError`` where the submission is refused, or cannot be planned here, or
    where ``by`` cannot stand on a board.
    """
    with options_explained("by"):
        TEXT.validate_python(by)
    report = check(path, open_registry(options.plugins))
    if not report.ok:
        raise SubmissionError(f"{path} is refused, see 'transferbench submission check {path}'")
    bundle = report.content
    planned = _planned(bundle, options)
    rows = {row.job: row for row in scored_rows(bundle.records)}
    seed = secrets.randbelow(2**32) if seed is None else seed
    chosen = chosen_trials(rows, trials, seed)
    if strangers := [job for job in chosen if job not in planned.plan.jobs]:
        raise SubmissionError(
            f"trial {strangers[0][:12]} has another id here: the data, or a version of a plugin, "
            "differ from the submission's; install what it was made with, see its environment.json"
        )
    _refuse_other_images(bundle, planned)
    _train(planned, chosen, watcher)
    certificate = Certificate(
        submission=bundle.submission.id,
        suite=bundle.submission.suite,
        suite_digest=bundle.submission.suite_digest,
        entry=bundle.submission.entry.name,
        by=by,
        date=datetime.now(UTC).date().isoformat(),
        seed=seed,
        tolerance=TOLERANCE,
        trials=tuple(_compared(bundle, rows[job], planned.store) for job in chosen),
        environment=_environment(planned.store, chosen),
    )
    target = out / certificate.submission / f"{certificate.id[:16]}.json"
    write_json(target, certificate.model_dump(mode="json"), canonical=True)
    return certificate, target


def _planned(bundle: Bundle, options: Options) -> Planned:
    """The plan of the submission's suite for its entry."""
    entry = bundle.submission.entry
    weights = options.weights or ((entry.weights.tag,) if entry.weights else ())
    with TemporaryDirectory() as scratch:  # no run's folder is read or written
        own = replace(
            options, backbones=(entry.weightless_name,), weights=weights,
            out=Path(scratch) / "run", store=options.store or "store",
        )  # fmt: skip
        suite = bundled_suites().get(bundle.submission.board)
        beside = bundle.path.absolute().parents[3] / "suites" / f"{bundle.submission.suite}.yaml"
        return plan_suite(str(suite or beside), own)


def _refuse_other_images(bundle: Bundle, planned: Planned) -> None:
    """Raises: ``SubmissionError`` where its digests are not those of the images decoded here."""
    own = compared_images(
        bundle.plan.jobs, bundle.predictions, planned.store.datasets, planned.registry
    )
    if own and (data := differing(bundle.images, own)):
        raise SubmissionError(
            f"the digests of the images of {data[0][:12]} are not those of the images here: what "
            "the submission says of overlap is not so; nothing is certified"
        )


def _train(planned: Planned, chosen: Iterable[str], watcher: Watcher) -> None:
    """Raises: ``SubmissionError`` where a job fails."""
    jobs = _required(planned.plan.jobs, chosen)
    own = replace(planned, plan=replace(planned.plan, jobs=jobs))
    states = job_states(jobs, planned.store)
    done = {job for job, state in states.items() if state.status == "ok"}
    outcomes = execute(own, done, watcher)
    if failed := [job for job, outcome in outcomes.items() if outcome.status != "ok"]:
        raise SubmissionError(
            f"{jobs[failed[0]].title} failed: {outcomes[failed[0]].message}; nothing is certified"
        )


def _required(jobs: Mapping[str, Job], chosen: Iterable[str]) -> dict[str, Job]:
    """The chosen jobs and all that they require, in the order of the plan."""
    required, frontier = set[str](), list(chosen)
    while frontier:
        job = frontier.pop()
        required.add(job)
        frontier += set(jobs[job].requires) - required
    return {name: job for name, job in jobs.items() if name in required}


def _compared(bundle: Bundle, row: Record, store: Store) -> Repeated:
    metric = metric_of(bundle, row.job)
    outputs, logits = read_outputs(store.artefact(row.job).path("outputs.safetensors"), metric)
    submitted = bundle.predictions[row.job]
    same = outputs.outputs.shape == submitted.outputs.shape and np.array_equal(
        outputs.items, submitted.items
    )
    return Repeated(
        job=row.job,
        target=row.target,
        perturbation=row.perturbation,
        initialization=row.initialization,
        replicate=row.replicate,
        submitted=row.value,
        again=recompute_metric(metric, outputs),
        equal_predictions=float((outputs.outputs == submitted.outputs).mean()) if same else 0.0,
        same_bits=logits == bundle.submission.outputs.get(row.job),
    )


def _environment(store: Store, chosen: Iterable[str]) -> dict[str, str]:
    """The versions here, and the device that trained."""
    facts = store.artefact(next(iter(chosen))).facts
    versions = {name: version(name) for name in PACKAGES}
    device = {name: str(facts[name]) for name in ("device", "device_name") if name in facts}
    return {"python": platform.python_version(), "system": platform.system(),
            "machine": platform.machine()} | versions | device  # fmt: skip
