"""A suite for a folder, or a table, of one's own pictures, and its run in a given time."""

from __future__ import annotations
