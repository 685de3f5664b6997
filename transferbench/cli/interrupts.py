"""Signals that end a command as an interrupt does: finished work kept, workers ended, one line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

__all__ = ["ignore_further_interrupts", "signals_as_interrupts"]

# Sent by schedulers of clusters, and by a terminal or a connection that is closed.
ENDING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for these signals too inside the block."""
    # A signal that is ignored stays so: that is what ``nohup`` is for.
    handled = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if current_thread() is not main_thread():  # which alone may handle signals
        handled = []
    for number in handled:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in handled:
            if signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)


def ignore_further_interrupts() -> None:
    """Let the process end in peace, where more than one interrupt is on its way."""
    if current_thread() is main_thread():
        for number in (signal.SIGINT, *ENDING):
            signal.signal(number, signal.SIG_IGN)
