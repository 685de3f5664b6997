"""From a dataset plugin to the batches that a network sees."""

from __future__ import annotations
