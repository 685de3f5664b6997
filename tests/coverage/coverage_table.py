"""How often each kind of interval holds, by simulation, as a table.

Usage: ``python tests/coverage/coverage_table.py DRAWS RESULTS.md``
"""

import math
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from simulated import MANY, Simulation
from simulations import SIMULATIONS
from tabulate import tabulate

TOO_LOW, CONSERVATIVE = 0.935, 0.965
MOST_FALSE = 0.025
ALLOWED = 3
"""Standard errors by which a share of false verdicts may exceed its limit: of some two hundred rows
at the limit itself one in seven hundred does by chance."""
ROUNDING = 1e-9
NONE = math.nan


class Counts(NamedTuple):
    """Of ``draws`` samples: those with bounds, that cover, without width, with a verdict.

    At the threshold of a claim both relations are false, and the more frequent one counts.
    """

    draws: int
    bounded: int
    covering: int
    without_width: int
    reproduced: int


def counts(simulation: Simulation, draws: int, seed: int = 0) -> Counts:
    """Draw samples and count. A simulation has its own stream of random numbers."""
    name = f"{simulation.kind} {simulation.setting} {simulation.n}"
    rng = np.random.default_rng([seed, crc32(name.encode())])
    if simulation.at_once:
        low, high = simulation.draw(rng, draws)
    else:
        intervals = [simulation.draw(rng) for _ in range(draws)]
        bounds = [(i.low, i.high) if i.low is not None else (NONE, NONE) for i in intervals]
        low, high = np.array(bounds, dtype=float).T
    threshold = simulation.threshold
    bounded, truth = ~np.isnan(low), simulation.truth
    with np.errstate(invalid="ignore"):
        reproduced = 0 if threshold is None else int((low > threshold + ROUNDING).sum())
        if threshold == truth:
            reproduced = max(reproduced, int((high < truth - ROUNDING).sum()))
        return Counts(
            draws,
            int(bounded.sum()),
            int(((low - ROUNDING <= truth) & (truth <= high + ROUNDING)).sum()),
            int((high - low <= 0).sum()),
            reproduced,
        )


def draws_of(simulation: Simulation, draws: int) -> int:
    """The samples of a row: more where they are drawn at once, fewer where each takes long."""
    return (MANY if simulation.at_once else 1) * draws // simulation.fewer


def standard_error(share: float, draws: int) -> float:
    """Of a share of so many draws."""
    return math.sqrt(share * (1 - share) / draws)


def faults(simulation: Simulation, counts: Counts, errors: float = 0.0) -> list[str]:
    """What does not hold: bounds, coverage, false verdicts, intervals without width.

    ``errors``: so many standard errors less coverage are allowed; of bounds and false verdicts
    ``ALLOWED`` more.
    """
    lines = []
    bounded = counts.bounded / counts.draws
    if bounded < simulation.bounded - (errors + ALLOWED) * standard_error(
        simulation.bounded, counts.draws
    ):
        lines.append(f"bounds in {bounded:.1%} instead of {simulation.bounded:.1%}")
    coverage = counts.covering / counts.bounded if counts.bounded else math.nan
    if coverage < TOO_LOW - errors * standard_error(TOO_LOW, counts.bounded):
        lines.append(f"coverage {coverage:.1%}")
    false = counts.reproduced / counts.draws
    limit = MOST_FALSE + (errors + ALLOWED) * standard_error(MOST_FALSE, counts.draws)
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
    yield from (simulation.kind, simulation.setting, str(simulation.n), f"{counts.draws:,}")
    yield f"{counts.bounded / counts.draws:.0%}"
    yield f"{coverage:.1%}"
    yield "" if simulation.threshold is None or not is_null(simulation) else share
    yield "" if simulation.threshold is None or is_null(simulation) else share
    yield f"{counts.without_width / counts.draws:.1%}"
    problems = ", ".join(faults(simulation, counts))
    if simulation.used:
        yield problems or ("conservative" if coverage > CONSERVATIVE else "yes")
    else:
        yield f"not used: {problems or 'it would hold'}"


HEADERS = ("interval", "setting", "n", "samples", "with bounds", "coverage", "false verdicts",
           "power", "no width", "holds")  # fmt: skip


def page(draws: int) -> str:
    """The table with what it is of; each processor counts rows of its own."""
    jobs = [(i, draws_of(simulation, draws)) for i, simulation in enumerate(SIMULATIONS)]
    with ProcessPoolExecutor() as processes:
        counted = list(processes.map(_counted, jobs))
    rows = [[*row(*pair)] for pair in zip(SIMULATIONS, counted, strict=True)]
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    return f"""# Measured coverage

Written by `make coverage`: {MANY * draws:,} samples with a known truth for each row,
or fewer where a sample takes long; a row has a stream of random numbers of its own. Nominal level:
95%.

- **with bounds**: samples whose interval is defined; coverage is of these. All are, except shares
  whose divisor is not significantly above 0, replicates or items that are equal, and kappas
  without an error.
- **false verdicts**: claims at their threshold that are reproduced all the same, those of *above*
  or those of *below*, whichever are more; at most 2.5%.
- **power**: true claims that are reproduced.
- **holds**: coverage of at least {TOO_LOW:.1%}, false verdicts of at most 2.5% and three standard
  errors ({_limit(MANY * draws):.2%} of {MANY * draws:,} samples, {_limit(draws):.2%} of {draws:,}),
  no interval without width; conservative: coverage above {CONSERVATIVE:.1%}. *Not used*: what an
  interval misses that leaves out a source of variance.
- **ranged**: quantities with a declared range. **wide**: without one.

{table}
"""


def _limit(draws: int) -> float:
    return MOST_FALSE + ALLOWED * standard_error(MOST_FALSE, draws)


def _counted(job: tuple[int, int]) -> Counts:
    index, draws = job
    return counts(SIMULATIONS[index], draws)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(int(sys.argv[1])), encoding="utf-8")
