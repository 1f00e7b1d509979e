"""50 users with a device each push 20 requests of 20 changes, 16 in flight.

Counted: requests. Each device sends its next request after the answer to its last; they share 16
connections, as behind a proxy. The baseline is a bare Flask endpoint behind the same gunicorn
configuration, which checks the same token and commits one inserted row: as many requests, as many
connections, a body of eight bytes.
"""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench, figure, generator, hello, together
from benchmarks.devices import FORMATS, Device, encoded, envelope, new_rows, part
from benchmarks.figures import Row
from benchmarks.measures.push import verify
from benchmarks.stage import Gunicorn
from benchmarks.wire import Flood, flooded, request

GOAL: Final = 0.5
USERS, REQUESTS, CHANGES, IN_FLIGHT = 50, 20, 20, 16


def run(bench: Bench) -> list[Row]:
    """Rates in requests a second."""
    each = max(1, bench.sized(USERS * REQUESTS) // USERS)
    floods: list[Flood] = []
    bare: list[Flood] = []
    packed: list[Flood] = []
    shares: list[dict[str, float]] = []
    bench.settle()
    for warm in range(2):
        _push(bench, warm + 1, "json")
        _bare(bench, 2 * warm + 2)
    for _ in range(bench.runs):
        with bench.shares(bench.server) as share:
            floods.append(_push(bench, each, "json"))
        shares.append(share)
        bare.append(_bare(bench, each))
        packed.append(_push(bench, each, "msgpack"))
    unit = "requests/s"
    facts = together(shares) | {
        "changes_per_second": figure([f.rate * CHANGES for f in floods], "changes/s").median,
        "p50_ms": figure([f.percentile(0.5) for f in floods], "ms").median,
        "p99_ms": figure([f.percentile(0.99) for f in floods], "ms").median,
        "client_cpu_share": figure([f.cpu_seconds / f.seconds for f in floods], "").median,
        "bare_client_cpu_share": figure([f.cpu_seconds / f.seconds for f in bare], "").median,
    }
    note = f"{facts['changes_per_second']:,.0f} changes/s, p99 {facts['p99_ms']:.0f} ms;"
    note += f" {generator(floods)}"
    base = figure([f.rate for f in bare], unit)
    return [
        Row("devices, JSON ÷ bare token + row", figure([f.rate for f in floods], unit), base,
            GOAL, note, facts),
        Row("devices, MessagePack ÷ bare token + row", figure([f.rate for f in packed], unit),
            base),
    ]  # fmt: skip


def _push(bench: Bench, each: int, format_: str) -> Flood:
    devices = bench.devices(USERS)
    made = flood(bench, bench.server, devices, each, format_)
    for device in devices[:: USERS // 5]:
        verify(bench, bench.database, device, each * CHANGES)
    return made


def flood(bench: Bench, server: Gunicorn, devices: list[Device], each: int, format_: str) -> Flood:
    """Each device pushes so many requests."""
    queues = [_requests(bench, device, each, format_) for device in devices]
    return _flood(server, devices, queues)


def _requests(bench: Bench, device: Device, each: int, format_: str) -> list[bytes]:
    """Each made after the answer to the last: its contexts stand at the cursor it got there."""
    type_, made = FORMATS[format_], []
    for start in range(0, each * CHANGES, CHANGES):
        changes = new_rows(start + 1, CHANGES, start, bench.dice)
        body = encoded(envelope(part(start, start + CHANGES, changes)), format_)
        made.append(request("POST", "/v1/sync", device.token, body, content=type_, accept=type_))
    return made


def _bare(bench: Bench, each: int) -> Flood:
    devices = bench.devices(USERS)
    queues = [[request("POST", "/row", device.token, b'{"n": 1}')] * each for device in devices]
    return _flood(bench.bare_server, devices, queues)


def _flood(server: Gunicorn, devices: list[Device], queues: list[list[bytes]]) -> Flood:
    return flooded(server.address, hello(devices[0].token), queues, IN_FLIGHT)
