"""What a run says on stderr beside its progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer

from transferbench.streams import printable

__all__ = ["said_where_slow", "say"]

PATIENCE_SECONDS = 2.0


def say(text: str) -> None:
    """Print a note to stderr; a reader that is gone costs no work."""
    with suppress(OSError, ValueError):
        sys.stderr.write(printable(f"note: {text}\n"))
        sys.stderr.flush()


@contextmanager
def said_where_slow(text: str) -> Iterator[None]:
    """Print ``text`` as a note once the block has taken ``PATIENCE_SECONDS``."""
    timer = Timer(PATIENCE_SECONDS, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
