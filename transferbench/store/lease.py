"""Leases: of two that would compute one job, one waits for the other, as long as that lives.

A lease spares work and nothing else: where a file system has none, both compute. Rejected: flock,
which some file systems keep to one node, ignore or lack, and which a child of a killed process
holds on to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from filelock import SoftFileLease, Timeout

__all__ = ["LEASE_SECONDS", "WaitEvent", "Waiting", "leased", "silent"]

LEASE_SECONDS = 180.0
"""Who gives no sign of life for so long is not waited for any more.

A file's times may be a minute old where a network file system caches them.
"""
ANNOUNCED_SECONDS = 2.0
"""Shorter waits are not worth a word."""
POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 10.0
"""How often a sign of life is given, and how long at most its thread is waited for at the end."""


class WaitEvent(NamedTuple):
    """A job begins to wait for another process, knows for which (``text``), or goes on."""

    what: Literal["begin", "announce", "end"]
    text: str = ""


Waiting: TypeAlias = Callable[[WaitEvent], None]
"""Called where waiting begins, at most once with the announcement, and where it ends."""


def silent(event: WaitEvent) -> None:
    """Tell nobody."""


@contextmanager
def leased(
    path: Path, waiting: Waiting, holders: Callable[[], str], finished: Callable[[], bool]
) -> Iterator[None]:
    """Hold the lease at ``path`` inside the block, as far as there are leases.

    Waits until it is free or ``finished``, or until ``holders`` names nobody.
    """
    lease = SoftFileLease(path, lease_duration=LEASE_SECONDS, thread_local=False,
                          heartbeat_interval=min(HEARTBEAT_SECONDS, LEASE_SECONDS / 3))  # fmt: skip
    try:
        if not _acquired(lease, 0):
            waiting(WaitEvent("begin"))
            try:
                _wait(lease, waiting, holders, finished)
            finally:
                waiting(WaitEvent("end"))
        yield
    finally:
        # It may have gone to another meanwhile.
        with suppress(OSError, RuntimeError):
            lease.release()


def _wait(
    lease: SoftFileLease, waiting: Waiting, holders: Callable[[], str], finished: Callable[[], bool]
) -> None:
    announced_at = time.monotonic() + ANNOUNCED_SECONDS
    announced = False
    while not finished() and not _acquired(lease, POLL_SECONDS):
        if time.monotonic() < announced_at:
            continue
        names = holders()
        if not names:
            return
        if not announced:
            text = (
                f"it is being computed by {names}; this waits for it, and no longer than "
                f"{LEASE_SECONDS:.0f} s without a sign of life"
            )
            waiting(WaitEvent("announce", text))
            announced = True


def _acquired(lease: SoftFileLease, seconds: float) -> bool:
    """Whether there is nothing to wait for: the lease is ours, or cannot be had here at all."""
    try:
        lease.acquire(timeout=seconds)
    except Timeout:
        return False
    except (OSError, RuntimeError, ValueError):
        pass  # work may then be done twice, and no harm is done
    return True
