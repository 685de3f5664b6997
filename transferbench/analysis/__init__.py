"""Numerics that diagnostics share: landscapes, weight matching, CKA, transferability scores."""

from __future__ import annotations
