"""The benchmarks still run: at tiny sizes, and nothing is said of how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("measures", "size"),
    [(["push", "idle"], 50), (["delivery", "fanout", "sockets", "day"], 4)],
    ids=["requests", "live"],
)
def test_each_ratio_is_measured_beside_its_baseline(
    tmp_path: Path, measures: list[str], size: int
) -> None:
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", "benchmarks", *measures, "--runs=1", f"--size={size}"]
    done = subprocess.run(
        [*command, f"--json={told}"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    # 1: a goal was missed, which at such a size says nothing.
    assert done.returncode in {0, 1}, done.stderr
    found: dict[str, Any] = json.loads(told.read_text())["measures"]
    assert list(found) == measures
    for rows in found.values():
        goals = [row for row in rows if row["goal"] is not None]
        assert goals
        assert all(row["ratio"]["median"] > 0 for row in goals if row["baseline"])


def test_an_unknown_measure_is_refused_with_a_sentence() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such measure: nonsense" in done.stderr
