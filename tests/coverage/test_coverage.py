"""Every kind of interval holds in simulations of known truth; make coverage draws many more."""

import pytest
from coverage_table import counts, faults
from simulations import SIMULATIONS


@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda s: f"{s.kind}-{s.setting}-{s.n}")
def test_an_interval_holds(simulation):
    assert faults(simulation, counts(simulation, 100), errors=2) == []
