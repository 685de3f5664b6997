"""Broken inputs from seeds end with exit code 0, 1 or 2 and a message: no traceback, no hang."""

import pytest
from fuzzing import HANG_SECONDS, KINDS, MEMORY_BYTES, outcomes

FEW, MANY = 8, 2000


def refuse_faults(results):
    """No mutant ends in a traceback, a hang, without a message, or with too much memory."""
    faults = [o for o in results if o.code not in {0, 1, 2}]
    faults += [o for o in results if o.code == 2 and "error: " not in o.text]
    faults += [o for o in results if o.seconds > HANG_SECONDS or o.peak_bytes > MEMORY_BYTES]
    assert not faults, "\n\n".join(f"{o.kind}, seed {o.seed}: {o.text or o}" for o in faults[:5])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return outcomes(tmp_path_factory.mktemp("mutants"), KINDS, FEW)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_end_with_a_message(results, kind):
    own = [outcome for outcome in results if outcome.kind == kind]
    refuse_faults(own)
    assert {outcome.code for outcome in own} >= {2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_mutants_end_with_a_message(tmp_path, kind):
    results = outcomes(tmp_path, [kind], MANY)
    assert len(results) == MANY
    refuse_faults(results)
