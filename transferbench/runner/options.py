"""The options of a run, each written once for Python calls and for the command line."""

# ruff: noqa: RUF009  # ``_option`` makes a dataclass's field
from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferbench.runner.schedule import Watcher

__all__ = ["KEEP", "SUITE_WEIGHTS", "Options", "RunOptions", "require_list"]

SUITE_WEIGHTS = "suite"
"""One of ``weights``: the suite's own pre-training."""
KEEP = ("all", "final")
"""The values of ``keep``."""
LARGEST = 10**6
"""Of a number: neither clocks nor memory hold every one."""


def _option(default: Any, text: str, flag: str = "", **limits: Any) -> Any:
    """A field with its description, its flag (by default its name) and what values it takes."""
    if "min" in limits:
        limits.setdefault("max", LARGEST)
    return field(default=default, metadata={"text": text, "flag": flag, "limits": limits})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run of a suite, where and how."""

    backbones: Sequence[str] = _option(
        (), "Backbones to compare; without any, the suite's own.", "--backbone"
    )
    initializations: Sequence[str] = _option(
        (), "Arms of the suite to keep, or plugins to add as arms.", "--initialization"
    )
    weights: str | Path | Sequence[str | Path] = _option(
        (),
        "suite (pre-trained by the suite: the default), or a tag, a file or a folder of other "
        "weights; of one backbone: timm/resnet18=FILE.",
        metavar="[BACKBONE=]suite|TAG|FILE",
    )
    changes: Sequence[str] = _option(
        (), "Settings of the suite to change: recipes.P-T.epochs=3. Cannot be submitted.", "--set"
    )
    seed_count: int | None = _option(None, "Replicates to run.", min=1)
    out: str | Path | None = _option(
        None, "The run's folder; by default runs/SUITE@VERSION, for a changed suite with +DIGEST."
    )
    store: str | Path | None = _option(
        None, "Artefacts, shared by runs and suites; by default store beside the run's folder."
    )
    data_root: str | Path | None = _option(
        None, "Where datasets' files are.", envvar="TRANSFERBENCH_DATA"
    )
    plugins: Sequence[str | Path] = _option((), "Plugin files to load.", "--plugin")
    device: str = _option("auto", "Where to compute.")
    jobs: int | None = _option(
        None, "How many at once; by default one for each core or GPU.", min=1
    )
    executor: str | Path = _option(
        "local",
        "Where jobs run: local, slurm, ray, or another that is installed; or a .yaml file with "
        "executor and options.",
    )
    executor_options: Mapping[str, Any] | Sequence[str] = _option(
        (), "A setting of the executor.", "--executor-option", metavar="KEY=VALUE"
    )
    accept_versions: bool = _option(
        False, "Let nodes compute with other versions of packages than this machine's."
    )
    time_limit_seconds: float | None = _option(
        None, "Seconds a job may take.", "--time-limit", min=0.001, max=1e9
    )
    gpus_per_job: int = _option(
        1, "GPUs that share each training; with --device cpu so many processes.", min=1
    )
    accept_rounding: bool = _option(
        False,
        "Share trainings among GPUs that round otherwise than one: bf16, fp16, and AdamW "
        "with batch statistics.",
    )
    shard: bool | None = _option(
        None,
        "Spread the state of a training over its GPUs; by default where it would fill one.",
        "--shard/--no-shard",
    )
    group: int | None = _option(
        None,
        "Trainings of one shape at once; by default 8 on a GPU, 1 on the CPU.",
        min=1,
    )
    fast_kernels: bool = _option(
        False, "Kernels that are not deterministic on a GPU: faster, other bits each time."
    )
    micro_batch: int | None = _option(None, "Images at once on the device.", min=1)
    image_memory: float | None = _option(
        None, "GB of images of a split that a job holds; more are read from the disk.", min=0.0
    )
    compile: bool | None = _option(
        None,
        "Use torch.compile; by default for long trainings of large images on a GPU.",
        "--compile/--no-compile",
    )
    keep: str = _option(
        "all", "The states that trainings store: all, or final and what the plan reads."
    )
    offline: bool = _option(False, "Refuse to look for weights on the network.")
    accept_code: bool = _option(
        False, "Mix numbers of a plugin file with those of its code before it was edited."
    )

    @property
    def weights_texts(self) -> tuple[str, ...]:
        """The weights as a list, whether one or several were given."""
        alone = isinstance(self.weights, str | PathLike)
        return (str(self.weights),) if alone else tuple(map(str, self.weights or ()))  # type: ignore[arg-type]  # not alone

    def __post_init__(self) -> None:
        for option in fields(Options):
            value = getattr(self, option.name)
            limits = option.metadata["limits"]
            if value is None and (variable := limits.get("envvar")):
                object.__setattr__(self, option.name, value := os.environ.get(variable) or None)
            if option.name == "weights" and isinstance(value, str | PathLike):
                continue  # one for all backbones
            if option.name == "executor_options" and isinstance(value, Mapping):
                continue
            if value is not None:
                default = False if "/" in option.metadata["flag"] else option.default
                _check(option.name, value, default, limits)
        if self.keep not in KEEP:
            raise ValueError(f"keep must be {' or '.join(KEEP)}, not {self.keep!r}")


def require_list(name: str, value: Any) -> None:
    """Raise ``TypeError`` where ``value`` is not a list, or the like, of texts or paths."""
    if isinstance(value, str | bytes | Mapping | PathLike) or not isinstance(value, Collection):
        raise TypeError(f"{name} is a list: write {name}=[{value!r}]")
    for member in value:
        if not isinstance(member, str | PathLike):
            raise TypeError(f"{name} is a list of texts, and {member!r} is none")


def _check(name: str, value: Any, default: Any, limits: Mapping[str, Any]) -> None:
    """Raise an error where ``value`` is not of an option's kind, which its default tells."""
    if "min" in limits:
        minimum, maximum = limits["min"], limits["max"]
        numbers, noun = (Integral, "an integer") if isinstance(minimum, int) else (Real, "a number")
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise TypeError(f"{name} must be {noun}, not {value!r}")
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value!r}")
        if value > maximum:
            raise ValueError(f"{name} must be at most {maximum}")
    elif default == ():
        require_list(name, value)
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    elif not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be a text or a path, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How the execution is shown, besides."""

    progress: bool | Watcher = _option(
        True, "True shows a bar in terminals and notebooks, False nothing; or a ``Watcher``."
    )
