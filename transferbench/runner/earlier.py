"""The run that a folder holds already: its entries go on, or it is moved away for another suite."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from transferbench.files import disk_errors_explained, write_json
from transferbench.runner.folder import RESULTS, RUN, unreadable
from transferbench.specs import Frozen

__all__ = ["EARLIER", "EarlierRun", "earlier_run", "move_to_earlier"]

EARLIER = "earlier"
"""The folder, in that of a run, of runs of other suites that it held before."""
SHORT_DIGEST = 8


class _RequestedNames(Frozen):
    model_config = ConfigDict(extra="ignore")

    backbone: str
    weights: str


class _Code(Frozen):
    model_config = ConfigDict(extra="allow")

    accepted: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class _Described(Frozen):
    """The part of ``run.json`` that tells which suite and entries were run."""

    model_config = ConfigDict(extra="allow")

    suite_id: str
    suite_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    store: str
    requested: tuple[_RequestedNames, ...] = Field(alias="asked")
    code: _Code = _Code()


class EarlierRun(NamedTuple):
    """A run in a folder, finished or not.

    ``content``: the digest of its ``run.json``. ``described``: None where that cannot be read.
    """

    folder: Path
    content: str
    described: _Described | None

    @property
    def digest(self) -> str:
        """The digest of its suite; empty where that is unknown."""
        return self.described.suite_digest if self.described else ""

    @property
    def accepted_code(self) -> Mapping[str, tuple[str, ...]]:
        """The digests of the code that its numbers may be mixed of, by plugin."""
        return self.described.code.accepted if self.described else {}

    @property
    def has_results(self) -> bool:
        """Whether there is something that a run of another suite must not mix with."""
        stopped = self.aside.is_dir() and not os.path.lexists(self.aside / RUN)
        return stopped or any(os.path.lexists(self.folder / name) for name in RESULTS)

    @property
    def is_still_there(self) -> bool:
        """Whether the folder holds a run of the same suite now."""
        run = earlier_run(self.folder)
        return run is not None and run.digest == self.digest

    @property
    def aside(self) -> Path:
        """Where it is kept once the folder is used for another suite."""
        # Each one that cannot be read is kept: nothing tells of which suite it is.
        name = self.digest[:SHORT_DIGEST] or f"unreadable-{self.content[:SHORT_DIGEST]}"
        return self.folder / EARLIER / name


def earlier_run(folder: Path) -> EarlierRun | None:
    """The run that ``folder`` holds; None where there is no ``run.json``.

    Raises: ``StoreError`` where this user may not read it.
    """
    path = folder / RUN
    try:
        if not path.is_file():
            return None
        content = path.read_bytes()
    except PermissionError as error:
        raise unreadable(path, error) from error
    except OSError:
        return EarlierRun(folder, "", None)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return EarlierRun(folder, sha256, TypeAdapter(_Described).validate_json(content))
    except ValidationError:
        return EarlierRun(folder, sha256, None)


def move_to_earlier(run: EarlierRun) -> None:
    """Move the results of ``run`` to ``run.aside``, which is a folder of a run then.

    An older run of the same suite there is replaced. Stopped at any moment, each file is in one of
    the two folders, and the next call goes on. Raises: ``StoreError`` where the disk refuses.
    """
    aside = run.aside
    with disk_errors_explained(aside):
        aside.mkdir(parents=True, exist_ok=True)
        # What lies there without run.json is of a call that was stopped.
        if os.path.lexists(aside / RUN):
            for name in (*RESULTS, RUN):
                _remove(aside / name)
        for name in RESULTS:
            if os.path.lexists(run.folder / name):
                _remove(aside / name)
                (run.folder / name).rename(aside / name)
        if run.described:
            store = os.path.relpath(run.folder / run.described.store, aside)
            write_json(aside / RUN, run.described.model_copy(update={"store": store}))
        else:
            (run.folder / RUN).rename(aside / RUN)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
