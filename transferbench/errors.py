"""The errors a user can act on; everything else is our bug and keeps its traceback.

TransferbenchError
 +-- PluginError        a plugin is broken, missing or contradicts another
 +-- UnknownNameError   a name that nothing offers
 +-- SuiteError         a suite file that cannot be run as written
 +-- DataError          images or weights missing, truncated or of the wrong content
 |    +-- SelectionError       images that a suite selects and the data do not have
 +-- DeviceError        hardware asked for that is not there
 +-- ExecutorError      an executor, or its workers elsewhere, that cannot be used as requested
 +-- LostProcessError   a process that ended in the middle of a job
 +-- StoreError         an artefact that cannot be written or is not what was written
 |    +-- DamagedImagesError   decoded images that changed since they were written
 +-- SubmissionError    a submission that cannot be accepted
 +-- ConformanceError   a plugin that breaks a promise of its kind
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "ConformanceError",
    "DamagedImagesError",
    "DataError",
    "DeviceError",
    "ExecutorError",
    "LostProcessError",
    "PluginError",
    "SelectionError",
    "StoreError",
    "SubmissionError",
    "SuiteError",
    "TransferbenchError",
    "UnknownNameError",
    "is_out_of_memory",
    "listing",
    "nearest",
    "shortened",
    "suggestion",
    "text_of",
]


class TransferbenchError(Exception):
    """A user's mistake or a third party's fault: shown as its message alone, exit code 2.

    The message says what was requested, what is there and what to do.
    """


class PluginError(TransferbenchError):
    """A plugin is broken, missing or contradicts another."""


class UnknownNameError(TransferbenchError):
    """A name that nothing offers; the message suggests the nearest one that exists.

    ``reason`` and ``advice``: the two parts of the message, for lists of several. ``near``: the
    name to suggest, where it is not that nearest by its letters.
    """

    def __init__(
        self, kind: str, name: str, available: Iterable[str], advice: str = "", near: str = ""
    ) -> None:
        choices = sorted(available)
        message = f"no {kind} named {name!r}"
        if near:
            message += f"; did you mean {near!r}?"
        elif choices:
            message += f"; {suggestion(name, choices)}"
        self.reason = message
        self.advice = advice
        super().__init__(f"{message} ({advice})" if advice else message)


class SuiteError(TransferbenchError):
    """A suite file that cannot be run as written; lists every mistake at once."""


class DataError(TransferbenchError):
    """Images or weights that are missing, truncated or not the declared content."""


class SelectionError(DataError):
    """Images that a suite selects of data that do not have them.

    ``field``, ``value``: the setting of the target or source that mends it.
    """

    def __init__(self, message: str, field: str, value: int | str) -> None:
        super().__init__(message)
        self.field, self.value = field, value


class DeviceError(TransferbenchError):
    """Hardware was asked for that this machine does not have."""


class ExecutorError(TransferbenchError):
    """An executor, or its workers on other machines, that cannot be used as requested."""


class LostProcessError(TransferbenchError):
    """One of the processes of a training ended, or no longer answers; it may be tried again."""


class StoreError(TransferbenchError):
    """An artefact that cannot be written, or is not what was written."""


class DamagedImagesError(StoreError):
    """Decoded images that changed since they were written; preparing the data heals them."""


class SubmissionError(TransferbenchError):
    """A submission that cannot be packed, checked or published."""


class ConformanceError(TransferbenchError):
    """A plugin breaks a promise of its kind."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or a GPU.

    Known by name, or on torch's CPU by its text: importing torch would cost every worker.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in text_of(
        error
    )


def text_of(error: BaseException) -> str:
    """``str(error)``, also where the class of an exception has a ``__str__`` that fails."""
    try:
        return str(error)
    except Exception as own:  # noqa: BLE001  # a plugin's
        return f"(its text cannot be made: {type(own).__name__})"


def nearest(name: str, available: Iterable[str]) -> str | None:
    """The available name most like ``name``, or None where nothing is close."""
    close = difflib.get_close_matches(name, list(available), n=1, cutoff=0.6)
    return close[0] if close else None


def suggestion(name: str, available: Sequence[str]) -> str:
    """The name nearest to ``name`` as a question, or all that there are."""
    if close := nearest(name, available):
        return f"did you mean {close!r}?"
    return f"there are: {', '.join(available) or 'none'}"


def shortened(lines: Sequence[str], limit: int) -> list[str]:
    """The first ``limit`` lines, then how many more there are."""
    rest = len(lines) - limit
    return [*lines[:limit], *([f"and {rest} more"] if rest > 0 else [])]


def listing(names: Sequence[str], limit: int, separator: str = ", ") -> str:
    """The first ``limit`` names, and how many more there are, in one line."""
    first, rest = names[:limit], shortened(names, limit)[limit:]
    return " ".join([separator.join(first), *rest])
