"""Sync with nothing new: 50 devices, 16 in flight, on connections that stay open.

Counted: requests. The baseline is a bare Flask endpoint that checks the same token, and no
database. That nothing is written is shown by PostgreSQL: its next transaction number (only what
writes gets one) and the bytes of its write-ahead log, before and after.
"""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench, figure, generator, hello, together
from benchmarks.devices import Device, decoded, encoded, envelope, new_rows, part
from benchmarks.figures import Row
from benchmarks.stage import Gunicorn
from benchmarks.wire import Flood, Line, flooded, request

GOAL: Final = 0.6
USERS, IN_FLIGHT, CHANGES = 50, 16, 20
_WRITTEN: Final = """
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
           pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
"""


def run(bench: Bench) -> list[Row]:
    """Rates in requests a second."""
    each = max(1, bench.sized(4_000) // USERS)
    devices = bench.devices(USERS)
    queues = [[_settled(bench, device)] * each for device in devices]
    bare_queues = [[request("POST", "/token", device.token, b'{"n": 1}')] * each
                   for device in devices]  # fmt: skip
    floods: list[Flood] = []
    bare: list[Flood] = []
    shares: list[dict[str, float]] = []
    written: list[tuple[int, int]] = []
    for server, asked in ((bench.server, queues), (bench.bare_server, bare_queues)):
        _flood(server, devices, [queue[:20] for queue in asked])
    bench.settle()
    for _ in range(bench.runs):
        before = _written(bench)
        with bench.shares(bench.server) as share:
            floods.append(_flood(bench.server, devices, queues))
        shares.append(share)
        after = _written(bench)
        written.append((after[0] - before[0], after[1] - before[1]))
        bare.append(_flood(bench.bare_server, devices, bare_queues))
    transactions, log = (max(column) for column in zip(*written, strict=True))
    facts = together(shares) | {
        "requests": each * USERS,
        "written_transactions": transactions,
        "wal_bytes": log,
        "p50_ms": figure([f.percentile(0.5) for f in floods], "ms").median,
        "p99_ms": figure([f.percentile(0.99) for f in floods], "ms").median,
        "client_cpu_share": figure([f.cpu_seconds / f.seconds for f in floods], "").median,
        "bare_client_cpu_share": figure([f.cpu_seconds / f.seconds for f in bare], "").median,
    }
    note = f"in a run {transactions} transactions wrote, {log} B of log; {generator(floods)}"
    unit = "requests/s"
    base = figure([f.rate for f in bare], unit)
    rate = figure([f.rate for f in floods], unit)
    return [Row("idle sync ÷ bare token", rate, base, GOAL, note, facts)]


def flood(bench: Bench, server: Gunicorn, devices: list[Device], each: int) -> Flood:
    """Each device asks so often what is new, and nothing is."""
    return _flood(server, devices, [[_settled(bench, device)] * each for device in devices])


def _settled(bench: Bench, device: Device) -> bytes:
    """The request of a device that has it all, and has said so."""
    changes = new_rows(1, CHANGES, 0, bench.dice)
    push = encoded(envelope(part(0, CHANGES, changes)))
    idle = request("POST", "/v1/sync", device.token, encoded(envelope(part(CHANGES, CHANGES, []))))
    with Line(bench.server.address) as line:
        line.good(request("POST", "/v1/sync", device.token, push))
        space = decoded(line.good(idle))["spaces"]["me"]
    if space.get("cursor") != CHANGES or space["records"]:
        raise RuntimeError(f"there is something new, or wrong: {space}")
    return idle


def _written(bench: Bench) -> tuple[int, int]:
    """What PostgreSQL has written until now: transactions that changed anything, bytes of log."""
    with bench.stage.connect(bench.database, autocommit=True) as connection:
        row = connection.execute(_WRITTEN).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _flood(server: Gunicorn, devices: list[Device], queues: list[list[bytes]]) -> Flood:
    return flooded(server.address, hello(devices[0].token), queues, IN_FLIGHT)
