"""The run that a folder holds already: its entries go on, or it is set aside for another suite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from transferbench.files import disk_errors_explained, write_json
from transferbench.runner.folder import (
    CLAIMS,
    ENVIRONMENT,
    RECORDS,
    REPORT,
    RUN,
    SUBMISSIONS,
    unreadable,
)
from transferbench.specs import Frozen

__all__ = ["EarlierRun", "earlier_run", "set_aside"]

EARLIER = "earlier"
"""The folder, in that of a run, of runs of other suites that it held before."""
UNREADABLE = "unreadable"
SHORT_DIGEST = 8

RESULTS = (RECORDS, CLAIMS, ENVIRONMENT, REPORT, SUBMISSIONS)


class _Asked(Frozen):
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
    asked: tuple[_Asked, ...]
    code: _Code = _Code()


class EarlierRun(NamedTuple):
    """A run in a folder, finished or not; None where its ``run.json`` cannot be read."""

    folder: Path
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
        return any(os.path.lexists(self.folder / name) for name in RESULTS)

    @property
    def is_still_there(self) -> bool:
        """Whether the folder holds a run of the same suite now."""
        run = earlier_run(self.folder)
        return run is not None and run.digest == self.digest

    @property
    def aside(self) -> Path:
        """Where it is kept once the folder is used for another suite."""
        return self.folder / EARLIER / (self.digest[:SHORT_DIGEST] or UNREADABLE)


def earlier_run(folder: Path) -> EarlierRun | None:
    """The run that ``folder`` holds; None where there is no ``run.json``.

    Raises: ``StoreError`` where this user may not read it.
    """
    path = folder / RUN
    try:
        if not path.is_file():
            return None
        return EarlierRun(folder, TypeAdapter(_Described).validate_json(path.read_bytes()))
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, ValidationError):
        return EarlierRun(folder, None)


def set_aside(run: EarlierRun) -> None:
    """Move the results of ``run`` to ``run.aside``, which is a folder of a run then.

    An older run of the same suite there is replaced. Stopped half-way, the next call goes on.
    Raises: ``StoreError`` where the disk refuses.
    """
    aside = run.aside
    with disk_errors_explained(aside):
        aside.mkdir(parents=True, exist_ok=True)
        if run.described:
            store = os.path.relpath(run.folder / run.described.store, aside)
            write_json(aside / RUN, run.described.model_copy(update={"store": store}))
        else:
            shutil.copyfile(run.folder / RUN, aside / RUN)
        for name in RESULTS:
            if os.path.lexists(run.folder / name):
                _remove(aside / name)
                (run.folder / name).rename(aside / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
