"""From options to a finished run folder: request, schedule, execute, collect."""

from __future__ import annotations
