"""How push and pull cost with 1,000, 100,000 and 1,000,000 records in the space.

Told: milliseconds of one request on a connection that stays open, one after the other: a push of
20 changes (10 new records, 10 edits of records anywhere in the space) by one device, and then the
pull of those 20 by another one of the same user, which stands where it stood before the push.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import charts, fill
from benchmarks.bench import Bench, figure
from benchmarks.devices import (
    Device,
    change,
    decoded,
    encoded,
    envelope,
    fields,
    make_devices,
    part,
    put,
    record_id,
)
from benchmarks.figures import Row
from benchmarks.wire import Line, request
from storage.engine import make_engine

SIZES: Final = (1_000, 100_000, 1_000_000)
CHANGES: Final = 20
REQUESTS: Final = 100
WARM: Final = 20


@dataclass
class Big:
    """A space of some size, in a database of its own, with its two devices."""

    url: str
    writer: Device
    reader: Device
    ids: list[str]
    head: int
    records: int


def run(bench: Bench) -> list[Row]:
    """Latencies in milliseconds; the runs' figures are medians of 100 requests each."""
    spaces = [grown(bench, size) for size in SIZES if size <= bench.sized(SIZES[-1])]
    for big in spaces:
        _latencies(bench, big, WARM)
    told: dict[tuple[str, int], list[list[float]]] = {}
    # In turns, so that what slows the machine down for a while slows all sizes down.
    for _ in range(bench.runs):
        for big in spaces:
            pushes, pulls = _latencies(bench, big, REQUESTS)
            told.setdefault(("push", big.records), []).append(pushes)
            told.setdefault(("pull", big.records), []).append(pulls)
    medians = {key: figure([_at(one, 0.5) for one in runs], "ms") for key, runs in told.items()}
    slow = {key: figure([_at(one, 0.95) for one in runs], "ms") for key, runs in told.items()}
    charts.growth({key: (medians[key], slow[key]) for key in told})
    return [
        Row(
            f"{name} of {CHANGES}, {size:,} records",
            medians[name, size],
            note=f"p95 {slow[name, size].median:.1f} ms",
            facts={"records": size, "p95_ms": slow[name, size].median},
        )
        for name, size in told
    ]


def grown(bench: Bench, size: int) -> Big:
    """A space with so many records, in PostgreSQL as it would be after a while."""
    if size in bench.kept:
        found: Big = bench.kept[size]
        return found
    bench.say(f"filling a space with {size:,} records")
    url = bench.stage.database()
    engine = make_engine(url, 1, statement_timeout_ms=0)
    writer, reader = make_devices(engine, bench.stage.settings(url), 1, each=2)
    big = Big(url, writer, reader, fill.rows(bench.dice, engine, writer, size), size, size)
    engine.dispose()
    with bench.stage.connect(url, autocommit=True) as connection:
        fill.settle(connection)
    bench.kept[size] = big
    return big


def changes_of(bench: Bench, big: Big) -> list[dict[str, Any]]:
    """The next 20 of the writer, who has seen all there is."""
    made = []
    for n in range(big.head + 1, big.head + CHANGES + 1):
        new = n % 2 == 0
        id_ = record_id(n, bench.dice) if new else bench.dice.choice(big.ids)
        values = fields(bench.dice)
        op = put(id_, values if new else {"title": values["title"]}, new=new)
        made.append(change(n, big.head, op))
        if new:
            big.ids.append(id_)
    return made


def _latencies(bench: Bench, big: Big, count: int) -> tuple[list[float], list[float]]:
    """(pushes, pulls) in milliseconds."""
    server = bench.stage.serve(big.url)
    pushes, pulls = [], []
    with Line(server.address) as line:
        for _ in range(count):
            before = big.head
            changes = changes_of(bench, big)
            big.head += CHANGES
            push = encoded(envelope(part(before, big.head, changes)))
            pull = encoded(envelope({"epoch": 1, "cursor": before}))
            pushes.append(_timed(line, request("POST", "/v1/sync", big.writer.token, push))[0])
            spent, body = _timed(line, request("POST", "/v1/sync", big.reader.token, pull))
            pulls.append(spent)
            space = decoded(body)["spaces"]["me"]
            if space["cursor"] != big.head or not space["records"]:
                raise RuntimeError(f"the pull did not bring the push: {body[:300]!r}")
    return pushes, pulls


def _timed(line: Line, data: bytes) -> tuple[float, bytes]:
    start = time.perf_counter()
    body = line.good(data)
    return 1000 * (time.perf_counter() - start), body


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
