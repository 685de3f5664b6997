"""Ways to end the process from inside: refused while a plugin's code runs.

Not refused: what C code does, and signals from outside. Then the job's draft is left in the store,
by which the next command tells which job it was.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from transferbench.interrupts import interrupt, received

__all__ = ["ExitRefusedError", "end_if_forked", "endings_refused", "is_the_users"]

_real_exit = os._exit


class ExitRefusedError(SystemExit):
    """A call that would have ended the process."""


@contextmanager
def endings_refused() -> Iterator[None]:
    """Inside the block, calls that would end this process raise ``ExitRefusedError``.

    ``is_the_users`` then tells the user's interrupt from a plugin's.
    """
    if os._exit is not _real_exit:  # inside another block
        yield
        return
    _PROCESS[:] = [os.getpid()]
    threads = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    _OTHER_THREADS.clear()
    _OTHER_THREADS.update(threads)
    _INTERRUPTS_BEFORE[:] = [received()]
    with ExitStack() as stack:
        for function in _REFUSED:
            setattr(function.module, function.name, function)
            stack.callback(setattr, function.module, function.name, function.real)
        _set_handlers(stack)
        yield


def end_if_forked(process: int) -> None:
    """End this process unless it is ``process``: it is a child that a plugin forked and left."""
    if os.getpid() != process:
        os.write(2, b"a child process that a plugin had forked came back and was ended\n")
        _real_exit(1)


# --- functions --------------------------------------------------------------------------------

_PROCESS: list[int] = []
_OTHER_THREADS: set[int | None] = set()
"""Those that ran before, and are no plugin's: the one that ends a worker without a parent."""


class _Refused(NamedTuple):
    """A function that raises where it would end this process; a child process may end."""

    module: ModuleType
    name: str
    real: Callable[..., Any]
    ends: Callable[..., bool]

    def __call__(self, *arguments: Any) -> Any:
        is_plugins = os.getpid() in _PROCESS and threading.get_ident() not in _OTHER_THREADS
        if not is_plugins or not self.ends(*arguments):
            return self.real(*arguments)
        inside = ", ".join(map(repr, arguments))
        raise ExitRefusedError(f"{self.module.__name__}.{self.name}({inside}) was called")


def _always(*_: Any) -> bool:
    return True


def _is_own(process: int, number: int) -> bool:
    return number != 0 and process in {os.getpid(), 0, -1, -os.getpgrp()}


def _is_own_group(group: int, number: int) -> bool:
    return number != 0 and group in {0, os.getpgrp()}


_REFUSED = tuple(
    _Refused(module, name, getattr(module, name), ends)
    for module, name, ends in (
        (os, "_exit", _always), (os, "abort", _always), (os, "execv", _always),
        (os, "execve", _always), (os, "kill", _is_own), (os, "killpg", _is_own_group),
        (signal, "raise_signal", _always),
    )
)  # fmt: skip


# --- signals ----------------------------------------------------------------------------------

_INTERRUPTS_BEFORE = [0]
"""How many interrupts of the user there were before the block."""


def is_the_users(error: BaseException) -> bool:
    """Whether it is an interrupt of the user, or may be: where the handler is somebody else's."""
    if not isinstance(error, KeyboardInterrupt) or not _in_main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    return received() > _INTERRUPTS_BEFORE[0] or handler not in {interrupt, signal.SIG_IGN}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _refuse_alarm(*_: Any) -> NoReturn:
    raise ExitRefusedError("a timer (signal.alarm) went off")


def _set_handlers(stack: ExitStack) -> None:
    """Set our handlers where nobody has set one, and put back what was there."""
    if not _in_main_thread():
        return
    usual_handlers: tuple[tuple[signal.Signals, Any, Any], ...] = (
        (signal.SIGINT, interrupt, signal.default_int_handler),
        (signal.SIGALRM, _refuse_alarm, signal.SIG_DFL),
    )
    for number, ours, usual in usual_handlers:
        if signal.getsignal(number) == usual:
            signal.signal(number, ours)
            stack.callback(_put_back, number, ours, usual)


def _put_back(number: signal.Signals, ours: Any, usual: Any) -> None:
    # What a plugin has set meanwhile was put back before.
    if signal.getsignal(number) is ours:
        signal.signal(number, usual)
