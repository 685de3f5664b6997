"""Two runs side by side: what their trials measured in the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from transferbench.api.finished_run import Run
from transferbench.api.keywords import names_suggested
from transferbench.measurements import range_of_metric
from transferbench.runner.folder import read_environment
from transferbench.runner.messages import say
from transferbench.specs import LABEL_DIGITS
from transferbench.statistics import Range, replicate_difference
from transferbench.suite import TRIAL

__all__ = ["compare_runs"]

AXES = ["entry", "target", "perturbation", "initialization", "metric", "unit", "replicate"]
"""The columns that the measurements of two trials must share to be compared."""

MACHINES = {"device_name": "processors", "kernels": "kernels", "driver": "driver",
            "cuda": "version of CUDA", "cudnn": "version of cuDNN"}  # fmt: skip
"""Facts of jobs, as they are told where two runs differ in them."""

SameWeights = tuple[str, str]
"""A backbone and the sha256 of its external weights, which are one entry whatever its name."""


@names_suggested
def compare_runs(first: str | Path, second: str | Path) -> list[dict[str, Any]]:
    """What the trials of two runs measured in the same cells: both means and the difference.

    Entries with external weights are paired by the weights, whose digest the names of older runs
    lack. The interval is that of every difference (``statistics.replicate_difference``), over the
    replicates that both have, or over the means of the source networks that these start from.
    """
    runs = [Run(first), Run(second)]
    for line in _other_machines(*(read_environment(run.folder).jobs for run in runs)):
        say(line)
    tables = [_trial_values(run.measurements) for run in runs]
    entries = [list(dict.fromkeys(table["entry"])) for table in tables]
    weights = [_weights(run.described) for run in runs]
    same = _names_in_first(entries[0], *weights)
    tables[1] = tables[1].assign(entry=tables[1]["entry"].replace(same))
    for line in _unpaired(entries, same, weights):
        say(line)
    a, b = (table.set_index(AXES)[["value", "network"]] for table in tables)
    joined = a.merge(b, left_index=True, right_index=True, suffixes=("_a", "_b"))
    levels = [name for name in joined.index.names if name != "replicate"]
    return [
        dict(zip(map(str, levels), axes, strict=True))
        | _difference(group, range_of_metric((TRIAL, axes[levels.index("metric")]), {}))
        for axes, group in joined.groupby(level=levels, sort=False)
    ]


def _other_machines(
    first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What differs in the machines of two runs and moves the last digits of their numbers."""
    for fact, name in MACHINES.items():
        a, b = ([*facts.get(fact, ())] for facts in (first, second))
        if a != b:
            values = " and ".join(", ".join(each) or "none" for each in (a, b))
            yield f"the runs differ in the {name} of their jobs: {values}"


def _trial_values(table: pd.DataFrame) -> pd.DataFrame:
    """What the trials themselves measured, with the source network where there are several."""
    rows = table[(table["diagnostic"] == TRIAL) & table["value"].notna()]
    return rows if "network" in rows else rows.assign(network=None)


def _difference(group: pd.DataFrame, ends: Range | None) -> dict[str, Any]:
    replicate = pd.Series(group.index.get_level_values("replicate"), index=group.index)
    start = group["network_a"].fillna(group["network_b"]).fillna(replicate)
    means = group[["value_a", "value_b"]].groupby(start).mean()
    first, second = (dict(enumerate(means[name].tolist())) for name in ("value_a", "value_b"))
    interval = replicate_difference(first, second, ends=ends)
    return {
        "a": float(group["value_a"].mean()), "b": float(group["value_b"].mean()),
        "a - b": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
    }  # fmt: skip


# --- entries ----------------------------------------------------------------------------------


def _weights(described: Mapping[str, Any]) -> dict[str, SameWeights | None]:
    """The external weights of each entry of a run; None where its folder does not tell them."""
    rows, entries = described.get("asked"), described["entries"]
    weights: dict[str, SameWeights | None] = {}
    for row, entry in zip(rows if isinstance(rows, list) else (), entries, strict=False):
        name, own = entry["name"], None
        with suppress(KeyError, TypeError):
            own = (str(row["backbone"]), str(entry["weights"]["sha256"] or ""))
        # Older runs gave one name to two files.
        weights[name] = own if own and own[1] and name not in weights else None
    return weights


def _names_in_first(
    entries: Iterable[str],
    first: Mapping[str, SameWeights | None],
    second: Mapping[str, SameWeights | None],
) -> dict[str, str]:
    """What entries of the second run are called in the first; others lose a name that both use."""
    names = {own: name for name in entries if (own := first.get(name))}
    same = {name: names[own] for name, own in second.items() if own in names}
    other = {name: f"{name}@{own[1][:LABEL_DIGITS]}" for name, own in second.items()
             if own and own not in names and first.get(name)}  # fmt: skip
    return same | other


def _unpaired(
    entries: list[list[str]], same: Mapping[str, str], weights: list[dict[str, SameWeights | None]]
) -> Iterator[str]:
    """Why entries are not paired whose names differ in the digest alone."""
    for a, b in product(*entries):
        if a == same.get(b, b) or a.partition("@")[0] != b.partition("@")[0]:
            continue
        untold = [name for name, own in ((a, weights[0].get(a)), (b, weights[1].get(b)))
                  if own is None]  # fmt: skip
        reason = f"the run of {untold[0]} does not tell their digest" if untold else "they differ"
        yield f"{a} and {b} are not paired by their weights: {reason}"
