"""Process-wide state other than numeric: environment, working directory, streams, threads, signals.

Changes that libraries make as they are imported are harmless and stay: a new variable that
steers no numeric library, a folder in ``sys.path`` behind the others, a filter for the warnings of
one module.
"""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, TextIO

from transferbench.registry.numerics import Setting, State

__all__ = ["stray_threads", "surroundings"]


def surroundings() -> tuple[State, ...]:
    """The state of Python and of this process, without the numeric settings."""
    return _SURROUNDINGS


class _Environment:
    """``os.environ``: a variable that was there, or that a numeric library obeys."""

    name = "os.environ"
    steers_numbers = re.compile(
        r"(OMP|MKL|OPENBLAS|GOMP|KMP|BLIS|VECLIB|NUMEXPR|ATEN|DNNL|ONEDNN|CUDA|CUBLAS|CUDNN|NVIDIA"
        r"|PYTORCH|TORCH|XLA|NCCL|PYTHON|LD|LC|HF_HUB|TRANSFERBENCH)_|LANG$|TZ$|PYTHONHASHSEED$"
    )
    set_by_libraries = frozenset({"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"})
    """scikit-learn sets these as it is imported."""

    def read(self) -> dict[Any, Any]:
        # The mapping itself decodes each value, which takes 50 times as long.
        return dict(getattr(os.environ, "_data", os.environ))

    def settle(self, before: Mapping[Any, Any]) -> str:
        after = self.read()
        names = {os.fsdecode(name): name for name in before.keys() | after.keys()}
        changed = [
            name for name, key in sorted(names.items())
            if before.get(key) != after.get(key) and (key in before or self._counts(name))
        ]  # fmt: skip
        for name in changed:
            key = names[name]
            if key in before:
                os.environ[name] = os.fsdecode(before[key])
            else:
                del os.environ[name]
        return f"os.environ[{', '.join(map(repr, changed))}] was set or removed" if changed else ""

    def _counts(self, name: str) -> bool:
        return bool(self.steers_numbers.match(name)) and name not in self.set_by_libraries


class _SearchPath:
    """``sys.path``: new folders are put behind the others, where they hide no module."""

    name = "sys.path"

    def read(self) -> list[str]:
        return list(sys.path)

    def settle(self, before: list[str]) -> str:
        after = list(sys.path)
        old = [folder for folder in after if folder in before]
        new = [folder for folder in after if folder not in before]
        sys.path[:] = [*before, *dict.fromkeys(new)]
        same = list(dict.fromkeys(old)) == list(dict.fromkeys(before))
        return "" if same else "folders of sys.path were removed or reordered"


class _WarningFilters:
    """Filters that hide every warning, or turn some into errors, for everybody."""

    name = "warnings.filters"

    def read(self) -> list[Any]:
        return list(warnings.filters)

    def settle(self, before: list[Any]) -> str:
        new = [entry for entry in warnings.filters if entry not in before]
        lost = [entry for entry in before if entry not in warnings.filters]
        harmful = [entry for entry in new if entry[0] == "error" or self._is_blanket(entry)]
        if not harmful and not lost:
            return ""
        harmless = [entry for entry in new if entry not in harmful]
        warnings.filters[:] = [*harmless, *before]  # type: ignore[index]  # its stub says Sequence
        with contextlib.suppress(AttributeError):
            warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001  # else a cache of filters stays
        return "warnings.filters were changed for every module"

    def _is_blanket(self, entry: Any) -> bool:
        _, message, category, module, _ = entry
        return message is None and module is None and category is Warning


class _Streams:
    """``sys.stdout`` and ``sys.stderr``, and the file descriptors 1 and 2."""

    name = "the standard streams"
    most_spares = 8

    def __init__(self) -> None:
        self._spares: dict[tuple[int, int], int] = {}
        """A copy of each descriptor by what it is of, to put it back."""

    def read(self) -> tuple[Any, ...]:
        streams = sys.stdout, sys.stderr
        closed = tuple(getattr(stream, "closed", False) for stream in streams)
        return *streams, closed, self._identity(1), self._identity(2)

    def settle(self, before: tuple[Any, ...]) -> str:
        stdout, stderr, closed, *identities = before
        for descriptor, identity in enumerate(identities, start=1):
            if self._identity(descriptor) != identity and identity in self._spares:
                os.dup2(self._spares[identity], descriptor)
        sys.stdout, sys.stderr = (
            self._reopened(stream, descriptor) if stream.closed and not was_closed else stream
            for stream, descriptor, was_closed in zip((stdout, stderr), (1, 2), closed, strict=True)
        )
        return "stdout or stderr was closed or replaced"

    def _identity(self, descriptor: int) -> tuple[int, int] | None:
        """What a descriptor is of; keeps a copy of it."""
        try:
            status = os.fstat(descriptor)
        except OSError:
            return None
        identity = status.st_dev, status.st_ino
        if identity not in self._spares:
            if len(self._spares) >= self.most_spares:
                os.close(self._spares.pop(next(iter(self._spares))))
            self._spares[identity] = os.dup(descriptor)
        return identity

    def _reopened(self, stream: TextIO, descriptor: int) -> TextIO:
        try:
            return open(descriptor, "w", encoding=stream.encoding, errors=stream.errors,
                        buffering=1, closefd=False)  # fmt: skip
        except (OSError, AttributeError):
            return stream


