"""Threads that take turns: at every call of the file system one goes on, drawn by a seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread, get_ident
from typing import Any

import pytest

__all__ = ["Turns"]

CALLS = ("access", "chmod", "listdir", "lstat", "mkdir", "open", "rename", "replace",
         "rmdir", "scandir", "stat", "unlink", "utime")  # fmt: skip

STEPS_OF_A_SLEEP = 30


class Turns:
    """Runs programs in threads of which one at a time goes on, the same way for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._condition = Condition()
        self._alive: list[int] = []
        self._turn = 0
        self._held: set[int] = set()
        self.steps = 0
        self.errors: list[BaseException] = []

    def run(self, programs: Sequence[Callable[[], object]]) -> None:
        """Run every program to its end. Raises: what the first of them raised."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._stepping(getattr(os, name)))
            patch.setattr(os, "fsync", self._stepping(lambda _: None))  # no disk fails here
            patch.setattr(time, "sleep", self._sleep)
            threads = [Thread(target=self._run, args=(number, program), daemon=True)
                       for number, program in enumerate(programs)]  # fmt: skip
            self._names: dict[int, int] = {}
            self._alive = list(range(len(programs)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        if self.errors:
            raise self.errors[0]
        assert not any(thread.is_alive() for thread in threads), "the programs wait for each other"

    def step(self) -> None:
        """Let another program go on, or this one."""
        number = self._names.get(get_ident())
        if number is None or number in self._held:
            return
        with self._condition:
            self.steps += 1
            self._turn = self._random.choice(self._alive)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._turn == number)

    def _sleep(self, _: float) -> None:
        """Others do much while a program sleeps."""
        for _ in range(STEPS_OF_A_SLEEP):
            self.step()

    @contextmanager
    def undivided(self) -> Iterator[None]:
        """What this program does inside the block is one step."""
        number = self._names.get(get_ident(), -1)
        self._held.add(number)
        try:
            yield
        finally:
            self._held.discard(number)

    def _run(self, number: int, program: Callable[[], object]) -> None:
        with self._condition:
            self._names[get_ident()] = number
            self._condition.wait_for(lambda: self._turn == number)
        try:
            program()
        except BaseException as error:  # noqa: BLE001  # raised again by ``run``
            self.errors.append(error)
        with self._condition:
            self._alive.remove(number)
            if self._alive:
                self._turn = self._random.choice(self._alive)
            self._condition.notify_all()

    def _stepping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **keywords: Any) -> Any:
            self.step()
            return call(*args, **keywords)

        return stepping
