"""What a run says on stderr beside its progress."""

from __future__ import annotations

import sys
from contextlib import suppress

from transferbench.streams import printable

__all__ = ["say"]


def say(text: str) -> None:
    """Print a note to stderr; a reader that is gone costs no work."""
    with suppress(OSError, ValueError):
        sys.stderr.write(printable(f"note: {text}\n"))
        sys.stderr.flush()
