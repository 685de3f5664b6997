"""Execution of jobs in a worker process: pre-training, trials and diagnoses."""

from __future__ import annotations
