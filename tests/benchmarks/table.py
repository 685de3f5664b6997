"""The results of ``pytest -m benchmark --benchmark-json FILE`` as a table of ratios and goals.

Usage: ``python tests/benchmarks/table.py FILE [FILE ...] RESULTS.md``, a file for each run
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

HEADERS = ("benchmark", "ours (ms)", "peer", "peer (ms)", "clock", "ratio", "runs", "goal", "met")

Found = dict[str, Any]


def rows(runs: Sequence[Found]) -> Iterator[list[str]]:
    """One row for each race, in the order of the groups; every run has the same races."""
    labelled = [{label(found): found for found in run["benchmarks"]} for run in runs]
    for name in map(label, ordered(runs[0])):
        same = [run[name] for run in labelled]
        for races in zip(*(found["extra_info"]["races"] for found in same), strict=True):
            yield row(same, races)


def ordered(run: Found) -> list[Found]:
    return sorted(run["benchmarks"], key=lambda found: str(found["group"]))


def row(same: Sequence[Found], races: Sequence[Found]) -> list[str]:
    return [
        label(same[0]),
        milliseconds(found["extra_info"]["seconds"] for found in same),
        races[0]["peer"],
        milliseconds(race["peer_seconds"] for race in races),
        same[0]["extra_info"]["clock"],
        *judged(races),
    ]


def milliseconds(seconds: Iterator[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.2f}"


def judged(races: Sequence[Found]) -> tuple[str, str, str, str]:
    """The ratio in the words of its goal, its range, the goal, and in how many runs it is met."""
    faster, within = races[0]["faster"], races[0]["within"]
    words = "its time" if faster is None else "faster"
    ratios = [1 / race["speedup"] if faster is None else race["speedup"] for race in races]
    goal, met = "", ""
    if within is not None:
        goal, met = f"<= {within}x", verdict([ratio <= within for ratio in ratios])
    elif faster is not None:
        goal, met = f">= {faster}x", verdict([ratio >= faster for ratio in ratios])
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}" if len(races) > 1 else ""
    return f"{statistics.median(ratios):.2f}x {words}", spread, goal, met


def notes(run: Found) -> list[str]:
    """What the benchmarks found besides, which tells why a goal cannot be met here."""
    return [
        f"- {label(found)}: {found['extra_info']['note']}"
        for found in ordered(run)
        if "note" in found["extra_info"]
    ]


def label(found: Found) -> str:
    return f"{found['group']}: {found['name'].removeprefix('test_')}"


def verdict(met: Sequence[bool]) -> str:
    if all(met):
        return "yes"
    return f"in {sum(met)} of {len(met)}" if any(met) else "**no**"


def page(runs: Sequence[Found]) -> str:
    machine = runs[-1]["machine_info"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    table = tabulate(rows(runs), headers=HEADERS, tablefmt="github", disable_numparse=True)
    loads = ", ".join(f"{run['machine_info']['load']:.1f}" for run in runs)
    cpu = machine["cpu"]
    processor = cpu.get("brand_raw", machine.get("processor"))
    below = "\n".join([table, "", *notes(runs[-1])]).rstrip()
    return f"""# Measured speed

Written by `tests/benchmarks/table.py` from {len(runs)} run(s) one after another. In a run ours and
its peers were timed in turn, round by round, in one process; a ratio is the median over the rounds,
a time the median of its own. What stands here is the median over the runs; `runs` are the least
and the largest ratio of one.

- CPU: {processor}, {cpu.get("count")} cores; {machine["threads"]} thread used
- Load average {loads}: what other processes take from the caches and the memory
  counts against a gather more than against a copy
- Clock: process_time counts what one process computed, perf_counter what passed for the user
- Python {machine["python_version"]}, {packages}

{below}
"""


if __name__ == "__main__":
    *files, results = (Path(given) for given in sys.argv[1:])
    found_in = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    results.write_text(page(found_in), encoding="utf-8")
