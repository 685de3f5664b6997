"""One's own pictures: a suite for them, and its run in a given time."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from os import getloadavg
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from transferbench.api.finished_run import Run
from transferbench.api.keywords import names_suggested
from transferbench.data.folders import printable
from transferbench.errors import DataError, SuiteError
from transferbench.files import disk_errors_explained, write_text
from transferbench.own_pictures.design import (
    DIAGNOSIS_SECONDS,
    Cost,
    Design,
    choose,
    first_design,
    suite_content,
    suite_of,
)
from transferbench.own_pictures.look import Look, look_at, template
from transferbench.own_pictures.within import END_SECONDS, computed_within
from transferbench.registry import blamed, open_registry
from transferbench.runner.folder import RUN
from transferbench.runner.options import Options
from transferbench.runner.planning import Planned, plan_suite
from transferbench.runner.progress import progress_watcher
from transferbench.runner.run import run_plan
from transferbench.runner.schedule import Watcher
from transferbench.specs import Preprocessing
from transferbench.streams import one_line

__all__ = ["new_suite", "try_pictures"]

SUITE_FILE = "suite.yaml"
HEAD = """\
# Written for {written}.
# Run it: {command}
"""


class _Prepared(NamedTuple):
    """What a suite is made from: the pictures, the design, and how the suite is run."""

    look: Look
    design: Design
    options: Options
    expected: Preprocessing | None

    def content(self, replicates: int) -> dict[str, Any]:
        """The suite with so many replicates, as it is written."""
        design = self.design._replace(replicates=replicates)
        return suite_content(self.look, design, self.options.backbones[0], self.expected)

    def plan(self, replicates: int) -> Planned:
        """The plan of the suite with so many replicates."""
        design = self.design._replace(replicates=replicates)
        suite = suite_of(self.look, design, self.options.backbones[0], self.expected)
        return plan_suite(suite, self.options)


@names_suggested
def try_pictures(  # noqa: PLR0913  # keywords, one for each option of the command
    path: str | Path,
    *,
    weights: str | Path | None = None,
    backbone: str | None = None,
    minutes: float = 20,
    size: int | None = None,
    group: str | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    plugins: Sequence[str | Path] = (),
    offline: bool = False,
    progress: bool | Watcher = True,
) -> Run:
    """What pre-training brings on pictures of one's own, and whether by features or statistics.

    ``path``: a folder of class folders, or a table of pictures. ``weights``: a tag or a file, by
    default ImageNet weights of a package. ``minutes``: after them no training is started.
    ``size``: the side of the images, by default chosen by the pictures and the time. ``group``:
    which pictures are never in both splits, by a regular expression whose first group matches the
    key in a file's name, or a column of the table. The suite lies in the run's folder.
    Raises: ``DataError`` where the pictures do not allow it, and ``SuiteError`` where the time does
    not.
    """
    started = monotonic()
    deadline = started + _seconds(minutes) - END_SECONDS
    options = _options(weights, backbone, out, device, jobs, plugins, offline)
    with progress_watcher(progress) as watcher:
        prepared = _prepared(Path(path), options, deadline, size, group, watcher)

        def planned_with(replicates: int) -> Planned:
            planned = prepared.plan(replicates)
            _refuse_a_suite_of_ones_own(planned.folder)
            return planned

        planned = computed_within(planned_with, prepared.design.replicates, deadline, watcher)
        _write_suite(planned.folder / SUITE_FILE, path, prepared, planned.suite.replicates)
        run = Run.of_results(planned, run_plan(planned, watcher))
    run.report()
    return run


@names_suggested
def new_suite(  # noqa: PLR0913  # keywords, one for each option of the command
    path: str | Path,
    *,
    weights: str | Path | None = None,
    backbone: str | None = None,
    minutes: float = 20,
    size: int | None = None,
    group: str | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    plugins: Sequence[str | Path] = (),
    offline: bool = False,
) -> Path:
    """Write the suite that ``try_pictures`` would run, to ``out`` or NAME.yaml; returns its path.

    A few steps are timed for it. Raises: as ``try_pictures``; ``SuiteError`` where the file is
    there already.
    """
    deadline = monotonic() + _seconds(minutes) - END_SECONDS
    options = _options(weights, backbone, None, device, jobs, plugins, offline)
    with progress_watcher(progress=False) as watcher:
        prepared = _prepared(Path(path), options, deadline, size, group, watcher)
    file = Path(out or f"{prepared.content(1)['name']}.yaml")
    if file.exists():
        raise SuiteError(f"{file} is there already; give another --out, or remove it")
    _write_suite(file, path, prepared, prepared.design.replicates)
    return file


def _refuse_a_suite_of_ones_own(folder: Path) -> None:
    """Raises: ``SuiteError`` where a file that no run wrote is in the place of the run's suite."""
    if (folder / SUITE_FILE).exists() and not (folder / RUN).exists():
        raise SuiteError(
            f"{folder / SUITE_FILE} is there already, in a folder of no run; run it with "
            "'transferbench run', or give another --out"
        )


