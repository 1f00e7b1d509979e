"""The tests are tested: each planted bug must be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.histories import History, generate, run
from tests.oracle.mutants import MUTANTS, Mutant, planted

HISTORIES_MAX = 600
STEPS = 60
ROOT = Path(__file__).resolve().parents[2]
SUITE = ["tests/oracle/test_laws.py", "tests/oracle/test_histories.py", "-k", "not whatever"]
each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)


def found_by(history: History) -> bool:
    """Whether the comparison fails, or the engine stops at what it must not guess. A mutant that
    falls over in any other way is no bug but a mistake in its making.
    """
    try:
        run(history)
    except (AssertionError, LookupError) as error:
        if type(error) in {AssertionError, LookupError}:
            return True
        raise
    return False


@each_mutant
def test_a_planted_bug_is_found_by_generated_histories(mutant: Mutant) -> None:
    with planted(mutant):
        assert any(found_by(generate(seed, STEPS)) for seed in range(HISTORIES_MAX)), mutant.breaks


def test_every_invariant_has_at_least_two_planted_bugs() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for invariant in range(1, 6):
        assert sum(m.invariant == invariant for m in MUTANTS) >= 2, invariant
    assert all(mutant.breaks for mutant in MUTANTS)


@pytest.mark.soak
@each_mutant
def test_the_suite_fails_on_a_planted_bug(mutant: Mutant) -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.oracle.mutants", *SUITE]
    environment = os.environ | {"REJOIN_MUTANT": mutant.name, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, f"{mutant.breaks}\n{ran.stdout}"
