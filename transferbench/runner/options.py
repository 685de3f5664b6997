"""The options of a run: the one list that Python calls and the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferbench.runner.schedule import Watcher

__all__ = ["SUITE_WEIGHTS", "Options", "RunOptions"]

SUITE_WEIGHTS = "suite"
"""The value of ``weights`` for the suite's own pre-training."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run of a suite, where and how.

    ``initializations``: arms of the suite to keep, or plugins to add as arms.
    ``weights``: ``suite``, or a tag or a file of the backbone's own weights.
    ``changes``: settings of the suite to change, as ``recipes.P-T.epochs=3``.
    ``out``: the run's folder (None: ``runs/SUITE@VERSION``); ``store``: shared between runs and
    suites (None: ``store`` beside the run's folder).
    ``jobs``: how many at once (None: one for each core, or one for the GPU).
    """

    backbones: Sequence[str] = ()
    initializations: Sequence[str] = ()
    weights: str = SUITE_WEIGHTS
    changes: Sequence[str] = ()
    seed_count: int | None = None
    out: str | Path | None = None
    store: str | Path | None = None
    data_root: str | Path | None = None
    plugins: Sequence[str | Path] = ()
    device: str = "auto"
    jobs: int | None = None
    time_limit_seconds: float | None = None
    micro_batch: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("backbones", "initializations", "changes", "plugins"):
            if isinstance(value := getattr(self, name), str):
                raise TypeError(f"{name} is a list: write {name}=[{value!r}]")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How the execution is shown.

    ``progress``: True shows a bar in terminals and notebooks, False nothing; or a ``Watcher``.
    """

    progress: bool | Watcher = True
