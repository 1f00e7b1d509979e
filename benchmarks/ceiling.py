"""Is the load generator the bottleneck? What it reaches against a server that does nothing.

The same requests as the measures send (a sync with nothing new, and a push of 20 changes), 16 in
flight, against benchmarks/responder.py. Beside the rate, the generator's own processor time for a
request: what it takes from the machine that the server shares with it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from app.settings import ROOT
from benchmarks.bench import Bench, figure
from benchmarks.devices import encoded, envelope, new_rows, part
from benchmarks.figures import Row
from benchmarks.wire import Flood, flooded, request

REQUESTS: Final = 16_000
IN_FLIGHT: Final = 16
# As long as ours are.
TOKEN: Final = "t" * 400


def run(bench: Bench) -> list[Row]:
    """Rates in requests a second."""
    each = max(4, bench.sized(REQUESTS) // IN_FLIGHT)
    idle = request("POST", "/v1/sync", TOKEN, encoded(envelope(part(20, 20, []))))
    changes = new_rows(1, 20, 0, bench.dice)
    push = request("POST", "/v1/sync", TOKEN, encoded(envelope(part(0, 20, changes))))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.responder"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        address = ("127.0.0.1", int(process.stdout.readline()))
        rows = []
        for name, data in (("idle sync", idle), ("push of 20 changes", push)):
            floods = [_flood(address, data, each) for _ in range(bench.runs)]
            cost = figure([1e6 * f.cpu_seconds / f.requests for f in floods], "µs").median
            rows.append(
                Row(f"generator's ceiling, {name}", figure([f.rate for f in floods], "requests/s"),
                    note=f"{cost:.0f} µs of processor a request", facts={"cpu_us": cost})
            )  # fmt: skip
        return rows
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _flood(address: tuple[str, int], data: bytes, each: int) -> Flood:
    return flooded(address, data, [[data] * (each // 4)] * (IN_FLIGHT * 4), IN_FLIGHT)
