"""A suite times its entries: the graph of jobs with their ids."""

from __future__ import annotations

from transferbench.plan.graph import (
    ENGINE_VERSION,
    Cell,
    DatasetFacts,
    Entry,
    Job,
    Measured,
    Plan,
    Work,
    job_id,
    make_plan,
)

__all__ = [
    "ENGINE_VERSION",
    "Cell",
    "DatasetFacts",
    "Entry",
    "Job",
    "Measured",
    "Plan",
    "Work",
    "job_id",
    "make_plan",
]
