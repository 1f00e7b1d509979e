"""The memory of each worker over 100,000 changes: 50 devices, new rows and edits, pushes and pulls.

Told: resident kilobytes of each worker after a tenth of the changes (when all is loaded and the
pools are open) and at the end, and at every tenth between. A server of its own, freshly started.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.bench import Bench, figure, hello
from benchmarks.devices import Device, change, encoded, envelope, fields, part, put, record_id
from benchmarks.figures import Row
from benchmarks.measures import push
from benchmarks.wire import flooded, request

USERS, CHANGES, IN_FLIGHT, STEPS = 50, 100, 16, 10
UNIT: Final = "MB"


def run(bench: Bench) -> list[Row]:
    """Resident memory in megabytes: the workers' mean."""
    count = bench.sized(100_000)
    bench.stage.end(bench.server)
    server = bench.server
    devices = bench.devices(USERS)
    phones = [_Phone(device) for device in devices]
    each = max(1, count // (USERS * CHANGES * STEPS))
    told: list[list[float]] = []
    for _ in range(STEPS):
        queues = [phone.requests(bench, each) for phone in phones]
        flooded(server.address, hello(devices[0].token), queues, IN_FLIGHT)
        told.append([worker.memory_info().rss / 2**20 for worker in server.workers()])
    for device in devices:
        push.verify(bench, bench.database, device, each * CHANGES * STEPS)
    first, last = told[0], told[-1]
    facts: dict[str, Any] = {
        "changes": each * USERS * CHANGES * STEPS,
        "workers": [[round(mb, 1) for mb in step] for step in told],
    }
    grown = ", ".join(f"{a:.1f} → {b:.1f}" for a, b in zip(first, last, strict=True))
    note = f"{facts['changes']:,} changes; each worker, MB: {grown}"
    return [
        Row("memory of a worker, after a tenth", figure(first, UNIT)),
        Row("memory of a worker, at the end", figure(last, UNIT), note=note, facts=facts),
    ]


class _Phone:
    """A device that begins a row with every other change, and edits one of its own between."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._counter = 0
        self._rows: list[str] = []

    def requests(self, bench: Bench, count: int) -> list[bytes]:
        return [self._request(bench) for _ in range(count)]

    def _request(self, bench: Bench) -> bytes:
        cursor, changes = self._counter, []
        for _ in range(CHANGES):
            self._counter += 1
            new = self._counter % 2 == 1
            if new:
                self._rows.append(record_id(self._counter, bench.dice))
            row = self._rows[-1] if new else bench.dice.choice(self._rows)
            values = fields(bench.dice)
            op = put(row, values if new else {"done": values["done"]}, new=new)
            changes.append(change(self._counter, cursor, op))
        # Every tenth request asks for all there is: pages are read and written too.
        seen = 0 if self._counter % 1_000 == 0 else cursor
        body = encoded(envelope(part(seen, self._counter, changes)))
        return request("POST", "/v1/sync", self._device.token, body)
