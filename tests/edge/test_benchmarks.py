"""The benchmarks still run: at tiny sizes, and nothing is said of how fast."""

from __future__ import annotations

import gzip
import json
import os
import shutil
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
        [*command, f"--json={told}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    # 1: a goal was missed, which at such a size says nothing.
    assert done.returncode in {0, 1}, done.stderr
    found: dict[str, Any] = json.loads(told.read_text())["measures"]
    assert list(found) == measures
    for rows in found.values():
        goals = [row for row in rows if row["goal"] is not None]
        assert goals
        assert all(row["ratio"]["median"] > 0 for row in goals if row["baseline"])


def test_a_trace_is_typed_and_received_at_both_servers(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Node 20 and npm are needed for the stock editors' providers")
    trace, told = tmp_path / "trace.json.gz", tmp_path / "told.json"
    typed = [{"patches": [[n, 0, letter]]} for n, letter in enumerate("Wählen 🙂")]
    trace.write_bytes(
        gzip.compress(json.dumps({"txns": [*typed, {"patches": [[0, 2, ""]]}]}).encode())
    )
    command = [sys.executable, "-m", "benchmarks", "editing", "--runs=1", f"--trace={trace}"]
    done = subprocess.run(
        [*command, f"--json={told}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in {0, 1}, done.stderr
    if "npm ci could not install" in done.stdout:
        pytest.skip("npm reaches no registry")
    speed, load, *stored = json.loads(told.read_text())["measures"]["editing"]
    assert speed["ratio"]["median"] > 0
    assert load["median"] > 0
    assert all(row["median"] > 0 for row in stored)


def test_without_a_trace_editing_is_left_out_in_a_sentence(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", "benchmarks", "editing", f"--json={told}"]
    without = {name: value for name, value in os.environ.items() if name != "EDITING_TRACE"}
    done = subprocess.run(
        command, cwd=ROOT, env=without, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "editing is left out" in done.stdout
    assert json.loads(told.read_text())["measures"] == {"editing": []}


def test_an_unknown_measure_is_refused_with_a_sentence() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such measure: nonsense" in done.stderr
