"""What the unit tests of the frames compare with is what the stock packages write today."""

from __future__ import annotations

import json
import subprocess

from tests.edge.editors import ROOT, installed


def test_the_kept_frames_are_those_of_the_stock_packages() -> None:
    done = subprocess.run(
        ["node", "frames.mjs"], cwd=installed(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((ROOT / "tests" / "unit" / "frames.json").read_text())
    assert json.loads(done.stdout) == kept
