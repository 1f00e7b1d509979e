"""The cases of the vectors, for those who run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VALUES: dict[str, list[Any]] = json.loads((HERE / "values.json").read_text())
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(HERE.glob("*.json"))
    if path.stem != "values"
    for case in json.loads(path.read_text())
]
