"""The results of ``pytest -m benchmark --benchmark-json FILE`` as a table of ratios and goals.

Usage: ``python tests/benchmarks/table.py FILE > tests/benchmarks/RESULTS.md``
"""

import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

HEADERS = ("benchmark", "ours (ms)", "peer", "peer (ms)", "ratio", "goal", "met")


def rows(results: dict[str, Any]) -> list[list[str]]:
    """One row for each race, in the order of the groups."""
    ordered = sorted(results["benchmarks"], key=lambda found: str(found["group"]))
    return [row(found, race) for found in ordered for race in found["extra_info"]["races"]]


def row(found: dict[str, Any], race: dict[str, Any]) -> list[str]:
    ratio, goal, met = judged(race)
    return [
        f"{found['group']}: {found['name'].removeprefix('test_')}",
        f"{found['extra_info']['seconds'] * 1e3:.2f}",
        race["peer"],
        f"{race['peer_seconds'] * 1e3:.2f}",
        ratio,
        goal,
        met,
    ]


def judged(race: dict[str, Any]) -> tuple[str, str, str]:
    """The ratio in the words of its goal, the goal, and whether it is met."""
    if race["within"] is not None:
        times = 1 / race["speedup"]
        return f"{times:.2f}x its time", f"<= {race['within']}x", verdict(times <= race["within"])
    met = verdict(race["speedup"] >= race["faster"])
    return f"{race['speedup']:.2f}x faster", f">= {race['faster']}x", met


def verdict(met: bool) -> str:
    return "yes" if met else "**no**"


def page(results: dict[str, Any]) -> str:
    machine = results["machine_info"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    table = tabulate(rows(results), headers=HEADERS, tablefmt="github", disable_numparse=True)
    cpu = machine["cpu"]
    processor = cpu.get("brand_raw", machine.get("processor"))
    clocks = {found["extra_info"]["clock"] for found in results["benchmarks"]}
    return f"""# Measured speed

Written by `tests/benchmarks/table.py`. Ours and its peers were timed in turn, round by round, in
one process; a ratio is the median over the rounds, a time the median of its own.

- CPU: {processor}, {cpu.get("count")} cores; {machine["threads"]} thread used
- Load average {machine["load"]:.1f}: what other processes take from the caches and the memory
  counts against a gather more than against a copy
- Clock: {", ".join(sorted(clocks))}
- Python {machine["python_version"]}, {packages}

{table}
"""


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
