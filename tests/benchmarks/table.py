"""The results of ``pytest -m benchmark --benchmark-json FILE`` as a table of ratios and goals.

Usage: ``python tests/benchmarks/table.py FILE [FILE ...] RESULTS.md``, one file per run
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

HEADERS = ("benchmark", "ours (ms)", "peer", "peer (ms)", "clock", "ratio", "runs", "goal", "met")

JsonObject = dict[str, Any]


def rows(runs: Sequence[JsonObject]) -> Iterator[list[str]]:
    """One row per comparison, sorted by group; all runs have the same comparisons."""
    labelled = [{label(benchmark): benchmark for benchmark in run["benchmarks"]} for run in runs]
    for name in map(label, ordered(runs[0])):
        same = [run[name] for run in labelled]
        for races in zip(*(benchmark["extra_info"]["races"] for benchmark in same), strict=True):
            yield row(same, races)


def ordered(run: JsonObject) -> list[JsonObject]:
    return sorted(run["benchmarks"], key=lambda benchmark: str(benchmark["group"]))


def row(same: Sequence[JsonObject], races: Sequence[JsonObject]) -> list[str]:
    return [
        label(same[0]),
        milliseconds(benchmark["extra_info"]["seconds"] for benchmark in same),
        races[0]["peer"],
        milliseconds(race["peer_seconds"] for race in races),
        same[0]["extra_info"]["clock"],
        *judged(races),
    ]


def milliseconds(seconds: Iterator[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.2f}"


def judged(races: Sequence[JsonObject]) -> tuple[str, str, str, str]:
    """The ratio, its range over runs, the goal, and the number of runs that meet it."""
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


def notes(run: JsonObject) -> list[str]:
    """The notes of benchmarks, such as why a goal cannot be met on this machine."""
    return [
        f"- {label(benchmark)}: {benchmark['extra_info']['note']}"
        for benchmark in ordered(run)
        if "note" in benchmark["extra_info"]
    ]


def label(benchmark: JsonObject) -> str:
    return f"{benchmark['group']}: {benchmark['name'].removeprefix('test_')}"


def verdict(met: Sequence[bool]) -> str:
    if all(met):
        return "yes"
    return f"in {sum(met)} of {len(met)}" if any(met) else "**no**"


def page(runs: Sequence[JsonObject]) -> str:
    machine = runs[-1]["machine_info"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    table = tabulate(rows(runs), headers=HEADERS, tablefmt="github", disable_numparse=True)
    loads = ", ".join(f"{run['machine_info']['load']:.1f}" for run in runs)
    cpu = machine["cpu"]
    processor = cpu.get("brand_raw", machine.get("processor"))
    below = "\n".join([table, "", *notes(runs[-1])]).rstrip()
    return f"""# Measured speed

Written by `tests/benchmarks/table.py` from {len(runs)} consecutive run(s). In each run ours and its
peers were timed in turn, round by round, in one process; ratios and times are medians over the
rounds. The table shows the median over the runs; `runs` is the range of the ratio over runs.

- CPU: {processor}, {cpu.get("count")} cores; {machine["threads"]} thread used
- Load average {loads}: other processes' use of caches and memory bandwidth slows a
  gather more than a copy
- Clock: process_time is CPU time of the process, perf_counter wall-clock time
- Python {machine["python_version"]}, {packages}

{below}
"""


if __name__ == "__main__":
    *files, results = (Path(argument) for argument in sys.argv[1:])
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    results.write_text(page(runs), encoding="utf-8")
