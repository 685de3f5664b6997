"""Runs a plugin's code; what it changes in the process is restored and raised as its error.

``numerics``, ``surroundings`` and ``library_code`` hold the state that is compared; ``endings``
refuses to end the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial

from transferbench.registry.endings import end_if_forked, endings_refused, is_the_users
from transferbench.registry.library_code import LibraryCode, first_imports
from transferbench.registry.numerics import State, generators, settings
from transferbench.registry.surroundings import surroundings

__all__ = ["MisconductError", "changes_undone", "guarded", "guarded_job", "only_plugins_run"]


class MisconductError(Exception):
    """What a plugin did to the process that runs it; the message continues "PLUGIN ..."."""


_LIBRARY_CODE = LibraryCode()
_GUARDED: ContextVar[bool | None] = ContextVar("guarded", default=None)
"""Whether the guard around compares libraries; None where there is none."""
_ONLY_PLUGINS_RUN: ContextVar[bool] = ContextVar("only_plugins_run", default=False)


@contextmanager
def only_plugins_run(*, accept_libraries: bool = True) -> Iterator[None]:
    """A block in which only plugins can change libraries: each guard compares them once.

    Elsewhere a guard compares before and after. ``accept_libraries``: what was done to them before
    the block is taken for their own.
    """
    with endings_refused():
        if accept_libraries and not _ONLY_PLUGINS_RUN.get():
            _LIBRARY_CODE.accept()
        before = _ONLY_PLUGINS_RUN.set(True)
        try:
            yield
        finally:
            _ONLY_PLUGINS_RUN.reset(before)


@contextmanager
def guarded(*, frequent: bool = False, libraries: bool = True) -> Iterator[None]:
    """A block of a plugin's code.

    ``frequent``: of every batch, so that only settings are compared. Inside another guard the same
    holds, and the outer one compares the rest. ``libraries``: whether their code is compared too,
    which reads 50,000 names.

    Raises: ``MisconductError`` for what the block changed, and for an exception that ends processes
    (a KeyboardInterrupt of the plugin, GeneratorExit). The user's interrupt and other errors pass.
    """
    around = _GUARDED.get()
    if frequent or (around is not None and around >= libraries):
        with _undone(_Watch(settings())) as changes:
            yield
    else:
        before = _GUARDED.set(libraries)
        try:
            with changes_undone(randomness=True, libraries=libraries) as changes:
                yield
        finally:
            _GUARDED.reset(before)
    _refuse(changes)


@contextmanager
def changes_undone(*, randomness: bool, libraries: bool = True) -> Iterator[list[str]]:
    """A block whose changes are restored and, once it has ended, in the list.

    ``randomness``, ``libraries``: whether global generators and the code of libraries are among
    them.

    Raises: ``MisconductError`` for an exception that ends processes, as in ``guarded``.
    """
    with ExitStack() as stack:
        stack.enter_context(endings_refused())
        if libraries and not _ONLY_PLUGINS_RUN.get():
            _LIBRARY_CODE.accept()
        chance = generators() if randomness else ()
        states = [*settings(), *surroundings(), *chance]
        watch = _Watch(states, _LIBRARY_CODE if libraries else None)
        stack.enter_context(first_imports(partial(watch.extend, randomness=randomness)))
        yield stack.enter_context(_undone(watch))


@contextmanager
def guarded_job(*, code: bool) -> Iterator[None]:
    """A job, for what no guard inside surrounds: the code of a network.

    ``code``: whether such code runs, so that libraries are compared. Generators may move, as
    dropout does.

    Raises: as ``guarded``.
    """
    with endings_refused():
        if code and not _ONLY_PLUGINS_RUN.get():
            _LIBRARY_CODE.accept()
        watch = _Watch([*settings(), *surroundings()], _LIBRARY_CODE if code else None)
        with _undone(watch) as changes:
            yield
    _refuse(changes)


def _refuse(changes: Sequence[str]) -> None:
    if changes:
        raise MisconductError(f"changed what everybody shares: {'; '.join(changes)}")


class _Watch:
    """The state of the process at one time, to be put back; with the code of libraries, if any."""

    def __init__(self, states: Iterable[State], code: LibraryCode | None = None) -> None:
        self._before = [(state, state.read()) for state in states]
        self._code = code
        if code is not None:
            code.extend()

    def extend(self, *, randomness: bool) -> None:
        """Take in a library that has just been imported, before a plugin can change it."""
        watched = [state for state, _ in self._before]
        chance = generators() if randomness else ()
        new = [state for state in (*settings(), *chance) if state not in watched]
        self._before += [(state, state.read()) for state in new]
        if self._code is not None:
            self._code.extend()

    def settle(self) -> list[str]:
        """Put everything back; returns a line for each change that counts."""
        # Code first: what reads and sets the rest may be what was replaced.
        lines = self._code.settle() if self._code is not None else []
        for state, value in self._before:
            try:
                if state.read() != value:
                    lines.append(state.settle(value))
            except Exception as error:  # noqa: BLE001  # the rest must be put back all the same
                lines.append(f"{state.name} could not be restored ({error})")
        return [line for line in lines if line]


@contextmanager
def _undone(watch: _Watch) -> Iterator[list[str]]:
    """Settle at the end of the block, into the list. Raises: as ``changes_undone``."""
    process = os.getpid()
    changes: list[str] = []
    try:
        yield changes
    except BaseException as error:
        if isinstance(error, (Exception, SystemExit)) or is_the_users(error):
            raise
        raise MisconductError(f"raised {type(error).__name__}") from error
    finally:
        end_if_forked(process)
        changes += watch.settle()
