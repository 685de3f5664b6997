"""How often each kind of interval holds, by simulation, as a table.

Usage: ``python tests/coverage/coverage_table.py DRAWS RESULTS.md``
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from simulated import Simulation
from simulations import SIMULATIONS
from tabulate import tabulate

TOO_LOW, CONSERVATIVE = 0.935, 0.965
MOST_FALSE = 0.025
ROUNDING = 1e-9


class Counts(NamedTuple):
    """Of ``draws`` samples: those with bounds, that cover, without width, with a verdict."""

    draws: int
    bounded: int
    covering: int
    without_width: int
    reproduced: int


def counts(simulation: Simulation, draws: int, seed: int = 0) -> Counts:
    """Draw samples and count."""
    rng = np.random.default_rng(seed)
    bounded = covering = without_width = reproduced = 0
    for _ in range(draws):
        interval = simulation.draw(rng)
        low, high = interval.low, interval.high
        if low is None or high is None:
            continue
        bounded += 1
        covering += low - ROUNDING <= simulation.truth <= high + ROUNDING
        without_width += high - low <= 0
        reproduced += simulation.threshold is not None and low > simulation.threshold
    return Counts(draws, bounded, covering, without_width, reproduced)


def standard_error(share: float, draws: int) -> float:
    """Of a share of so many draws."""
    return math.sqrt(share * (1 - share) / draws)


def faults(simulation: Simulation, counts: Counts, errors: float = 0.0) -> list[str]:
    """What does not hold: bounds, coverage, false verdicts, intervals without width.

    ``errors``: so many standard errors less coverage are allowed; of bounds and false verdicts two
    more.
    """
    lines = []
    bounded = counts.bounded / counts.draws
    if bounded < simulation.bounded - (errors + 2) * standard_error(
        simulation.bounded, counts.draws
    ):
        lines.append(f"bounds in {bounded:.1%} instead of {simulation.bounded:.1%}")
    coverage = counts.covering / counts.bounded if counts.bounded else math.nan
    if coverage < TOO_LOW - errors * standard_error(TOO_LOW, counts.bounded):
        lines.append(f"coverage {coverage:.1%}")
    false = counts.reproduced / counts.draws
    limit = MOST_FALSE + (errors + 2) * standard_error(MOST_FALSE, counts.draws)
    if is_null(simulation) and false > limit:
        lines.append(f"false verdicts {false:.1%}")
    return [*lines, *(["no width"] if counts.without_width else [])]


def is_null(simulation: Simulation) -> bool:
    """Whether a claim that is reproduced is false."""
    return simulation.threshold is not None and simulation.truth <= simulation.threshold


def row(simulation: Simulation, counts: Counts) -> Iterator[str]:
    """A line of the table."""
    coverage = counts.covering / counts.bounded if counts.bounded else math.nan
    share = f"{counts.reproduced / counts.draws:.1%}"
    yield from (simulation.kind, simulation.setting, str(simulation.n))
    yield f"{counts.bounded / counts.draws:.0%}"
    yield f"{coverage:.1%}"
    yield "" if simulation.threshold is None or not is_null(simulation) else share
    yield "" if simulation.threshold is None or is_null(simulation) else share
    yield f"{counts.without_width / counts.draws:.1%}"
    problems = ", ".join(faults(simulation, counts))
    if simulation.used and simulation.assumed:
        yield problems or ("conservative" if coverage > CONSERVATIVE else "yes")
    else:
        why = "assumption broken" if simulation.used else "not used"
        yield f"{why}: {problems or 'it would hold'}"


HEADERS = ("interval", "setting", "n", "with bounds", "coverage", "false verdicts", "power",
           "no width", "holds")  # fmt: skip


def page(draws: int) -> str:
    """The table with what it is of."""
    rows = [[*row(simulation, counts(simulation, draws))] for simulation in SIMULATIONS]
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    return f"""# Measured coverage

Written by `make coverage`: {draws:,} samples with a known truth for each row, seed 0; two standard
errors of a coverage of 95% are {2 * standard_error(0.95, draws):.1%}. Nominal level: 95%.

- **with bounds**: samples whose interval is defined; coverage is of these. All are, except shares
  whose divisor is not significantly above 0, and replicates that are equal.
- **false verdicts**: claims at their threshold that are reproduced all the same; at most 2.5%.
- **power**: true claims that are reproduced.
- **holds**: coverage of at least {TOO_LOW:.1%}, false verdicts of at most 2.5% and two standard
  errors ({MOST_FALSE + 2 * standard_error(MOST_FALSE, draws):.1%}), no interval without width;
  conservative: coverage above {CONSERVATIVE:.1%}. *Not used*: what an interval misses that leaves
  out a source of variance. *Assumption broken*: what is not covered where a quantity without a
  range is as skewed as an exponential one; a claim that it is *below* a threshold is then false
  in up to 10%. Differences of two such arms hold.

{table}
"""


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(int(sys.argv[1])), encoding="utf-8")
