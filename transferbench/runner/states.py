"""Which stored states of a training the other jobs of a plan read, and which it lacks.

A training stores its states ``init``, ``best``, ``final`` and those of its checkpoints, each in a
file; with ``--keep final`` the final one alone, and what the plan reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from transferbench.plan import Job, Plan
from transferbench.registry import Registry, blamed
from transferbench.store import Artefact, Store

__all__ = ["lacking_states", "states_to_store", "stored_states"]

FINAL = "final"
SUFFIX = ".safetensors"


def states_to_store(plan: Plan, registry: Registry) -> dict[str, tuple[str, ...]]:
    """Of each training the states that jobs of the plan read, and the final one."""
    read = _states_read(plan, registry, plan.jobs)
    trainings = (job for job in plan.jobs.values() if job.kind in {"pretrain", "trial"})
    return {job.id: tuple(sorted({FINAL, *read.get(job.id, ())})) for job in trainings}


def lacking_states(
    plan: Plan, registry: Registry, store: Store, done: Collection[str]
) -> dict[str, str]:
    """Trainings of ``done`` that did not store what jobs still to be computed read, with which."""
    left = plan.jobs.keys() - set(done)
    lacking: dict[str, str] = {}
    for job, states in _states_read(plan, registry, left).items():
        artefact = store.open(job) if job in done else None
        if artefact and (absent := sorted(states - stored_states(artefact))):
            lacking[job] = ", ".join(absent)
    return lacking


def stored_states(artefact: Artefact) -> set[str]:
    """The names of the states that a training stored."""
    names = (name.removesuffix(SUFFIX) for name in artefact.names if name.endswith(SUFFIX))
    return set(names) - {"outputs"}


def _states_read(plan: Plan, registry: Registry, jobs: Collection[str]) -> dict[str, set[str]]:
    """By training, the states that ``jobs`` read."""
    states: defaultdict[str, set[str]] = defaultdict(set)
    for job in (plan.jobs[name] for name in plan.jobs if name in jobs):
        if job.kind == "diagnosis":
            for subject in job.payload["subjects"]:
                states[subject].update(_measured(job.payload, plan.jobs[subject], registry))
        else:
            states.update(_started_from(job, states))
    return states


def _started_from(job: Job, states: Mapping[str, set[str]]) -> Iterator[tuple[str, set[str]]]:
    """The state of the source network that a training starts from, beside what is in ``states``."""
    start = job.payload.get("initialization") or {}
    if source := start.get("source"):
        epoch = start["checkpoint"]
        name = FINAL if epoch is None else f"epoch-{epoch}"
        yield source, {*states.get(source, ()), name}


def _measured(payload: Mapping[str, Any], training: Job, registry: Registry) -> Iterator[str]:
    """The states of a training that a diagnosis reads; external weights are the final one."""
    if training.kind == "weights":
        return
    spec = registry.diagnostic(payload["diagnostic"]["name"])
    with blamed(f"diagnostic {spec.name!r}"):
        params = spec.parse(payload["diagnostic"]["params"])
        yield from spec.states(params)
        yield from map(_name, spec.epochs(params))
    if "init_state" in spec.needs:
        yield "init"
    if "trajectory" in spec.needs:
        yield "best"
        yield from map(_name, training.payload.get("checkpoints", ()))


def _name(epoch: int) -> str:
    return f"epoch-{epoch}"
