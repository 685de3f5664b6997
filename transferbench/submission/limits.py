"""A bound on the memory that reading somebody else's files may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import resource
except ImportError:  # as on Windows
    resource = None  # type: ignore[assignment]  # without the module there is no bound

__all__ = ["bounded_memory"]

PAGES = Path("/proc/self/statm")
"""The size of this process in pages, on Linux; other systems do not enforce the limit."""


@contextmanager
def bounded_memory(size_bytes: int) -> Iterator[None]:
    """Let this process allocate at most so much more; what needs more raises ``MemoryError``.

    What a file says of its own sizes is a claim of whoever wrote it. The bound holds for all
    threads of the process, and nowhere but on Linux.
    """
    if resource is None or not PAGES.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(PAGES.read_text().split()[0]) * resource.getpagesize() + size_bytes
    limits = [limit for limit in (*before, size) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
