"""What a worker process does with one job."""

from __future__ import annotations
