"""Networks as their declared modules: built, split, tapped, cut and fused."""

from __future__ import annotations
