"""Mutants of a real submission: none stands as what it is not, runs, writes, hangs or raises."""

from __future__ import annotations

from pathlib import Path

import pytest
import submission_mutants
from fuzzing import HANG_SECONDS, MEMORY_BYTES, MutantResult, outcomes
from submission_mutants import ACCEPTED, FAULT, REFUSED
from submission_mutations import MUTATIONS

EACH = 12
"""Seeds of each kind in the slow test: 312 mutants."""
SAMPLE = ("better heads", "certificates", "record values", "names of folders")


def refuse_faults(results: list[MutantResult]) -> None:
    faults = [each for each in results if each.code in {FAULT, None}
              or each.peak_bytes > MEMORY_BYTES]  # fmt: skip
    assert not faults, "\n\n".join(f"{o.kind}, seed {o.seed}: {o.text or o}" for o in faults[:5])


def test_some_mutants_end_well(tmp_path: Path) -> None:
    results = outcomes(tmp_path, SAMPLE, 2, submission_mutants.__file__)
    refuse_faults(results)
    assert {each.kind for each in results} == set(SAMPLE)


@pytest.mark.slow
def test_every_kind_of_mutant_ends_well(tmp_path: Path) -> None:
    """Each within HANG_SECONDS for its check and its board, and MEMORY_BYTES."""
    results = outcomes(tmp_path, MUTATIONS, EACH, submission_mutants.__file__)
    refuse_faults(results)
    assert len(results) == EACH * len(MUTATIONS) > 292
    codes = [each.code for each in results]
    assert codes.count(REFUSED) > 150  # the others change nothing that follows, or no submission
    assert codes.count(ACCEPTED) < 100
    assert HANG_SECONDS == 20
