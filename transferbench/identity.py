"""Ids and seeds: both are hashes of canonical JSON over exactly what can move a number.

An id never contains a device, path, worker count, micro-batch, executor or host: two runs with
one id must give the same numbers on one kind of machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import rfc8785
from pydantic import StringConstraints

__all__ = ["SEED_LIMIT", "Sha256", "canonical_json", "derive_seed", "digest", "file_digest"]

Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A field of a document: what `digest` and `file_digest` return."""

# numpy's RandomState, which the released block shuffle is defined by, takes 32-bit seeds.
SEED_LIMIT = 2**32


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON in the one form of RFC 8785: equal values give equal bytes.

    Raises: ``ValueError`` for NaN, infinities and integers beyond 2**53.
    """
    return bytes(rfc8785.dumps(value))


def digest(value: Any) -> str:
    """The sha256 of the canonical JSON of ``value``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def derive_seed(purpose: str, axes: Mapping[str, Any]) -> int:
    """The seed of one source of randomness, in [0, 2**32).

    ``axes`` names what the randomness may depend on, and nothing else: leaving the backbone out
    of the axes of ``data`` is what makes every backbone see the same data order at replicate k.
    """
    return int(digest({"purpose": purpose, "axes": dict(axes)})[:8], 16)


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
