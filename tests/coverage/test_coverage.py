"""Every kind of interval holds in simulations of known truth; make coverage draws many more."""

import pytest
from coverage_table import counts, draws_of, faults
from simulations import SIMULATIONS

USED = [simulation for simulation in SIMULATIONS if simulation.used]


@pytest.mark.parametrize("simulation", USED, ids=lambda s: f"{s.kind}-{s.setting}-{s.n}")
def test_an_interval_holds(simulation):
    # Of some four hundred rows one in a hundred lies more than two standard errors below by chance.
    assert faults(simulation, counts(simulation, draws_of(simulation, 100)), errors=3) == []


def test_intervals_that_ignore_networks_do_not_hold():
    rejected = [s for s in SIMULATIONS if not s.used and "spread of networks twice" in s.setting]
    assert len(rejected) == 4
    for simulation in rejected:
        (fault, *_) = faults(simulation, counts(simulation, 1000))
        assert fault.startswith("coverage")
