"""The graph of jobs that a suite asks for, with their ids."""

from __future__ import annotations

from transferbench.plan.graph import (
    ENGINE_VERSION,
    DatasetFacts,
    DiagnosisCell,
    Entry,
    Job,
    Plan,
    TrialCell,
    Work,
    job_id,
    make_plan,
    plan_resolved,
)
from transferbench.plan.resolve import ResolvedSuite, resolve_suite

__all__ = [
    "ENGINE_VERSION",
    "DatasetFacts",
    "DiagnosisCell",
    "Entry",
    "Job",
    "Plan",
    "ResolvedSuite",
    "TrialCell",
    "Work",
    "job_id",
    "make_plan",
    "plan_resolved",
    "resolve_suite",
]
