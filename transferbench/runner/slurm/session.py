"""A session: the chunks of one submission of a run, and what they tell, in the run's folder."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from transferbench.errors import StoreError
from transferbench.files import disk_errors_explained, write_json
from transferbench.identity import digest
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.folder import read_json
from transferbench.runner.slurm.chunk import CONTEXT
from transferbench.runner.slurm.control import ArrayControl, ElementState, own_states
from transferbench.runner.slurm.options import SlurmOptions
from transferbench.store import Store

__all__ = ["SLURM_FOLDER", "Session", "sessions_in"]

SLURM_FOLDER = "slurm"
"""Of a run: what its chunks are begun with, their ids, what they tell, and their logs."""
SESSION = "session.json"
LOGS = "logs"


@dataclass
class Session:
    """``elements``: the ids of all chunks that were submitted for ``plan``, a digest of jobs.

    ``context``: the file that new chunks are begun with. ``ended``: its chunks were cancelled.
    """

    folder: Path
    plan: str
    elements: list[str]
    context: str = CONTEXT
    ended: bool = False

    @classmethod
    def begin(cls, context: ExecutorContext, options: SlurmOptions) -> Self:
        """A new one, without a chunk."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}"
        folder = (context.folder / SLURM_FOLDER / name).absolute()
        with disk_errors_explained(folder):
            folder.mkdir(parents=True)
        session = cls(folder, plan_digest(context), [])
        session._write(context, options)
        session.save()
        return session

    def go_on(self, context: ExecutorContext, options: SlurmOptions) -> None:
        """Begin new chunks with these; those that there are go on with theirs."""
        self.context = f"context-{time.time_ns()}.pickle"
        self._write(context, options)

    def _write(self, context: ExecutorContext, options: SlurmOptions) -> None:
        store = Store(context.store.root.absolute())
        context = replace(context, store=store, folder=context.folder.absolute())
        path = self.folder / self.context
        with disk_errors_explained(path):
            path.write_bytes(pickle.dumps((context, options)))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """One that was begun before. Raises: ``StoreError`` where it is damaged."""
        content = read_json(folder / SESSION)
        elements = list(map(str, content["elements"]))
        return cls(folder, str(content["plan"]), elements, ended=bool(content.get("ended")))

    def save(self) -> None:
        """Write the ids, so that another process can go on with the chunks.

        One that did so meanwhile has written its own.
        """
        with suppress(StoreError, KeyError, TypeError):
            self.elements = list(dict.fromkeys([*self.read(self.folder).elements, *self.elements]))
        content = {"plan": self.plan, "elements": self.elements, "ended": self.ended}
        write_json(self.folder / SESSION, content)

    def end(self) -> None:
        """Write that its chunks were cancelled: none is asked after, or taken up, any more."""
        self.ended = True
        if self.folder.is_dir():  # where the run was moved, it leaves nothing in its old place
            with suppress(StoreError):
                self.save()

    @property
    def logs(self) -> Path:
        """The folder of the scripts and the logs, one of each chunk."""
        return self.folder / LOGS

    def living(self, control: ArrayControl) -> Mapping[str, ElementState]:
        """The chunks that run or will; also those of which nothing can be learned now."""
        states = own_states(control, self.folder, self.elements)
        unknown = ElementState("UNKNOWN", detail="Slurm does not answer")
        all_states = {element: states.get(element, unknown) for element in self.elements}
        return {element: state for element, state in all_states.items() if state.is_alive}


def plan_digest(context: ExecutorContext) -> str:
    """Of what chunks compute: jobs that both have are computed once, whichever plan they are of."""
    return digest(sorted(context.jobs))


def sessions_in(run: Path) -> Iterator[Session]:
    """The sessions of a run that can be read and have not ended, the newest first."""
    folders: Sequence[Path] = sorted((run / SLURM_FOLDER).glob(f"*/{SESSION}"), reverse=True)
    for path in folders:
        with suppress(StoreError, KeyError, TypeError):
            session = Session.read(path.parent)
            if not session.ended:
                yield session