class _Threads:
    """Threads that keep the process from ending."""

    name = "threads"

    def read(self) -> list[threading.Thread]:
        return threading.enumerate()

    def settle(self, before: list[threading.Thread]) -> str:
        new = [thread for thread in threading.enumerate() if thread not in before
               and not thread.daemon and thread not in _pool_threads()]  # fmt: skip
        _STRAY.extend(new)
        names = ", ".join(thread.name for thread in new)
        return f"a thread that is not a daemon was left running: {names}" if new else ""


class _Processes:
    """Processes of multiprocessing, which the end of this one waits for."""

    name = "child processes"

    def read(self) -> set[Any]:
        module = sys.modules.get("multiprocessing.process")
        return set(getattr(module, "_children", ()))

    def settle(self, before: set[Any]) -> str:
        new = [process for process in self.read() - before
               if process.is_alive() and not process.daemon]  # fmt: skip
        for process in new:
            process.terminate()
        return "a process that is not a daemon was left running" if new else ""


_STRAY: list[threading.Thread] = []


def stray_threads() -> list[threading.Thread]:
    """Threads that plugins left running, and that the process must not wait for as it ends."""
    return [thread for thread in _STRAY if thread.is_alive()]


def _pool_threads() -> Mapping[threading.Thread, object]:
    """The threads of executors, which end with the process."""
    module = sys.modules.get("concurrent.futures.thread")
    threads: Mapping[threading.Thread, object] = getattr(module, "_threads_queues", {})
    return threads


class _Timer:
    """A timer that would end the process later."""

    name = "timers"

    def read(self) -> bool:
        return signal.getitimer(signal.ITIMER_REAL)[0] > 0

    def settle(self, before: bool) -> str:
        if before:
            return ""
        signal.setitimer(signal.ITIMER_REAL, 0)
        return "a timer was left running (signal.alarm)"


def _signals() -> list[Setting]:
    names = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGCHLD")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [Setting(f"the handler of {number.name}", partial(signal.getsignal, number),
                    partial(_set_handler, number)) for number in numbers]  # fmt: skip


def _set_handler(number: signal.Signals, handler: Any) -> None:
    # Only the main thread can, and nothing can set one that C code has set.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(number, handler)


def _set_collecting(value: object) -> None:
    (gc.enable if value else gc.disable)()


def _locale() -> str:
    return locale.setlocale(locale.LC_ALL)


class _Limits:
    """The limits of this process, which libraries may raise and nobody may lower."""

    name = "the limits of the process"

    def __init__(self, resource: Any) -> None:
        self._resource = resource
        self._names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))

    def read(self) -> list[tuple[int, int]]:
        return [self._resource.getrlimit(getattr(self._resource, name)) for name in self._names]

    def settle(self, before: list[tuple[int, int]]) -> str:
        lowered = []
        for name, old, new in zip(self._names, before, self.read(), strict=True):
            # Unlimited is the largest number, or -1.
            if any(0 <= now < was or (was < 0 <= now) for was, now in zip(old, new, strict=True)):
                lowered.append(name)
                with contextlib.suppress(OSError, ValueError):  # only root can raise the hard one
                    self._resource.setrlimit(getattr(self._resource, name), old)
        return f"limits of the process were lowered: {', '.join(lowered)}" if lowered else ""


def _limits() -> list[State]:
    try:
        import resource  # absent on Windows
    except ImportError:
        return []
    return [_Limits(resource)]


_umask_is_read = threading.Lock()


def _umask() -> int:
    with _umask_is_read:
        before = os.umask(0o077)  # the only reader; files of other threads are private meanwhile
        os.umask(before)
    return before


def _time_zone() -> list[Setting]:
    if not hasattr(time, "tzset"):
        return []
    return [Setting("time.tzname", lambda: time.tzname, lambda _: time.tzset())]


def _attribute(owner: Any, name: str) -> Setting:
    return Setting(f"{owner.__name__}.{name}", partial(getattr, owner, name),
                   partial(setattr, owner, name))  # fmt: skip


def _affinity() -> list[Setting]:
    if not hasattr(os, "sched_getaffinity"):
        return []
    return [Setting("os.sched_getaffinity(0)", partial(os.sched_getaffinity, 0),
                    partial(os.sched_setaffinity, 0))]  # fmt: skip


_SURROUNDINGS: tuple[State, ...] = (
    _Environment(),
    _SearchPath(),
    _WarningFilters(),
    _Streams(),
    _Threads(),
    _Processes(),
    Setting("os.getcwd()", os.getcwd, os.chdir),
    Setting("locale.setlocale(locale.LC_ALL)", _locale, partial(locale.setlocale, locale.LC_ALL)),
    Setting("sys.getrecursionlimit()", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("sys.getswitchinterval()", sys.getswitchinterval, sys.setswitchinterval),
    Setting("sys.gettrace()", sys.gettrace, sys.settrace),
    Setting("sys.getprofile()", sys.getprofile, sys.setprofile),
    *(_attribute(sys, name) for name in ("excepthook", "unraisablehook", "displayhook")),
    _attribute(threading, "excepthook"),
    Setting("gc.isenabled()", gc.isenabled, _set_collecting),
    Setting("gc.get_threshold()", gc.get_threshold, lambda values: gc.set_threshold(*values)),
    Setting("the umask", _umask, os.umask),
    Setting("tempfile.gettempdir()", tempfile.gettempdir, partial(setattr, tempfile, "tempdir")),
    Setting(
        "the level of logging.disable()",
        partial(getattr, logging.root.manager, "disable"),
        logging.disable,
    ),
    *_time_zone(),
    *_limits(),
    _Timer(),
    *_affinity(),
    *_signals(),
)
