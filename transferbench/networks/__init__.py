"""Networks and their declared modules: building, state dicts, features, prefix cache, fusion."""

from __future__ import annotations
