"""The graph of jobs that a suite asks for, with their ids."""

from __future__ import annotations

from transferbench.plan.graph import make_plan, plan_resolved
from transferbench.plan.jobs import (
    ENGINE_VERSION,
    NOT_MEASURED,
    DatasetFacts,
    DiagnosisCell,
    Entry,
    Job,
    JobKind,
    Plan,
    TrialCell,
    Work,
    job_id,
)

__all__ = [
    "ENGINE_VERSION",
    "NOT_MEASURED",
    "DatasetFacts",
    "DiagnosisCell",
    "Entry",
    "Job",
    "JobKind",
    "Plan",
    "TrialCell",
    "Work",
    "job_id",
    "make_plan",
    "plan_resolved",
]
