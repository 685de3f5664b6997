"""Numerical methods of diagnostics: loss landscape, weight matching, CKA, transferability."""

from __future__ import annotations
