"""How push and pull cost with 1,000, 100,000 and 1,000,000 records in the space.

Told: milliseconds of one request on a connection that stays open, one after the other: a push of
20 changes (10 new records, 10 edits of records anywhere in the space) by one device, and then the
pull of those 20 by another one of the same user, which stands where it stood before the push.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

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
    """A space that grows, in a database of its own, with its two devices."""

    url: str
    engine: Engine
    writer: Device
    reader: Device
    ids: list[str]
    head: int = 0
    filled: int = 0


def run(bench: Bench) -> list[Row]:
    """Latencies in milliseconds; the runs' figures are medians of 100 requests each."""
    rows, chart = [], {}
    for size in [size for size in SIZES if size <= bench.sized(SIZES[-1])]:
        start = time.perf_counter()
        big = grown(bench, size)
        filled = time.perf_counter() - start
        _latencies(bench, big, WARM)
        pushes, pulls = [], []
        for _ in range(bench.runs):
            push, pull = _latencies(bench, big, REQUESTS)
            pushes.append(push)
            pulls.append(pull)
        facts: dict[str, Any] = {"records": size, "fill_seconds": round(filled, 1)}
        for name, told in (("push", pushes), ("pull", pulls)):
            medians = figure([_at(one, 0.5) for one in told], "ms")
            slow = figure([_at(one, 0.95) for one in told], "ms")
            chart[name, size] = (medians, slow)
            note = f"p95 {slow.median:.1f} ms"
            rows.append(
                Row(f"{name} of {CHANGES}, {size:,} records", medians, note=note, facts=facts)
            )
    charts.growth(chart)
    return rows


def grown(bench: Bench, size: int) -> Big:
    """The space with at least so many records, in PostgreSQL as it would be after a while."""
    big: Big | None = bench.kept.get("big")
    if big is None:
        url = bench.stage.database()
        engine = make_engine(url, 1, statement_timeout_ms=0)
        writer, reader = make_devices(engine, bench.stage.settings(url), 1, each=2)
        big = bench.kept["big"] = Big(url, engine, writer, reader, [])
    if big.filled < size:
        bench.say(f"growth: filling a space to {size:,} records")
        big.ids += fill.rows(bench, big.engine, big.writer, big.head + size - big.filled,
                             big.head + 1)  # fmt: skip
        big.head += size - big.filled
        big.filled = size
        with bench.stage.connect(big.url, autocommit=True) as connection:
            fill.settle(connection)
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
