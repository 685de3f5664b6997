"""Signals that end a command as an interrupt does: finished work kept, workers ended, one line."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Timer, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = [
    "ENDING",
    "end_if_requested",
    "ending_requested",
    "endings_deferred",
    "endings_held",
    "ignore_further_interrupts",
    "interrupt",
    "received",
    "signals_as_interrupts",
    "thread_pool",
]

DEFERRED = [signal.SIGTERM, *([signal.SIGUSR2] if hasattr(signal, "SIGUSR2") else [])]
"""A scheduler's signals that a process is to end soon, which leave time to keep a training."""

ENDING = [signal.SIGINT, *DEFERRED, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""With those of a user, and of a terminal or a connection that is closed."""

TOGETHER_SECONDS = 10.0
"""Signals of one request: a scheduler sends one to all processes of a job, and the one that began
the others ends them as well."""

_RECEIVED: list[int] = []
_REQUESTED: list[_Request] = []


class _Request(NamedTuple):
    number: int
    seconds: float


def interrupt(number: int, _: FrameType | None) -> NoReturn:
    """Handle a signal by an interrupt, and count it."""
    _RECEIVED.append(number)
    raise KeyboardInterrupt


def received() -> int:
    """How many signals were handled so: libraries turn the interrupt into errors of their own."""
    return len(_RECEIVED)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for these signals inside the block, and for errors they cause."""
    before = received()
    # A signal that is ignored stays so: that is what ``nohup`` is for.
    usual = {signal.SIG_DFL, signal.default_int_handler}
    handlers = {number: signal.getsignal(number) for number in ENDING}
    if current_thread() is not main_thread():  # which alone may handle signals
        handlers = {}
    handlers = {number: handler for number, handler in handlers.items() if handler in usual}
    for number in handlers:
        signal.signal(number, interrupt)
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_repeat_swallowed, hook)
    try:
        yield
    except BaseException as error:
        ended_well = isinstance(error, SystemExit) and not error.code
        if received() > before and not ended_well:
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)


def _repeat_swallowed(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Interrupt again where Python drops it, as in what runs when an object is collected."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = Timer(0.05, _repeat)
        again.daemon = True
        again.start()
    else:
        hook(unraisable)


def _repeat() -> None:
    number = _RECEIVED[-1]
    if signal.getsignal(number) is interrupt:
        # A real signal, which also ends a wait of the main thread.
        signal.pthread_kill(main_thread().ident or 0, number)


@contextmanager
def endings_deferred() -> Iterator[None]:
    """Inside the block these signals are requests, which ``end_if_requested`` fulfils.

    A second request interrupts at once.
    """
    if current_thread() is not main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in DEFERRED}
    for number, handler in handlers.items():
        if handler in {signal.SIG_DFL, interrupt}:
            signal.signal(number, _request)
    try:
        yield
        # What came too late to be fulfilled inside.
        end_if_requested()
    finally:
        _REQUESTED.clear()
        for number, handler in handlers.items():
            if signal.getsignal(number) is _request:
                signal.signal(number, handler)


def _request(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _REQUESTED and now - _REQUESTED[0].seconds > TOGETHER_SECONDS:
        interrupt(number, frame)
    _REQUESTED.append(_Request(number, now))


def ending_requested() -> bool:
    """Whether a deferred signal has come."""
    return bool(_REQUESTED)


def end_if_requested() -> None:
    """Interrupt, where a deferred signal has come."""
    if _REQUESTED:
        interrupt(_REQUESTED[-1].number, None)


@contextmanager
def endings_held() -> Iterator[None]:
    """Let these signals wait for the end of the block, here and in processes that it starts."""
    if current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    # Another thread may receive what is blocked here; its handler runs in this one.
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for signalled in came:
            signal.raise_signal(signalled)


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; where the block is interrupted, what they have not begun is dropped."""
    from concurrent.futures import ThreadPoolExecutor  # the start of a command does not wait for it

    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ignore_further_interrupts() -> None:
    """Let the process end in peace, where more than one interrupt is on its way."""
    if current_thread() is main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