def _refuse_a_run_among(pictures: Path, folder: Path) -> None:
    """Raises: ``DataError`` where the folder of a run would be taken for one of a class."""
    if pictures.is_dir() and Path(os.path.realpath(folder)).is_relative_to(
        os.path.realpath(pictures)
    ):
        raise DataError(
            f"the run would be written to {folder}, among the pictures in {pictures}, as if it "
            "were a class; start the command in another folder"
        )


def _seconds(minutes: float) -> float:
    if not 0 < minutes < 1e6:
        raise SuiteError(f"minutes must be a number above 0, not {minutes!r}")
    return 60 * minutes


def _options(
    weights: str | Path | None, backbone: str | None, out: str | Path | None, device: str,
    jobs: int | None, plugins: Sequence[str | Path], offline: bool,
) -> Options:  # fmt: skip
    defaults = template()
    return Options(
        backbones=[backbone or defaults["backbone"]],
        weights=weights or defaults["weights"],
        out=out, device=device, jobs=jobs, plugins=plugins, offline=offline,
    )  # fmt: skip


def _prepared(
    path: Path, options: Options, deadline: float, size: int | None, group: str | None,
    watcher: Watcher,
) -> _Prepared:  # fmt: skip
    """Look at the pictures, measure what a training costs, and choose the design."""
    registry = open_registry(options.plugins, strict=True)
    _refuse_a_run_among(path, Path(options.out or "runs"))
    look = look_at(path, registry, group)
    watcher.note(str(look))
    spec, values = registry.resolve_backbone(options.backbones[0])
    with blamed(f"backbone {spec.name!r}"):
        expected = spec.preprocessing(spec.parse(values))
    options = replace(options, data_root=look.data_root)
    first = _Prepared(look, first_design(look, size), options, expected)
    cost = _measured(first)
    design = choose(look, cost, deadline - monotonic(), size)
    shuffled = ", ".join(map(str, design.blocks))
    watcher.note(
        f"{design.replicates} replicates at {design.size} px, trainings of {design.seen:,} images,"
        f" blocks of {shuffled} px: about {cost.seconds(design) / 60:.0f} minutes"
    )
    return first._replace(design=design)


def _measured(prepared: _Prepared) -> Cost:
    """The cost of the first design on this machine. Raises: as ``try_weights``."""
    from transferbench.engine.resources import find_device
    from transferbench.runner.cost import estimate
    from transferbench.runner.execute import try_weights
    from transferbench.runner.executors.this_machine import available_cpus, slots_of

    others = getloadavg()[0]
    planned = prepared.plan(1)
    try_weights(planned, ())
    device = find_device(prepared.options.device)
    slots = slots_of(prepared.options, device.type)
    seconds = estimate(planned, (), device).seconds_of
    jobs = planned.plan.jobs.values()
    trainings = sum(job.kind in {"trial", "tuning"} for job in jobs)
    diagnoses = sum(job.kind == "diagnosis" for job in jobs)
    return Cost(
        prepared.design,
        (seconds["trial"] + seconds["tuning"]) / trainings,
        seconds["diagnosis"] + DIAGNOSIS_SECONDS * diagnoses,
        slots,
        max((others + slots) / available_cpus(), 1.0),
    )


def _write_suite(file: Path, path: str | Path, prepared: _Prepared, replicates: int) -> None:
    yaml, stream = YAML(), io.StringIO()
    yaml.width = 100
    yaml.default_flow_style = None  # what holds plain values is one line
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.dump(prepared.content(replicates), stream)
    options = prepared.options
    words = ["transferbench", "run", file, "--data-root", prepared.look.data_root,
             "--weights", options.weights]  # fmt: skip
    for plugin in options.plugins:
        words += ["--plugin", plugin]
    command = shlex.join(map(str, words))
    if len(command.splitlines()) > 1 or printable(command) != command:
        command = "a name in its command has a character that cannot stand here"
    head = HEAD.format(written=one_line(f"{path}: {prepared.look}"), command=command)
    with disk_errors_explained(file.parent):
        write_text(file, head + stream.getvalue())
