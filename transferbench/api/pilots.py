"""The pilot blocks of a suite's claims, from a finished run of another draw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from transferbench.api.finished_run import Run
from transferbench.api.keywords import names_suggested
from transferbench.claims import pilot_of, replicates_needed
from transferbench.measurements import Measurements, MetricRanges
from transferbench.registry import open_registry
from transferbench.suite import Pilot
from transferbench.suite.ranges import metric_ranges

__all__ = ["RunPilot", "pilots_as_yaml", "run_pilots"]


class RunPilot(NamedTuple):
    """What a run says about the variance of a claim.

    ``entry``: whose it is, the one that needs most replicates. ``needed``: the fewest with a power
    of 90%, None where none is enough. ``reason``: why there is no ``pilot``.
    """

    claim: str
    entry: str
    pilot: Pilot | None
    needed: int | None
    reason: str = ""


@names_suggested
def run_pilots(folder: str | Path) -> list[RunPilot]:
    """The pilot of each claim of a run's suite, of the entry that needs most replicates."""
    run = Run(folder)
    ranges = metric_ranges(run.suite, open_registry().diagnostics)
    measurements = Measurements(run.measurements, ranges)
    return [
        max(
            (_pilot(run, label, measurements, ranges, entry) for entry in run.entries),
            key=lambda pilot: (pilot.pilot is not None, pilot.needed is None, pilot.needed or 0),
        )
        for label in run.suite.claims
    ]


def _pilot(
    run: Run, label: str, measurements: Measurements, ranges: MetricRanges, entry: str
) -> RunPilot:
    claim = run.suite.claims[label]
    pilot = pilot_of(run.suite, claim, measurements, entry)
    if isinstance(pilot, str):
        return RunPilot(label, entry, None, None, pilot)
    return RunPilot(label, entry, pilot, replicates_needed(claim, pilot, ranges))


def pilots_as_yaml(pilots: list[RunPilot]) -> str:
    """Blocks to copy into the claims of a suite, each with the n of a power of 90%."""
    return "\n".join(["claims:", *(line for pilot in pilots for line in _lines(pilot))])


def _lines(pilot: RunPilot) -> Iterator[str]:
    if pilot.pilot is None:
        yield f"  # {pilot.claim}: no pilot of {pilot.entry}: {pilot.reason}"
        return
    enough = "no n is enough" if pilot.needed is None else f"n {pilot.needed}"
    yield f"  {pilot.claim}:  # {enough} for a power of 90%, by {pilot.entry}"
    fields = pilot.pilot.model_dump(exclude_defaults=True)
    yield f"    pilot: {{{', '.join(f'{name}: {_text(value)}' for name, value in fields.items())}}}"


def _text(value: object) -> str:
    """A value in YAML, numbers with four significant digits."""
    if isinstance(value, float):
        return f"{float(f'{value:.4g}')!r}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
