"""The results of ``pytest -m benchmark --benchmark-json FILE`` as a table of ratios and goals.

Usage: ``python tests/benchmarks/table.py FILE RESULTS.md``
"""

import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

HEADERS = ("benchmark", "ours (ms)", "peer", "peer (ms)", "clock", "ratio", "goal", "met")


def rows(results: dict[str, Any]) -> list[list[str]]:
    """One row for each race, in the order of the groups."""
    ordered = sorted(results["benchmarks"], key=lambda found: str(found["group"]))
    return [row(found, race) for found in ordered for race in found["extra_info"]["races"]]


def row(found: dict[str, Any], race: dict[str, Any]) -> list[str]:
    ratio, goal, met = judged(race)
    return [
        label(found),
        f"{found['extra_info']['seconds'] * 1e3:.2f}",
        race["peer"],
        f"{race['peer_seconds'] * 1e3:.2f}",
        found["extra_info"]["clock"],
        ratio,
        goal,
        met,
    ]


def judged(race: dict[str, Any]) -> tuple[str, str, str]:
    """The ratio in the words of its goal, the goal, and whether it is met; both may be none."""
    times = 1 / race["speedup"]
    if race["within"] is not None:
        return f"{times:.2f}x its time", f"<= {race['within']}x", verdict(times <= race["within"])
    if race["faster"] is None:
        return f"{times:.2f}x its time", "", ""
    met = verdict(race["speedup"] >= race["faster"])
    return f"{race['speedup']:.2f}x faster", f">= {race['faster']}x", met


def notes(results: dict[str, Any]) -> list[str]:
    """What the benchmarks found besides, which tells why a goal cannot be met here."""
    ordered = sorted(results["benchmarks"], key=lambda found: str(found["group"]))
    return [
        f"- {label(found)}: {found['extra_info']['note']}"
        for found in ordered
        if "note" in found["extra_info"]
    ]


def label(found: dict[str, Any]) -> str:
    return f"{found['group']}: {found['name'].removeprefix('test_')}"


def verdict(met: bool) -> str:
    return "yes" if met else "**no**"


def page(results: dict[str, Any]) -> str:
    machine = results["machine_info"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    table = tabulate(rows(results), headers=HEADERS, tablefmt="github", disable_numparse=True)
    cpu = machine["cpu"]
    processor = cpu.get("brand_raw", machine.get("processor"))
    below = "\n".join([table, "", *notes(results)]).rstrip()
    return f"""# Measured speed

Written by `tests/benchmarks/table.py`. Ours and its peers were timed in turn, round by round, in
one process; a ratio is the median over the rounds, a time the median of its own.

- CPU: {processor}, {cpu.get("count")} cores; {machine["threads"]} thread used
- Load average {machine["load"]:.1f}: what other processes take from the caches and the memory
  counts against a gather more than against a copy
- Clock: process_time counts what one process computed, perf_counter what passed for the user
- Python {machine["python_version"]}, {packages}

{below}
"""


if __name__ == "__main__":
    found, results = (Path(given) for given in sys.argv[1:])
    results.write_text(page(json.loads(found.read_text(encoding="utf-8"))), encoding="utf-8")
